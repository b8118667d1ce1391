"""The camera branch, the rig and pose strings against values of the published code."""
import json

import numpy as np
import pytest
import torch
from einops import rearrange

from tests.models.passes import commit, denoise
from tests.models.test_parity_transformer import check, new_cache
from tests.parity import FOLDER, cases, close, description, load_case, network
from worldplay.action import parse_script
from worldplay.camera import CAMERA_SPACE, TRAINING_INTRINSICS, is_trained, parse_poses, viewmats
from worldplay.diffusion import sample_frame, warp
from worldplay.models.attention.prope import Cameras, transform
from worldplay.worlds.catalog import WORLDS
from worldplay.worlds.config import WorldConfig

CAUSAL = "wan_causal_camera"
TRAJECTORIES = json.loads((FOLDER / "trajectories" / "trajectories.json").read_text())


def cameras_of(case):
    """Cameras of all frames; of the published Ks only the focal lengths, whatever their principal points."""
    return Cameras.of(case["in.viewmats"], case["in.Ks"].diagonal(dim1=-2, dim2=-1)[..., :2])


def test_transforms_alone():
    case = load_case(CAUSAL, "prope_unit")
    cameras = cameras_of(case)

    def by_token(function, x):
        return rearrange(function(rearrange(x, "b k p d -> b p 1 k d")), "b p 1 k d -> b k p d")
    close(by_token(lambda x: transform(cameras.matrices.mT, x), case["in.q"]), case["out.q"], case)
    close(by_token(lambda x: transform(cameras.matrices, x), case["in.o"]), case["out.o"], case)
    for name in ("k", "v"):
        close(by_token(lambda x: transform(cameras.inverses, x), case[f"in.{name}"]), case[f"out.{name}"], case)


@pytest.mark.parametrize("name", cases("wan_bidirectional", "camera"))
@pytest.mark.parametrize("attention", ["chunks", "plain"])
def test_bidirectional(name, attention):
    case, model = load_case("wan_bidirectional", name), network("wan_bidirectional", "keys_camera")
    x = case["in.x"]
    sigma = (case["in.t"].double() / 1000)[:, None].expand(x.shape[:2])
    flow = model(x, sigma, text=case["in.prompt_embeds"], is_causal=False, attention=attention,
                 cameras=cameras_of(case) if "in.viewmats" in case else None)
    check(case, flow, x)


@pytest.mark.parametrize("name", cases(CAUSAL, "tf_"))
@pytest.mark.parametrize("attention", ["chunks", "plain"])
def test_teacher_forced(name, attention):
    case, model = load_case(CAUSAL, name), network(CAUSAL)
    flow = model(case["in.x"], case["in.t"].double() / 1000, clean=case["in.clean_x"], text=case["in.prompt_embeds"],
                 frames_per_chunk=case["params"]["num_frame_per_block"], attention=attention,
                 cameras=cameras_of(case))
    check(case, flow, case["in.x"])


@pytest.mark.parametrize("name", cases(CAUSAL, "kv_", "rolling_"))
def test_cached_calls(name):
    case, model = load_case(CAUSAL, name), network(CAUSAL)
    text, cameras = model.encode_text(case["in.prompt_embeds"]), cameras_of(case)
    starts = case["in.start_frame"].tolist()
    b, chunk = case["in.x"].shape[1:3]
    cache = new_cache(model, case, b, chunk)
    flows = []
    for x, t, start, following in zip(case["in.x"], case["in.t"], starts, [*starts[1:], None]):
        told = {"frame": start, "text": text, "cameras": cameras.of_frames(slice(start, start + chunk))}
        flows.append(denoise(model, x, t.double() / 1000, cache, **told))
        if following != start:
            commit(model, x, t.double() / 1000, cache, **told)
    check(case, torch.stack(flows), case["in.x"])


@pytest.mark.parametrize("name", cases(CAUSAL, "infer_"))
def test_sampling_loop(name):
    case, model = load_case(CAUSAL, name), network(CAUSAL)
    params, noise, renoise = case["params"], case["in.noise"], iter(case["in.renoise"])
    chunk, b = params["num_frame_per_block"], noise.shape[0]
    text, cameras = model.encode_text(case["in.prompt_embeds"]), cameras_of(case)
    cache, latents = new_cache(model, case, b, chunk), []
    for start in noise.split(chunk, dim=1):
        told = {"frame": cache.num_frames, "text": text,
                "cameras": cameras.of_frames(slice(cache.num_frames, cache.num_frames + chunk))}

        def draw(step):
            return rearrange(next(renoise), "(b t) c h w -> b t c h w", b=b) if step else start

        def velocity(x, sigma):
            return denoise(model, x, sigma, cache, **told)
        latents.append(sample_frame(velocity, draw, warp(params["denoising_step_list"])))
        commit(model, latents[-1], 0.0, cache, **told)
    close(torch.cat(latents, dim=1), case["out.latents"], case)


@pytest.mark.parametrize("name", [name for fixture in (CAUSAL, "wan_bidirectional") for name in cases(fixture, "")
                                  if "poses" in description(fixture)["cases"][name]["params"]])
def test_pose_strings_give_the_viewmats_of_the_cases(name):
    case = load_case(CAUSAL if name in cases(CAUSAL, "") else "wan_bidirectional", name)
    given = case["in.viewmats"]
    for row, text in zip(given, case["params"]["poses"]):
        mine = torch.from_numpy(parse_poses(text))
        times = torch.arange(row.shape[0]) * len(mine) // row.shape[0]  # one matrix per token in prope_unit
        torch.testing.assert_close(mine[times], row, atol=1e-6, rtol=0)


@pytest.mark.parametrize("trajectory", TRAJECTORIES["trajectories"], ids=lambda x: x["pose"])
def test_trajectories(trajectory):
    poses = parse_poses(trajectory["pose"])
    assert poses.dtype == np.float32 and len(poses) == trajectory["frames"]
    np.testing.assert_allclose(poses, np.array(trajectory["viewmats"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", TRAJECTORIES["rejected"])
def test_what_is_no_pose_string(text):
    with pytest.raises(ValueError, match="^poses segment [12] .*: expected key[*]count"):
        parse_poses(text)


@pytest.mark.parametrize("text", ["w*19,j*10", "w*9, j*10", "j*4,w*3,i*2,d*3", "s*1,a*2,k*3,l*4"])
def test_a_script_walks_as_the_pose_string_does(text):
    actions = parse_script(text, CAMERA_SPACE)
    assert np.array_equal(viewmats(actions), parse_poses(text)) and all(map(is_trained, actions))


def test_every_published_world_with_a_camera_has_that_of_its_training_data():
    (fx, _, _), (_, fy, _), _ = TRAJECTORIES["default_K"]
    assert TRAINING_INTRINSICS == pytest.approx((fx, fy), abs=1e-7)
    for world in WORLDS.values():
        expected = TRAINING_INTRINSICS if world.conditioning == "camera + text" else None
        assert WorldConfig.from_json(world.config, world.name).intrinsics == expected


def test_every_case_is_run():
    claimed = set(cases(CAUSAL, "prope_unit", "tf_", "kv_", "rolling_", "infer_"))
    assert set(description(CAUSAL)["cases"]) == claimed
    assert set(description("wan_bidirectional")["cases"]) == set(cases("wan_bidirectional", "camera", "plain"))
