"""The three lines that decide say yes and no where they should, and where nothing was measured."""
import copy

import pytest

from worldplay.eval.verdict import verdict

MOVING = {"psnr": 25.4, "repeat_last_psnr": 20.4, "shifted_last_psnr": 22.1, "shuffled_actions_psnr": 21.0,
          "codec_psnr": 32.5, "interval": {"over_repeat_last": [4.0, 6.0], "over_shifted_last": [2.1, 4.4],
                                           "over_shuffled_actions": [3.0, 5.5]}}
REAL = {"sharpness_ratio": 1.0, "brightness_ratio": 1.0, "histogram_distance": 0.05}
GOOD = {"moving": MOVING, "turn_sign_accuracy": 0.97, "turn_sign": {"real": 0.98},
        "blocked": {"n": 12, "dream": 0.8, "real": 1.0},
        "drift": {"100": {}, "1000": {"sharpness_ratio": 0.9, "brightness_ratio": 0.95,
                                      "histogram_distance": 0.2, "codec_sharpness_ratio": 0.97,
                                      "real": REAL}}}


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
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"sharpness_ratio": 0.3}}}, ["Yes", "Yes", "No"]),
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"brightness_ratio": 1.5}}}, ["Yes", "Yes", "No"]),
    ({"drift": {"1000": GOOD["drift"]["1000"] | {"histogram_distance": 0.5}}}, ["Yes", "Yes", "No"]),
])
def test_each_line_fails_for_its_own_reason(changes, answers):
    assert _answers(**changes) == answers


@pytest.mark.parametrize("bounds, text", [([-0.2, 4.0], "[-0.2, +4.0]"), (None, "one stream")])
def test_a_gain_that_other_streams_might_not_show_is_no_yes(bounds, text):
    report = GOOD | {"moving": MOVING | {"interval": dict.fromkeys(MOVING["interval"], bounds)}}
    better, follows, _ = verdict(report)
    assert "? Hardly:" in better and "? Hardly:" in follows and text in better


def test_a_walk_through_dark_places_is_held_against_them():
    dark = GOOD["drift"]["1000"] | {"brightness_ratio": 0.6, "histogram_distance": 0.4,
                                    "sharpness_ratio": 0.5}
    assert _answers(drift={"1000": dark})[2] == "No"
    real = {"brightness_ratio": 0.65, "histogram_distance": 0.3, "sharpness_ratio": 0.55}
    assert _answers(drift={"1000": dark | {"real": real}})[2] == "Yes"


def test_a_turn_sign_of_nearly_all_turns_does_not_make_a_world_good():
    """A world in a place that it has not learnt: pictures move rightly and show what is not there."""
    poor = {"moving": {"psnr": 19.0, "repeat_last_psnr": 18.0, "shifted_last_psnr": 20.5,
                       "shuffled_actions_psnr": 18.9}}
    assert _answers(**poor, turn_sign={"real": 0.99})[:2] == ["No", "Hardly"]


def test_what_was_not_measured_is_said():
    lines = verdict({"moving": {name: None for name in MOVING}})
    assert all("Not known" in line or "Not measured" in line for line in lines)
