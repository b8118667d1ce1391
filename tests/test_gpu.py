"""The shipped world on a CUDA device, beside the CPU: the same world, at a flat cost."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import worldplay
from tests.parity import video_codec
from worldplay.action import Action
from worldplay.engine import attention_backend
from worldplay.engine.loading import random_configs, random_world
from worldplay.envs.players import PLAYERS
from worldplay.eval import throughput
from worldplay.eval.latency import bench, ceilings
from worldplay.eval.statistics import psnr
from worldplay.models.attention.causal import causal_attention
from worldplay.models.attention.kernels import BACKENDS, AttentionShape
from worldplay.models.configs import FrameRule
from worldplay.train.attention_choice import fastest_attention

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def walk(device, num_frames=16):
    world = worldplay.load_world(device=device, seed=3)
    world.reset()
    space = world.action_space
    return np.stack([frame for vector in PLAYERS["explorer"](space, num_frames, 0)
                     for frame in world.step(space.decode(vector))])


def test_frames_are_those_of_the_cpu():
    """Noise is drawn on the CPU, so that only rounding differs."""
    assert psnr(walk("cuda")[:4], walk("cpu")[:4]).min() > 30


def test_the_same_seed_and_actions_give_the_same_frames():
    assert np.array_equal(walk("cuda"), walk("cuda"))


@pytest.mark.parametrize("by_graph", [False, True])
def test_only_the_finished_frame_is_waited_for(by_graph):
    world = worldplay.load_world(device="cuda")
    if by_graph:
        world.graphs.want()
    world.reset()
    actions = [world.action_space.decode(vector) for vector in PLAYERS["explorer"](world.action_space, 12, 0)]
    list(world.walk(actions))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            frames = list(world.walk(actions))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in caught if "synchronizing" in str(warning.message)]
    assert len(waits) == len(frames), "one copy of each finished frame"


@pytest.mark.parametrize("shape", [AttentionShape("cuda", torch.bfloat16, 12, 128, 1560, 21 * 1560),
                                   AttentionShape("cuda", torch.bfloat16, 12, 128, 4 * 1560, 9 * 1560),
                                   AttentionShape("cuda", torch.bfloat16, 4, 64, 50, 400)], ids=str)
def test_backends_of_attention_run_and_are_right(shape):
    times = attention_backend.measure(shape, torch.device("cuda"))
    assert times.keys() >= {"flash", "cudnn", "efficient"} and "sdpa" not in times
    assert isinstance(times["flash"], float) and isinstance(times["efficient"], float), times
    assert not any("off by" in why for why in times.values() if isinstance(why, str)), times


def test_the_second_start_attends_as_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    attention_backend.choose.cache_clear()
    frames, name = walk("cuda"), worldplay.load_world(device="cuda").info["attention"]
    assert name in BACKENDS and name != "sdpa"
    attention_backend.choose.cache_clear()
    monkeypatch.setattr(attention_backend, "measure", lambda *arguments: pytest.fail("measured again"))
    assert worldplay.load_world(device="cuda").info["attention"] == name
    assert np.array_equal(walk("cuda"), frames)
    attention_backend.choose.cache_clear()


def test_ceilings_of_attention():
    figures = ceilings(torch.device("cuda"), torch.bfloat16)
    assert {"1560 x 10920", "1560 x 32760", "6240 x 32760"} <= figures["attention_tflops_at"].keys()
    assert 0 < figures["attention_tflops_at"]["1560 x 32760"]["flash"] < 1.2 * figures["matmul_tflops"]


def test_configurations_of_the_wan_layout_are_measured():
    configs = [throughput.scaled_down(config) for config in random_configs("wan-1.3b", steps=4)]
    figures = throughput.bench_random("small", configs, frames=24, device="cuda")
    assert not figures["is_scaled_down"] and "this machine" in figures["full_size"]["configs"][0]["bound_fps"]
    for entry in figures["configs"]:
        assert 0 < entry["bound_share"] < 1
        assert entry["pass_split_ms"]["linear"] > 0 < entry["pass_split_ms"]["attention"]


def test_the_cost_stays_flat():
    figures = bench(worldplay.load_world(device="cuda"), frames=1000, load_ms=0.0)
    assert figures["frame_ms_at"]["1000"] < 1.2 * figures["frame_ms_at"]["100"]
    assert figures["fps"] > figures["world_fps"]


@pytest.mark.parametrize("way", ["chunks", "flex"])
@pytest.mark.parametrize("rule", [FrameRule(window=8), FrameRule(window=6, sink=2, frames_per_chunk=2,
                                                                 sink_position="before_window")], ids=str)
def test_training_attention_equals_plain(way, rule):
    def results(name):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 24, 50, 4, 64, device="cuda", requires_grad=True) for _ in range(3))
        out = causal_attention(name)(q, k, v, rule, 2)
        (out * torch.linspace(-1, 1, 64, device="cuda")).sum().backward()
        return out, q.grad, k.grad, v.grad
    for fast, plain in zip(results(way), results("plain")):
        torch.testing.assert_close(fast, plain, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", ["wan_vae", "taehv"])
def test_video_codecs_are_those_of_the_cpu(name):
    codec = video_codec(name)
    latents = torch.randn(1, 3, 16, 4, 6, generator=torch.Generator().manual_seed(0))
    expected, codes = codec.decode(latents), codec.encode(codec.decode(latents))
    codec.to("cuda")
    for value, right in ((codec.decode(latents.to("cuda")), expected),
                         (codec.encode(expected.to("cuda")), codes)):
        assert (value.cpu() - right).norm() < 5e-3 * right.norm()  # convolutions round to TF32 there


def test_the_fastest_attention_is_one_that_runs():
    name, times = fastest_attention(torch.device("cuda"), torch.bfloat16, rule=FrameRule(window=8), batch=2,
                                    num_frames=20,
                                    num_tokens=50, num_heads=4, head_dim=64)
    assert name in ("chunks", "flex") and all(isinstance(ms, float) for ms in times.values())


def test_compiled_passes_are_the_written_ones():
    world = worldplay.load_world(device="cuda", seed=3)
    world.compile(wait=True)
    space = world.action_space
    world.reset()
    frames = np.stack([frame for vector in PLAYERS["explorer"](space, 4, 0)
                       for frame in world.step(space.decode(vector))])
    assert world.info["path"] == "compiled" and psnr(frames, walk("cuda")[:4]).min() > 30


@pytest.mark.parametrize("path", ["eager", "compiled"])
def test_steps_by_graphs_are_those_as_written(path):
    world = worldplay.load_world(device="cuda", seed=3)
    if path == "compiled":
        world.compile(wait=True)
    world.reset()
    world.graphs.measure(20)
    assert world.graphs.figures[path]["are_equal"], world.graphs.figures


@pytest.mark.parametrize("name", ["wan-action", "causal-forcing-2step"])
def test_a_world_with_text_and_camera_compiles(name):
    """The process that makes the code compares every part with what it was made of."""
    config = replace(throughput.scaled_down(random_configs(name)[0]), window=8)
    world = random_world(config, device="cuda")
    world.compile(wait=True)
    world.reset("text")
    assert np.stack([frame for _ in range(4) for frame in world.step(Action())]).std() > 0
