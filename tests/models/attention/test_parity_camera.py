"""The transforms of the camera branch, the rig and pose strings against values of the published code."""
import json

import numpy as np
import pytest
import torch
from einops import rearrange

from tests.models.test_parity_transformer import cameras_of
from tests.parity import FOLDER, close, description, every_case, load_case, poses
from worldplay.action import parse_script
from worldplay.camera import CAMERA_SPACE, TRAINING_INTRINSICS, is_trained, viewmats
from worldplay.models.attention.prope import transform
from worldplay.worlds.catalog import WORLDS
from worldplay.worlds.config import WorldConfig

CAUSAL = "wan_causal_camera"
TRAJECTORIES = json.loads((FOLDER / "trajectories" / "trajectories.json").read_text())


@pytest.mark.parametrize("fixture, name", every_case(CAUSAL, "prope_unit"))
def test_transforms_alone(fixture, name):
    case = load_case(fixture, name)
    cameras = cameras_of(case)

    def by_token(function, x):
        return rearrange(function(rearrange(x, "b k p d -> b p 1 k d")), "b p 1 k d -> b k p d")
    close(by_token(lambda x: transform(cameras.matrices.mT, x), case["in.q"]), case["out.q"], case)
    close(by_token(lambda x: transform(cameras.matrices, x), case["in.o"]), case["out.o"], case)
    for name in ("k", "v"):
        close(by_token(lambda x: transform(cameras.inverses, x), case[f"in.{name}"]), case[f"out.{name}"],
              case)


@pytest.mark.parametrize("fixture, name", [
    case for kind in (CAUSAL, "wan_bidirectional") for case in every_case(kind, "")
    if "poses" in description(case[0])["cases"][case[1]]["params"]])
def test_pose_strings_give_the_viewmats_of_the_cases(fixture, name):
    case = load_case(fixture, name)
    given = case["in.viewmats"]
    for row, text in zip(given, case["params"]["poses"]):
        mine = torch.from_numpy(poses(text))
        times = torch.arange(row.shape[0]) * len(mine) // row.shape[0]  # one matrix per token in prope_unit
        torch.testing.assert_close(mine[times], row, atol=1e-6, rtol=0)


@pytest.mark.parametrize("trajectory", TRAJECTORIES["trajectories"], ids=lambda x: x["pose"])
def test_trajectories(trajectory):
    made = poses(trajectory["pose"])
    assert made.dtype == np.float32 and len(made) == trajectory["frames"]
    np.testing.assert_allclose(made, np.array(trajectory["viewmats"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", ["w*19,j*10", "w*9, j*10", "j*4,w*3,i*2,d*3", "s*1,a*2,k*3,l*4"])
def test_published_pose_strings_are_scripts_of_trained_motions(text):
    actions = parse_script(text, CAMERA_SPACE)
    assert np.array_equal(viewmats(actions), poses(text)) and all(map(is_trained, actions))


def test_every_published_world_with_a_camera_has_that_of_its_training_data():
    (fx, _, _), (_, fy, _), _ = TRAJECTORIES["default_K"]
    assert TRAINING_INTRINSICS == pytest.approx((fx, fy), abs=1e-7)
    for world in WORLDS.values():
        expected = TRAINING_INTRINSICS if world.conditioning == "camera + text" else None
        assert WorldConfig.from_json(world.config, world.name).intrinsics == expected
