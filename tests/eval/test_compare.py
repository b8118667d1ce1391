"""Which of two worlds is better: said where every stream agrees, and not where chance would do."""
from dataclasses import replace

import numpy as np
import pytest

from tests.eval.turning import TurningGame, TurningWorld
from worldplay.action import ActionSpace
from worldplay.eval.compare import difference
from worldplay.eval.fidelity import next_frame
from worldplay.eval.report import QUICK, prepare

STREAMS = 12
HARD = np.random.default_rng(0).normal(0, 4, STREAMS)  # streams differ by far more than the worlds do


def report(world, *, moving=0.0, rollout=0.0, noise=0.1, seed=1):
    rng = np.random.default_rng(seed)

    def rows(gain):
        return (22 + HARD + gain + rng.normal(0, noise, STREAMS)).tolist()
    figures = {"moving": {"by_stream": {"psnr": rows(moving), "n": [8] * STREAMS,
                                         "episode": list(range(STREAMS))}},
               "rollout_by_stream": {number: rows(rollout) for number in ("1", "4", "16", "64")}}
    return {"world": world, "player": "explorer", "other_players": ["tester"], "tester": figures, **figures}


def test_a_small_difference_in_every_stream_is_real_though_streams_differ_more():
    found = difference(report("a", moving=0.4, rollout=0.4, seed=1), report("b", seed=2))
    assert found["better"] == "first" and found["line"].startswith("Which is better? a, and the difference")
    figure = found["moving_psnr"]
    assert figure["difference"] == pytest.approx(0.4, abs=0.15) and figure["n"] == STREAMS
    assert figure["strict"][0] < figure["interval"][0] < 0.4 < figure["interval"][1] < figure["strict"][1]
    assert set(found["tester"]) == {"moving_psnr", "rollout_psnr_4", "rollout_psnr_16", "rollout_psnr_64"}


def test_the_other_way_round_it_is_the_second():
    assert difference(report("a"), report("b", moving=0.5, seed=2))["better"] == "second"


def test_each_better_in_one_figure_is_mixed():
    assert difference(report("a", moving=0.5), report("b", rollout=0.5, seed=2))["better"] == "mixed"


def test_equal_worlds_differ_by_chance_alone():
    """Of 100 pairs of equal worlds at most a few are told apart, though four figures are looked at."""
    told = sum(difference(report("a", noise=1, seed=2 * i), report("b", noise=1, seed=2 * i + 1))["better"]
               is not None for i in range(100))
    assert told <= 11  # 5 expected; more than 11 in less than 1 of 200 cases


def test_one_stream_and_no_moving_frame_tell_nothing():
    one, other = report("a", moving=5.0), report("a")
    for each in (one, other):
        each["moving"]["by_stream"] = {"psnr": [30.0, *[None] * (STREAMS - 1)],
                                       "n": [8, *[0] * (STREAMS - 1)], "episode": list(range(STREAMS))}
        each["rollout_by_stream"] = {}
    found = difference(one, other)
    assert found["better"] is None and found["moving_psnr"]["interval"] is None
    assert found["line"].startswith("Which is better? Not known")


def test_streams_of_one_episode_tell_nothing():
    one, other = report("a", moving=5.0, rollout=5.0), report("b")
    for each in (one, other, one["tester"], other["tester"]):
        each["moving"]["by_stream"]["episode"] = [0] * STREAMS
    found = difference(one, other)
    assert found["better"] is None and "fewer than two episodes, so no interval" in found["line"]
    assert found["moving_psnr"]["interval"] is None and found["rollout_psnr_4"]["interval"] is None


def test_a_world_that_lacks_a_key_is_compared_on_the_same_frames(streams):
    """Two predictors that make the same frames, of recordings without poses, do not differ."""
    lacking, recorded = TurningWorld(is_deaf=True), {player: replace(each, poses=None)
                                                     for player, each in streams.items()}
    lacking.action_space, source = ActionSpace((), 12.0, look_axes=1), TurningGame()
    source.streams = lambda player, num, **lengths: recorded[player]
    made = prepare([TurningWorld(is_deaf=True), lacking], source, QUICK, is_own=False)
    moving = [next_frame(each, "explorer")["moving"] for each in made]
    assert moving[0]["n"] == moving[1]["n"] > 0 and moving[0]["by_stream"] == moving[1]["by_stream"]
