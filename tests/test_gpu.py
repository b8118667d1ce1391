"""The shipped world on a CUDA device, beside the CPU: the same world, at a flat cost."""
import numpy as np
import pytest
import torch

import worldplay
from worldplay.envs.players import PLAYERS
from worldplay.eval.fidelity import psnr
from worldplay.eval.latency import bench

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


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


def test_the_cost_stays_flat():
    figures = bench(worldplay.load_world(device="cuda"), frames=1000, load_ms=0.0)
    assert figures["frame_ms_at"]["1000"] < 1.2 * figures["frame_ms_at"]["100"]
    assert figures["fps"] > figures["world_fps"]
