"""When steps begin and frames are shown, on a clock of the test's own."""
import pytest

from worldplay.client.pace import HURRY, SLACK, Pace

PERIOD = 0.05


def play(latencies, start=10.0, frames=1):
    """[(when a step begins, when its first frame is shown)] of steps that take so long to their frame."""
    pace, now, times = Pace(1 / PERIOD), start, []
    for latency in latencies:
        begun = max(now, pace.due)
        pace.begin(None, begun)
        now = begun + latency
        pace.shown(now)
        for _ in range(frames - 1):
            now = pace.show_due
            pace.shown(now)
        times.append((begun, begun + latency))
    return times


def test_steps_begin_at_the_rate_of_the_world_however_long_each_takes():
    times = play([0.015, 0.02, 0.012, 0.018] * 5)[1:]
    assert [b - a for (a, _), (b, _) in zip(times, times[1:])] == pytest.approx([PERIOD] * 18)


def test_a_late_frame_is_not_made_up():
    times = play([0.02] * 4 + [0.4] + [0.02] * 5)
    late, following = times[4], times[5:]
    assert following[0][1] - late[1] >= HURRY * PERIOD - 1e-9, "the frame after the late one is not hurried"
    gaps = [b - a for (a, _), (b, _) in zip(following, following[1:])]
    assert gaps == pytest.approx([PERIOD] * 4), "and what follows keeps its distance: the time is lost"


def test_a_timer_that_is_a_little_late_costs_nothing():
    pace = Pace(1 / PERIOD)
    pace.begin(None, 10.0)
    pace.shown(10.02)
    planned = pace.due
    pace.begin(None, planned + SLACK)
    assert pace.due == pytest.approx(planned + PERIOD)


def test_the_frames_of_one_step_are_a_period_apart_and_the_next_step_waits_for_them():
    times = play([0.02] * 5, frames=4)[1:]
    assert [b - a for (a, _), (b, _) in zip(times, times[1:])] == pytest.approx([4 * PERIOD] * 3)
