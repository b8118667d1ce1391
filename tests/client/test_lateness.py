"""Late frames: the player reads why, once, and what would help; and how many threads made them."""
import json

import pytest

from worldplay.client import lateness
from worldplay.client.figures import figures
from worldplay.client.lateness import AGAIN_AFTER, NUM_STEPS, Lateness
from worldplay.client.timing import Timing

PERIOD = 0.05
CPU = {"device": "cpu", "steps": 2}


class Played:
    """Steps of a session on a machine of which others use `others` cores; `said` are the lines it gave."""

    def __init__(self, others=0.0):
        self.now, self.others, self.said = 0.0, others, []
        self.lateness = Lateness(measure=lambda: self.others, clock=lambda: self.now)

    def steps(self, number, work, info=CPU):
        for _ in range(number):
            self.now += max(work, PERIOD)
            if line := self.lateness.step(work, PERIOD, info):
                self.said.append(line)
        return self.said


@pytest.fixture(autouse=True)
def _cores(monkeypatch):
    monkeypatch.setattr(lateness, "allowed_cores", lambda: 2)


@pytest.mark.parametrize("others, info, says", [
    (1.2, CPU, "other programs keep 1.2 of 2 processor cores busy; closing some or fewer sampling steps "
               "(--steps 1) would help"),
    (1.2, {"device": "cpu", "steps": 1}, "other programs keep 1.2 of 2 processor cores busy; closing some "
                                         "would help"),
    (0.1, CPU, "one takes 80 ms here and should take 50; fewer sampling steps (--steps 1) would help"),
    (0.1, {"device": "cpu", "steps": 4}, "fewer sampling steps (--steps 2) would help"),
    (0.1, {"device": "cpu", "steps": 1}, "a faster machine or a smaller world would help"),
    (1.9, {"device": "gpu", "steps": 2}, "one takes 80 ms here"),
    (0.1, {}, "a faster machine"),  # the real game takes no sampling steps
])
def test_late_frames_are_explained(others, info, says):
    (line,) = Played(others).steps(NUM_STEPS, 0.08, info)
    assert line.startswith("Late frames: ") and says in line


def test_frames_in_time_and_single_late_ones_are_not_spoken_of():
    played = Played(others=2.0)
    for _ in range(20):
        played.steps(10, 0.01)
        played.steps(4, 0.2)
    assert played.said == []


def test_it_is_said_again_only_after_a_while():
    played = Played(others=1.0)
    played.steps(NUM_STEPS, 0.1)
    while played.now < 0.9 * AGAIN_AFTER:
        played.steps(NUM_STEPS, 0.1)
    assert len(played.said) == 1
    while played.now < 2 * AGAIN_AFTER:
        played.steps(NUM_STEPS, 0.1)
    assert len(played.said) == 2


def test_what_others_did_before_the_late_frames_does_not_count():
    calls = []
    lateness = Lateness(measure=lambda: calls.append(1) or 0.0, clock=lambda: 0.0)
    for _ in range(3 * NUM_STEPS):
        lateness.step(0.01, PERIOD, CPU)
    assert len(calls) == 3, "each measure begins where the one before ended"


def test_threads_are_in_the_figures_and_in_the_stats():
    timing = Timing()
    assert "threads" not in dict(figures(timing, {"device": "gpu"}, 0, 0.0))
    for number in (2, 2, 1):
        timing.worked(0.05, is_late=False, threads=number)
    assert dict(figures(timing, CPU | {"threads": 1, "max_threads": 2}, 3, 0.0))["threads"] == "1 of 2"
    assert dict(figures(timing, CPU | {"threads": 2, "max_threads": 2}, 3, 0.0))["threads"] == "2"
    assert json.loads(json.dumps(timing.to_json()))["threads"] == {"1": 1, "2": 2}
