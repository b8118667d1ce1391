"""The three lines that decide say yes and no where they should, and where nothing was measured."""
import copy

import numpy as np
import pytest

from worldplay.eval import drift
from worldplay.eval.verdict import verdict

MOVING = {"psnr": 25.4, "repeat_last_psnr": 20.4, "shifted_last_psnr": 22.1, "shuffled_actions_psnr": 21.0,
          "codec_psnr": 32.5, "interval": {"over_repeat_last": [4.0, 6.0], "over_shifted_last": [2.1, 4.4],
                                           "over_shuffled_actions": [3.0, 5.5]}}
REAL = {"sharpness_ratio": 1.0, "brightness_ratio": 1.0, "histogram_distance": 0.05, "edge_ratio": 1.0}
GOOD = {"moving": MOVING, "turn_sign_accuracy": 0.97, "turn_sign": {"real": 0.98},
        "blocked": {"n": 12, "dream": 0.8, "real": 1.0},
        "drift": {"100": {}, "1000": {"sharpness_ratio": 0.9, "brightness_ratio": 0.95,
                                      "histogram_distance": 0.2, "codec_sharpness_ratio": 0.97,
                                      "edge_ratio": 0.8, "codec_edge_ratio": 0.9, "real": REAL}}}


def _answers(**changes):
    report = copy.deepcopy(GOOD)
    for name, fields in changes.items():
        report[name] = {**report.get(name, {}), **fields}
    return [line.split("? ")[1].split(":")[0] for line in verdict(report)]


def test_a_good_world_has_three_times_yes():
    assert _answers() == ["Yes", "Yes", "Yes"]
    better, follows, whole = verdict(GOOD)
    assert "25.4 dB against 20.4" in better and "+3.3 dB [+2.1, +4.4]" in better
    assert "97% (real 98%)" in follows and "wall in 80% (real 100%)" in follows
    assert "after 1000 frames" in whole


@pytest.mark.parametrize("changes, answers", [
    ({"moving": {"shifted_last_psnr": 25.0}}, ["Hardly", "Yes", "Yes"]),
    ({"moving": {"repeat_last_psnr": 25.5}}, ["No", "Yes", "Yes"]),
    ({"moving": {"shuffled_actions_psnr": 25.4}}, ["Yes", "No", "Yes"]),
    ({"moving": {"repeat_last_psnr": 25.43, "psnr": 25.44}}, ["No", "Yes", "Yes"]),  # both read 25.4
    ({"moving": {"shuffled_actions_psnr": 25.36, "psnr": 25.44}}, ["Yes", "No", "Yes"]),
    ({"moving": {"shifted_last_psnr": 24.44, "psnr": 25.36}}, ["Yes", "Yes", "Yes"]),  # 1.0 by what is read
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"sharpness_ratio": 0.3}}}, ["Yes", "Yes", "No"]),
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"edge_ratio": 0.4}}}, ["Yes", "Yes", "No"]),
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"edge_ratio": 0.4, "codec_edge_ratio": 0.4}}},
     ["Yes", "Yes", "No"]),
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"brightness_ratio": 1.5}}}, ["Yes", "Yes", "No"]),
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"histogram_distance": 0.5}}}, ["Yes", "Yes", "No"]),
])
def test_each_line_fails_for_its_own_reason(changes, answers):
    assert _answers(**changes) == answers


@pytest.mark.parametrize("bounds, answer, text", [
    ([-0.2, 4.0], "Hardly", "[-0.2, +4.0]"), (None, "Yes", "one episode, so no interval: by the mean alone")])
def test_a_gain_that_other_streams_might_not_show_is_no_yes(bounds, answer, text):
    report = GOOD | {"moving": MOVING | {"interval": dict.fromkeys(MOVING["interval"], bounds)}}
    better, follows, _ = verdict(report)
    assert f"? {answer}:" in better and f"? {answer}:" in follows and text in better and text in follows


def test_a_walk_through_dark_places_is_held_against_them():
    dark = GOOD["drift"]["1000"] | {"brightness_ratio": 0.6, "histogram_distance": 0.4,
                                    "sharpness_ratio": 0.5}
    assert _answers(drift={"1000": dark})[2] == "No"
    real = {"brightness_ratio": 0.65, "histogram_distance": 0.3, "sharpness_ratio": 0.55, "edge_ratio": 0.9}
    assert _answers(drift={"1000": dark | {"real": real}})[2] == "Yes"


def test_a_turn_sign_of_nearly_all_turns_does_not_make_a_world_good():
    """A world in a place that it has not learnt: pictures move rightly and show what is not there."""
    poor = {"moving": {"psnr": 19.0, "repeat_last_psnr": 18.0, "shifted_last_psnr": 20.5,
                       "shuffled_actions_psnr": 18.9}}
    assert _answers(**poor, turn_sign={"real": 0.99})[:2] == ["No", "Hardly"]


def test_figures_of_few_frames_say_so():
    better, follows, _ = verdict(GOOD | {"moving": MOVING | {"n": 9}})
    assert all("of 9 frames only: others may say otherwise" in line for line in (better, follows))
    assert not any("only" in line for line in verdict(GOOD | {"moving": MOVING | {"n": 96}}))


def _on_white(level, sides, noise):
    """The drift figures of frames with a square of these sides and level in place of a black one of 12."""
    def frames(level, side, noise):
        draws, made = np.random.default_rng(0), np.full((24, 112, 160, 3), 252.0)
        for i, frame in enumerate(made):
            frame[40:40 + side, 20 + 4 * i:20 + 4 * i + side] = level
        return (made + draws.integers(0, noise + 1, made.shape)).clip(0, 255).astype(np.uint8)
    real = drift.compare_rows(*([drift.row(frame) for frame in frames(0, 12, 1)],) * 2)
    reference = [drift.row(frame) for frame in frames(0, 12, 1)]
    figures = {side: drift.compare_rows([drift.row(frame) for frame in frames(level, side, noise)], reference)
               for side in sides}
    return {side: each | {"codec_sharpness_ratio": 1.0, "codec_edge_ratio": 1.0, "real": real}
            for side, each in figures.items()}


def test_a_blot_on_a_white_ground_is_not_whole_though_the_ground_is():
    """Noise of the ground makes the sharpness, and the ground the brightness and nearly all colours."""
    blots = _on_white(level=230, sides=(24, 0), noise=2)
    for blot in blots.values():
        assert 0.75 < blot["sharpness_ratio"] < 1.33 and blot["brightness_ratio"] > 0.95
        assert blot["histogram_distance"] < 0.1
        assert _answers(drift={"1000": blot})[2] == "No"
    assert _answers(drift={"1000": _on_white(level=20, sides=(12,), noise=2)[12]})[2] == "Yes"


def test_a_way_of_one_colour_decides_nothing():
    flat = GOOD["drift"]["1000"] | {"real": REAL | {"sharpness_ratio": None}}
    assert _answers(drift={"1000": flat})[2] == "Not known"


def test_what_was_not_measured_is_said():
    lines = verdict({"moving": {name: None for name in MOVING}})
    assert all("Not known" in line or "Not measured" in line for line in lines)
