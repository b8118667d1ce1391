"""Drift while playing: said once when the picture leaves the look of its world, forgotten by a reset."""
from types import SimpleNamespace

import numpy as np
import pygame
import pytest

from tests import ROOT
from tests.client.fake_worlds import FakeWorld
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from worldplay.client.drift import Drift, look_for
from worldplay.client.view import Mode
from worldplay.eval.look import EVERY, RECENT, look_of


def frames(seed, low=40, high=200):
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, (120, 160, 3)).astype(np.uint8) for _ in range(6)]


@pytest.mark.parametrize("change", [
    lambda frame: np.full_like(frame, 120), lambda frame: frame // 4, lambda frame: frame * (1, 0, 0)])
def test_a_picture_that_melts_darkens_or_loses_its_colours_is_said_once(change):
    drift, good = Drift(look_of(frame[None] for frame in frames(0))), frames(1)
    for number in range(EVERY * RECENT):
        assert not drift.see(good[number % 6], number)
    assert drift.figures["sharpness_ratio"] == pytest.approx(1, abs=0.05) and not drift.is_away
    said = [drift.see(change(good[number % 6]).astype(np.uint8), number)
            for number in range(EVERY * RECENT, 4 * EVERY * RECENT)]
    assert sum(said) == 1 and drift.is_away and len(drift.row) == 1
    drift.begin(0)
    assert not drift.see(good[0], 0) and drift.figures is None and not drift.is_away, "a reset forgets"


def test_a_world_of_which_nothing_is_known_is_not_measured():
    assert look_for(FakeWorld()) is None
    drift = Drift(None)
    assert not any(drift.see(frames(0)[0], number) for number in range(500)) and drift.row == []


class Older(FakeWorld):
    """As a learned world whose config.json says nothing of its look."""
    folder = ROOT / "checkpoints" / "doom-maze"

    class config:
        look = None


def test_a_world_says_its_look_and_that_of_an_older_one_is_that_of_its_scenes():
    look = look_for(Older())
    assert look.frames == 6 and look.brightness > 10 and look.sharpness_ratio == (1.0, 1.0)
    world = Older()
    world.config = SimpleNamespace(look=look_of([np.stack(frames(3))]))
    assert look_for(world) is world.config.look
    world.config, world.folder = SimpleNamespace(look=None), None
    assert look_for(world) is None, "random weights"


def test_what_real_play_reaches_is_no_drift():
    """Half of its episodes lie in the dark."""
    light = [np.stack(frames(seed) * 200) for seed in range(2)]
    look = look_of([light[0], light[1] // 5])
    assert look.frames == 300 and look.brightness_ratio[0] < 0.4 and look.brightness_ratio[1] > 1.5
    drift = Drift(look)
    for number in range(EVERY * RECENT * 2):
        drift.see(light[0][number % 6] // 5, number)
    assert drift.figures is not None and not drift.is_away
    for number in range(EVERY * RECENT * 2):
        drift.see(light[0][number % 6] // 20, number)
    assert drift.is_away


def test_what_is_loaded_on_ahead_is_measured_by_itself():
    """A saved place may lie at a later frame than the one that is left, in another part of the world."""
    drift, good = Drift(look_of(frame[None] for frame in frames(0))), frames(1)
    for number in range(EVERY * RECENT):
        drift.see(good[number % 6] // 5, number)
    assert drift.is_away
    drift.begin(1000)
    assert drift.figures is None and not drift.is_away and drift.is_good is None
    for number in range(1001, 1001 + EVERY):
        drift.see(good[number % 6], number)
    assert drift.is_good and list(drift.good) == [number for number in drift.good if number > 1000]


def test_a_reset_and_a_load_forget_what_was_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("worldplay.client.view.look_for", lambda world: look_of([FakeWorld().reset()]))
    begun = []
    begin = Drift.begin
    monkeypatch.setattr(Drift, "begin", lambda self, number: begun.append(number) or begin(self, number))
    session = Session(FakeWorld(fps=100.0), [
        (20, key(pygame.K_F5)), (lambda: session.notice == "Saved", key(pygame.K_r)),
        (lambda: begun == [0, 0], key(pygame.K_F8)), (lambda: len(begun) == 3, QUIT)])
    session.run()
    assert begun[2] >= 15


def test_the_last_good_moment_is_before_the_picture_left_and_going_back_forgets_later_ones():
    drift, good = Drift(look_of(frame[None] for frame in frames(0))), frames(1)
    for number in range(0, 400):
        drift.see(good[number % 6] // (1 if number < 200 else 5), number)
    assert drift.is_away and drift.is_good is False and 190 <= drift.good[-1] < 220
    drift.begin(100)
    assert drift.is_good is None
    for number in range(100, 120):
        drift.see(good[number % 6], number)
    assert drift.is_good and drift.good[-1] == 112 and max(drift.good) == 112 and not drift.is_away


class Melting(FakeWorld):
    """Its picture goes dark after its hundredth frame."""

    def _draw(self, keys):
        return super()._draw(keys) // (1 if self._count <= 100 else 6)


def test_home_and_the_menu_go_back_to_the_last_good_moment_and_the_same_frame_is_there(monkeypatch):
    real = FakeWorld().reset()
    monkeypatch.setattr("worldplay.client.view.look_for", lambda world: look_of([real]))
    world, arrived = Melting(fps=400.0), []

    def screen():
        return session.loop._screen

    def is_away():
        return screen().drift.is_away and "Home goes back to the last good moment" in session.notice

    def is_back():
        if session.mode is Mode.PLAYING and screen().number <= 130:
            arrived.append((screen().number, screen().frame))
            return True
        return False
    session = Session(world, [
        (3, key(pygame.K_HOME), key(pygame.K_HOME, False)),
        (lambda: "not known" in session.notice,), (60, key(pygame.K_HOME), key(pygame.K_HOME, False)),
        (lambda: "looks like its world" in session.notice,),
        (is_away, key(pygame.K_HOME), key(pygame.K_HOME, False)), (is_back,),
        (is_away, key(pygame.K_ESCAPE)), (0.0, key(pygame.K_RIGHT), key(pygame.K_RIGHT, False)),
        (0.0, key(pygame.K_RETURN), key(pygame.K_RETURN, False)), (is_back, QUIT)])
    session.run()
    resets = [i for i, (what, *_) in enumerate(world.calls) if what == "reset"]
    assert len(resets) == 3, "this world is taken back by its actions"
    assert len(arrived) == 2 and all(90 < number for number, _ in arrived)
    assert all(np.array_equal(frame, session.frames[number]) for number, frame in arrived)


def test_where_no_moment_of_the_last_seconds_is_good_that_is_said(monkeypatch):
    monkeypatch.setattr("worldplay.client.view.look_for", lambda world: look_of([np.stack(frames(0))]))
    session = Session(FakeWorld(fps=400.0), [
        (lambda: session.loop._screen.drift.is_away, key(pygame.K_HOME)),
        (lambda: "is good; R starts again" in session.notice, QUIT)])
    session.run()
    assert session.mode is Mode.PLAYING
