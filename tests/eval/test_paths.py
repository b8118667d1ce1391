"""The comparison of paths: both are timed in turn and begin alike, and the world is left as it was."""
import numpy as np
import pytest
import torch

from tests.engine.test_dream import SPACE, context, float32_world
from worldplay import runtime
from worldplay.errors import WorldError
from worldplay.eval import paths
from worldplay.eval.paths import compare_paths, held_out
from worldplay.eval.streams import Streams

pytestmark = pytest.mark.skipif(not runtime.cpp_compiler(), reason="no C++ compiler is here")


class Source:
    """Held-out play of noise, no frame like another."""
    players, action_space = ("explorer",), SPACE

    def streams(self, player, num, *, context, horizon):
        rng, n = np.random.default_rng(0), context + horizon
        return Streams(rng.integers(0, 256, (2, n, 24, 32, 3), np.uint8),
                       rng.uniform(-1, 1, (2, n, SPACE.num_channels)).astype(np.float32), None, context)

    def close(self):
        pass


@pytest.fixture
def world(native_cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(native_cache))
    before, world = torch.get_num_threads(), float32_world()
    world.compile(wait=True)
    frames, actions = context()
    reset, start = world.reset, {"frames": frames, "actions": actions}
    monkeypatch.setattr(world, "reset", lambda **given: reset(**(given or start)))  # it has no scenes
    yield world
    torch.set_num_threads(before)


def test_both_paths_are_timed_and_compared_with_real_frames(world, monkeypatch):
    monkeypatch.setattr(paths, "open_source", lambda name: Source())
    figures = compare_paths(world, frames=10)
    assert figures["ratio"] == figures["compiled"]["frame_ms"]["p50"] / figures["eager"]["frame_ms"]["p50"]
    assert all(figures[path]["latency_ms"]["p50"] <= figures[path]["frame_ms"]["p50"]
               for path in ("eager", "compiled"))
    real = figures["held_out"]
    assert real["streams"] == 2 and real["difference_db"] < 0.01 and real["between_db"] > 45
    assert world.info["path"] == "compiled"


def test_without_its_game_nothing_is_said_of_real_frames(world, monkeypatch):
    def missing(name):
        raise WorldError("not_found", "no such game")
    monkeypatch.setattr(paths, "open_source", missing)
    assert held_out(world) is None
