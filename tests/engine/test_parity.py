"""The world as it is played against whole sampling loops of the published code: steps, cameras, commits, windows."""
import numpy as np
import pytest
import torch
from torch import nn

from tests.parity import cases, close, description, load_case, network
from worldplay.action import Action, ActionSpace, parse_script
from worldplay.camera import CAMERA_SPACE
from worldplay.engine import dream
from worldplay.engine.dream import DreamWorld
from worldplay.worlds.config import WorldConfig

T2V, CAMERA = "wan_causal_t2v", "wan_causal_camera"
NO_ACTIONS = ActionSpace((), 1.0, look_axes=0)
CASES = [(fixture, name) for fixture in (T2V, CAMERA) for name in cases(fixture, "infer_")]


class Listener(nn.Module):
    """In place of a video codec: it keeps the latents that are to be shown, and gives one when a start is encoded."""
    frames_per_latent = 4

    def __init__(self, given=None):
        super().__init__()
        self.given, self.shown = given, []

    def encode(self, frames):
        return self.given

    def decode_next(self, latent, state):
        self.shown.append(latent)
        return torch.zeros(1, 1 if state is None else 4, 3, *(8 * x for x in latent.shape[-2:])), ()


def noises(case):
    """Function in place of frame_noise: the stored ones, each by its frame, the given ones counted, and its step."""
    size, num_given = case["params"]["num_frame_per_block"], len(case.get("in.initial_latent", [[]])[0])
    lists = case["params"]["denoising_step_list"]
    first = case["params"].get("denoising_step_list_first_chunk", lists)

    def noise(seed, frame, step, shape):
        chunk, i = divmod(frame - num_given, size)
        if step == 0:
            return case["in.noise"][:, chunk * size + i][:, None]
        before = (len(first) - 1 + (chunk - 1) * (len(lists) - 1)) if chunk else 0
        return case["in.renoise"][before + step - 1][i][None, None]
    return noise


def world_of(fixture, case, sink, sink_position):
    model, params = network(fixture), case["params"]
    lists = params["denoising_step_list"]
    h, w = case["in.noise"].shape[-2:]
    focal = case["in.Ks"][0, 0].diagonal()[:2].tolist() if fixture == CAMERA else None
    config = WorldConfig(
        name="published", env=None, action_space=CAMERA_SPACE if focal else NO_ACTIONS, frame_size=(8 * h, 8 * w),
        fps=16.0, transformer=model.config, codec=None, parts={"codec": "taew2_1"}, steps=len(lists),
        first_steps=len(params.get("denoising_step_list_first_chunk", lists)), window=params["cache_frames"],
        sink=sink, sink_position=sink_position, frames_per_chunk=params["num_frame_per_block"], context_sigma=0.0,
        intrinsics=focal and tuple(focal))
    world = DreamWorld(config, model, Listener(case.get("in.initial_latent")), device=torch.device("cpu"),
                       dtype=torch.float32, dtype_reason="test")
    rows = case["in.prompt_embeds"][0]
    world.set_prompt("a text", rows[:rows.any(dim=1).sum()])  # as a tokenizer leaves them: padding is the world's work
    return world


@pytest.mark.parametrize("fixture, name", CASES)
def test_play_is_the_published_sampling_loop(fixture, name, monkeypatch):
    case = load_case(fixture, name)
    check(fixture, case, world_of(fixture, case, case["params"]["sink_size"], "absolute"), monkeypatch)


@pytest.mark.parametrize("fixture, name", [(fixture, name) for fixture, name in CASES if "rolling" not in name])
def test_the_sink_of_our_cards_changes_nothing_before_the_window_is_full(fixture, name, monkeypatch):
    case = load_case(fixture, name)
    chunk = case["params"]["num_frame_per_block"]
    check(fixture, case, world_of(fixture, case, chunk, "before_window"), monkeypatch)


def check(fixture, case, world, monkeypatch):
    """Play what the case holds, and compare every latent that is shown."""
    latents = case["out.latents"]
    monkeypatch.setattr(dream, "frame_noise", noises(case))
    num_left = latents.shape[1] - world.config.frames_per_chunk  # the first chunk comes with the reset
    if fixture == CAMERA:
        for _ in world.rollout(parse_script(*case["params"]["poses"], CAMERA_SPACE)):
            pass
    else:
        given = {}
        if "in.initial_latent" in case:
            given = {"frames": np.zeros((1, *world.frame_size, 3), np.uint8), "actions": [Action()]}
        world.reset(**given)
        for _ in range(num_left // world.config.frames_per_chunk):
            list(world.step(Action()))
    close(torch.stack(world.codec.shown, dim=1), latents, case)


def test_every_case_is_run():
    claimed = {name for _, name in CASES}
    assert claimed == {name for fixture in (T2V, CAMERA) for name in description(fixture)["cases"] if "infer" in name}
