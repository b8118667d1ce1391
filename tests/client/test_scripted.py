"""Scripted play in the client's own loop: what it presses, what it stamps, and how it ends."""
import os

import pytest

from tests.client.fake_worlds import FakeWorld
from worldplay.client.scripted import stamped
from worldplay.errors import WorldError
from worldplay.eval import report
from worldplay.eval.verdict import latency_lines


def test_stamps_are_of_inputs_that_reached_the_world(monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    world = FakeWorld(delay=0.03)
    figures = stamped(world, seconds=1.0)
    assert "SDL_VIDEODRIVER" not in os.environ
    steps = [action for what, action, _ in world.calls if what == "step"]
    assert steps[0].keys or any(steps[0].look), "the first frame answers an input"
    assert 1 <= figures["inputs"] <= figures["frames"] <= len(steps)
    delays = figures["key_flip_ms"]
    assert 30 <= delays["p50"] <= delays["p95"] <= delays["max"]
    assert figures["path"] == "eager" and 0 <= figures["late"] <= len(steps)
    assert world.calls[-1][0] == "close"


def test_a_slow_world_is_given_the_time_for_a_frame():
    figures = stamped(FakeWorld(fps=1000.0, delay=0.05), seconds=0.0)
    assert figures["frames"] >= figures["inputs"] >= 1 and figures["late"] >= 1


def test_a_world_that_fails_costs_its_delays_alone():
    with pytest.raises(WorldError, match="the device went away"):
        stamped(FakeWorld(fail_at=1))
    figures = {"left_out": []}
    report._add_latency(figures, stamped, FakeWorld(fail_at=1))
    assert figures["left_out"] == ["latency: the device went away; plug it in again"]
    assert latency_lines(figures) == []


def test_the_report_says_on_what_path_and_threads():
    world = FakeWorld()
    world.info["threads"] = 2
    figures = {"world": "fake", "left_out": []}
    report._add_latency(figures, lambda world: stamped(world, seconds=0.0), world)
    line, = latency_lines(figures)
    assert f"{figures['latency']['key_flip_ms']['p95']:.0f} ms (p95)" in line
    assert "Path eager, threads 2; what else this machine did meanwhile is in it." in line
    both = latency_lines(figures | {"compare": figures | {"world": "other"}})
    assert ["of fake," in both[0], "of other," in both[1]] == [True, True]
    unseen = figures | {"latency": figures["latency"] | {"key_flip_ms": None, "inputs": 0}}
    assert "not known, no input reached a frame" in latency_lines(unseen)[0]
