"""The probe reads turns and keys of real play, and tells an obedient dream from a deaf one."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.eval.turning import TurningWorld, material, texture
from worldplay.action import ActionSpace
from worldplay.eval import probe
from worldplay.eval.streams import Material, Streams

KEYS = ActionSpace(("w", "q"), look_axes=0)


def test_motion_is_found_to_parts_of_a_pixel():
    frame = texture(3)
    still, turned = (probe.features(np.stack([frame, np.roll(frame, pixels, 1)])) for pixels in (0, 6))
    assert still[0, 0] == 0 and turned[0, 0] + turned[0, 1:17].mean() == pytest.approx(6 * 80 / 96, abs=1)


@pytest.mark.parametrize("is_deaf", [False, True])
def test_turns_are_read_off_an_obedient_dream_and_not_off_a_deaf_one(streams, is_deaf):
    made = material(streams, TurningWorld(is_deaf=is_deaf))
    yaw = probe.probe(made, "explorer")["probe"]["yaw"]
    assert yaw["real"] < 0.5 * yaw["shuffled"] or is_deaf
    assert (yaw["dream"] > 2 * yaw["real"]) == is_deaf
    assert probe.probe(made, "explorer") == probe.probe(material(streams, TurningWorld(is_deaf=is_deaf)),
                                                        "explorer"), "the same every time"


def pressed(num=6, length=40):
    """Streams of a picture that becomes brighter while w is held; q is never held."""
    rng = np.random.default_rng(0)
    actions = np.zeros((num, length, 2), np.float32)
    actions[..., 0] = rng.integers(0, 2, (num, length // 4)).repeat(4, 1)
    level = 60 + 10 * np.cumsum(actions[..., 0] - 0.5, axis=1)
    frames = np.stack([texture(i) for i in range(num)])[:, None] // 4 + level[..., None, None, None]
    return Streams(frames.clip(0, 255).astype(np.uint8), actions, None, 4)


def test_keys_are_read_without_look_and_one_that_is_never_held_is_left_out():
    real = pressed()
    world = SimpleNamespace(action_space=KEYS)
    made = Material(world=world, source=None, streams={"recorded": real}, num_targets=0, num_dreams=4,
                    walks=())
    made._dreams["recorded"] = real.frames[:4]
    figures = probe.probe(made, "recorded")["probe"]
    assert figures["not_judged"] == ["q"] and set(figures["keys"]) == {"w"} and "yaw" not in figures
    assert figures["real"] == figures["dream"] > 0.9 > 0.7 > figures["shuffled"]
    assert figures["interval"]["dream"][0] <= figures["dream"] <= figures["interval"]["dream"][1]
    made._dreams["recorded"] = real.frames[:4, :1].repeat(40, 1)
    assert probe.probe(made, "recorded")["probe"]["dream"] == pytest.approx(0.5, abs=0.15), "a still picture"


def test_a_half_does_not_read_what_it_was_fitted_on():
    """Labels that mean nothing are read as well as by chance, though each half could learn its own."""
    real = pressed()
    noise = np.random.default_rng(1).integers(0, 2, (6, 40, 2)).astype(np.float32)
    made = Material(world=SimpleNamespace(action_space=KEYS), source=None, num_targets=0, num_dreams=6,
                    walks=(), streams={"recorded": replace(real, actions=noise)})
    made._dreams["recorded"] = real.frames
    assert abs(probe.probe(made, "recorded")["probe"]["real"] - 0.5) < 0.12


def test_of_one_stream_nothing_is_read(streams):
    one = {player: Streams(each.frames[:1], each.actions[:1], None, 4) for player, each in streams.items()}
    made = material(one, TurningWorld())
    assert probe.probe(made, "explorer") == {} and probe.planned_work(made) == 0


def test_balanced_accuracy_known_values():
    held = np.array([[[True], [False], [False], [False]]])
    assert probe.balanced(held, held) == [1] and probe.balanced(~held, held) == [0]
    assert probe.balanced(np.zeros_like(held), held) == [0.5], "never is no answer"
