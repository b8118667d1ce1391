"""Worlds in play against whole sampling loops of the published code: steps, cameras, starts, windows."""
import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from tests.parity import POSE_SPACE, close, description, every_case, load_case, network, pose_actions
from worldplay.action import Action, ActionSpace
from worldplay.diffusion import warp
from worldplay.engine import sampler
from worldplay.engine.dream import DreamWorld
from worldplay.worlds.config import VideoWorldConfig

NO_ACTIONS = ActionSpace((), 1.0, look_axes=0)


def playable(kind):
    """Sampling loops, one sample each: (fixture, name, number in the batch). Cameras are moved by their pose
    strings.
    """
    return [(fixture, name, i) for fixture, name in every_case(kind, "infer_")
            for i in range(len(load_case(fixture, name)["in.noise"]))
            if "in.viewmats" not in load_case(fixture, name)
            or "poses" in description(fixture)["cases"][name]["params"]]


CASES = playable("wan_causal_t2v") + playable("wan_causal_camera")


def sample_of(case, i):
    """A case with the i-th sample of its batch alone."""
    b = len(case["in.noise"])
    alone = {name: x[i:i + 1] for name, x in case.items() if name.startswith(("in.", "out."))}
    renoise = rearrange(case["in.renoise"], "n (b t) c h w -> n b t c h w", b=b)[:, i]
    poses = case["params"].get("poses", [None] * b)[i]
    return {**case, **alone, "in.renoise": renoise, "params": case["params"] | {"poses": poses}}


class Listener(nn.Module):
    """In place of a video codec: it keeps the latents that are decoded, and gives those of a start when it
    encodes.
    """
    frames_per_latent = 4

    def __init__(self, given=None):
        super().__init__()
        self.given, self.shown = given, []

    def encode(self, frames):
        return self.given

    def decode_next(self, latent, state):
        self.shown.append(latent)
        return torch.zeros(1, 1 if state is None else 4, 3, *(8 * x for x in latent.shape[-2:])), ()


def num_given(case):
    """Latents that a loop starts from."""
    return case["in.initial_latent"].shape[1] if "in.initial_latent" in case else 0


def noises(case):
    """Function in place of frame_noise: the stored ones, each by its frame, the given ones counted, and its
    step.
    """
    size = case["params"]["num_frame_per_block"]
    steps = case["params"]["denoising_step_list"]
    first = case["params"].get("denoising_step_list_first_chunk", steps)

    def noise(seed, frame, step, shape):
        chunk, i = divmod(frame - num_given(case), size)
        if step == 0:
            return case["in.noise"][:, chunk * size + i][:, None]
        before = (len(first) - 1 + (chunk - 1) * (len(steps) - 1)) if chunk else 0
        return case["in.renoise"][before + step - 1][i][None, None]
    return noise


def world_of(fixture, case, sink, sink_position):
    model, params = network(fixture), case["params"]
    steps = params["denoising_step_list"]
    h, w = case["in.noise"].shape[-2:]
    focal = case["in.Ks"][0, 0].diagonal()[:2].tolist() if model.config.has_camera else None
    config = VideoWorldConfig(
        name="published", env=None, action_space=POSE_SPACE if focal else NO_ACTIONS,
        frame_size=(8 * h, 8 * w),
        fps=16.0, transformer=model.config, parts={"codec": "taew2_1"}, window=params["cache_frames"],
        sink=sink,
        sink_position=sink_position, frames_per_chunk=params["num_frame_per_block"], context_sigma=0.0,
        intrinsics=focal and tuple(focal))
    world = DreamWorld(config, model, Listener(case.get("in.initial_latent")), device=torch.device("cpu"),
                       dtype=torch.float32, dtype_reason="test")
    world.sampler.sigmas = warp(steps)
    world.sampler.first_sigmas = warp(params.get("denoising_step_list_first_chunk", steps))
    rows = case["in.prompt_embeds"][0]
    # as a tokenizer leaves them: padding is the world's work
    world.set_prompt("a text", rows[:rows.any(dim=1).sum()])
    return world


@pytest.mark.parametrize("fixture, name, i", CASES)
def test_play_is_the_published_sampling_loop(fixture, name, i, monkeypatch):
    case = sample_of(load_case(fixture, name), i)
    check(case, world_of(fixture, case, case["params"]["sink_size"], "absolute"), monkeypatch)


@pytest.mark.parametrize("fixture, name, i", [each for each in CASES if "rolling" not in each[1]])
def test_the_sink_of_our_cards_changes_nothing_before_the_window_is_full(fixture, name, i, monkeypatch):
    case = sample_of(load_case(fixture, name), i)
    chunk = case["params"]["num_frame_per_block"]
    check(case, world_of(fixture, case, chunk, "before_window"), monkeypatch)


def check(case, world, monkeypatch):
    """Play what the case holds, and compare every latent that is shown."""
    latents, given = case["out.latents"], num_given(case)
    monkeypatch.setattr(sampler, "frame_noise", noises(case))
    poses = case["params"]["poses"]
    # of all latents but the first
    actions = pose_actions(poses) if poses else [Action()] * (latents.shape[1] - 1)
    if given:  # each latent of a start has the actions of its four frames
        led = [Action(), *(action.share(4) for action in actions[:given - 1] for _ in range(4))]
        world.reset(frames=np.zeros((len(led), *world.frame_size, 3), np.uint8), actions=led)
        list(world.walk(actions[given - 1:]))
    else:
        list(world.rollout(actions))
    close(torch.stack(world.codec.shown, dim=1), latents, case)


def test_there_are_starts_of_several_lengths_and_batches():
    starts = {num_given(load_case(fixture, name)) for fixture, name, _ in CASES}
    assert starts >= {0, 1, 2} and {i for *_, i in CASES} >= {0, 1}
    assert any(num_given(load_case(fixture, name)) and "in.Ks" in load_case(fixture, name) for fixture, name,
               _ in CASES)
