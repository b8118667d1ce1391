"""Drift while playing: said once when the picture leaves the look of its world, forgotten by a reset."""
import numpy as np
import pytest

from tests.client.fake_worlds import FakeWorld
from worldplay.client.drift import EVERY, RECENT, Drift, scenes_of


def frames(seed, low=40, high=200):
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, (120, 160, 3)).astype(np.uint8) for _ in range(6)]


@pytest.mark.parametrize("change", [
    lambda frame: np.full_like(frame, 120), lambda frame: frame // 4, lambda frame: frame * (1, 0, 0)])
def test_a_picture_that_melts_darkens_or_loses_its_colours_is_said_once(change):
    drift, good = Drift(frames(0)), frames(1)
    for number in range(EVERY * RECENT):
        assert not drift.see(good[number % 6], number)
    assert drift.figures["sharpness_ratio"] == pytest.approx(1, abs=0.05) and not drift.is_away
    said = [drift.see(change(good[number % 6]).astype(np.uint8), number)
            for number in range(EVERY * RECENT, 4 * EVERY * RECENT)]
    assert sum(said) == 1 and drift.is_away and len(drift.row) == 1
    assert not drift.see(good[0], 0) and drift.figures is None, "a reset forgets"


def test_a_world_without_scenes_on_disk_is_not_measured():
    assert scenes_of(FakeWorld()) == []
    drift = Drift([])
    assert not any(drift.see(frames(0)[0], number) for number in range(500)) and drift.row == []


def test_the_scenes_of_a_world_are_its_real_frames():
    world = FakeWorld()
    world.name, world.info["world_hash"] = "doom-maze", "f00d"
    real = scenes_of(world)
    assert len(real) == 6 and all(frame.shape == (120, 160, 3) and frame.dtype == np.uint8 for frame in real)
