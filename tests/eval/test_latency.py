"""The figures of a bench: known times give known figures, passes are counted, their work is known."""
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from worldplay.eval import latency


def test_frame_figures_known_values():
    seconds = np.full(1999, 0.010)
    seconds[900:999] = 0.020  # the 99 frames up to frame 1000
    seconds[5] = 0.100
    figures = latency.frame_figures(seconds)
    assert figures["frame_ms"]["p50"] == pytest.approx(10)
    assert figures["frame_ms"]["max"] == pytest.approx(100)
    assert figures["frame_ms_at"] == pytest.approx({"100": 10, "1000": 20})
    assert figures["one_percent_low_fps"] == pytest.approx(1000 / ((100 + 18 * 20) / 19))


def test_passes_are_counted_and_their_work_is_known():
    class Passes(nn.Module):
        def denoise(self):
            x = torch.ones(1, 2, 10, 16)
            return F.scaled_dot_product_attention(x, x, x)

        def commit(self):
            return torch.ones(10, 64) @ torch.ones(64, 32)

    class Two:
        device, transformer, codec = torch.device("cpu"), Passes(), nn.Module()

        def step(self, action):
            self.transformer.denoise()
            yield self.codec.decode_uint8()
            self.transformer.commit()

    counted, world = [], Two()
    world.codec.decode_uint8 = lambda: 0
    with latency._counted(world.transformer, latency.PASSES, counted):
        list(world.step(None))
    assert counted == [4 * 2 * 10 * 10 * 16, 2 * 10 * 64 * 32]
    times = {}
    with latency.timed(world.transformer, latency.PASSES, world.device, times, "pass"):
        list(world.step(None))
    list(world.step(None))
    assert len(times["pass"]) == 2, "the timers are gone afterwards"
