"""The image codec: sizes, ranges, normalised latents, and that it can learn."""
import pytest
import torch

from worldplay.models.codecs.image import ImageCodec, to_float, to_uint8
from worldplay.models.configs import CodecConfig
from worldplay.train.metrics import Metrics
from worldplay.train.optim import OptimConfig
from worldplay.train.processes import Processes
from worldplay.train.stages.codec import (
    CodecStage,
    CodecStageConfig,
    DecoderStage,
    grain_loss,
    reconstruction_loss,
)
from worldplay.train.stages.draws import Draws
from worldplay.train.trainer import LoopConfig, Trainer
from worldplay.train.windows import FrameBatches

TINY = CodecConfig(channels=4, widths=(8, 8, 8), enc_blocks=(1, 1, 1), dec_blocks=(1, 1, 1))


def frames(n=6, height=24, width=32):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shades = torch.stack([rows * 7, columns * 5, rows + columns], -1) % 256
    return torch.stack([(shades + 20 * i) % 256 for i in range(n)]).to(torch.uint8)


def test_uint8_survives_the_round_trip_to_float():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(to_float(levels).contiguous()).is_contiguous()  # whatever the layout the decoder leaves


def test_sizes_and_a_frame_alone_equals_the_frame_in_a_batch():
    codec = ImageCodec(TINY).eval()
    latents = codec.encode_uint8(frames())
    assert latents.shape == (6, 4, 3, 4) and latents.dtype == torch.float32
    assert torch.allclose(latents[2:3], codec.encode_uint8(frames()[2:3]), atol=1e-6)
    decoded = codec.decode_uint8(latents)
    assert decoded.shape == (6, 24, 32, 3) and decoded.dtype == torch.uint8


def test_latents_are_normalised_over_the_batch_and_statistics_stay_float32_in_bfloat16():
    torch.manual_seed(0)
    codec = ImageCodec(TINY)
    latents = codec.encode(1000 * to_float(frames(32)))  # so that the statistics outweigh the norm's eps
    assert latents.mean((0, 2, 3)).abs().max() < 1e-5
    assert (latents.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-2
    assert codec.eval().to(torch.bfloat16).encode(to_float(frames(2))).dtype == torch.float32


def test_the_stage_learns_and_ships_its_average():
    torch.manual_seed(0)
    stage = CodecStage(CodecStageConfig(model=TINY))
    optimizer = torch.optim.AdamW(stage.models["student"].parameters(), 3e-3)
    losses = []
    for step in range(40):
        def call(role, function, *args):
            return function(stage.models[role], *args)
        loss, logs = stage.loss("student", {"frames": frames()}, Draws(0, step, range(6)), call)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        stage.after_step(step)
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert not any(p.requires_grad for p in stage.models["ema"].parameters())


def test_reconstruction_loss_is_zero_only_for_equal_frames():
    x = to_float(frames())
    assert reconstruction_loss(x, x) == 0
    assert reconstruction_loss(x, x + 0.5) == pytest.approx(0.25 + 0.05)


def codec_stage():
    torch.manual_seed(0)
    return CodecStage(CodecStageConfig(model=TINY))


def decoder_stage():
    torch.manual_seed(0)
    return DecoderStage(CodecStageConfig(model=TINY), ImageCodec(TINY))


@pytest.mark.parametrize("make", [codec_stage, decoder_stage])
def test_resume_is_bit_exact(make, tmp_path):
    data = FrameBatches(frames(30).numpy(), [(0, 20, 0)], [(20, 10, 19)])

    def run(folder, steps):
        loop = LoopConfig(batch=4, micro_batch=2, steps=steps, optim=OptimConfig(lr=1e-3, decay=0))
        metrics, stage = Metrics(folder), make()
        Trainer(stage, data, loop, folder, metrics, Processes(torch.device("cpu")), torch.float32).run()
        metrics.close()
        return {f"{role}.{name}": x for role, model in stage.models.items() for name,
                x in model.state_dict().items()}
    whole = run(tmp_path / "whole", 5)
    run(tmp_path / "cut", 2)
    cut = run(tmp_path / "cut", 5)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_the_decoder_stage_leaves_the_latents_alone():
    stage = decoder_stage()
    before = stage.models["ema"].encode_as_in_play(to_float(frames()))
    optimizer = torch.optim.AdamW([p for p in stage.models["student"].parameters() if p.requires_grad], 1e-2)

    def call(role, function, *args):
        return function(stage.models[role], *args)
    for step in range(3):
        stage.loss("student", {"frames": frames()}, Draws(0, step, range(6)), call)[0].backward()
        optimizer.step()
        stage.after_step(step)
    assert torch.equal(before, stage.models["ema"].encode_as_in_play(to_float(frames())))
    assert torch.equal(before, stage.models["student"].encode_as_in_play(to_float(frames())))


def test_grain_loss_sees_noise_that_was_smoothed_away_and_not_where_it_lies():
    torch.manual_seed(0)
    noise, other = 0.2 * torch.randn(2, 1, 3, 64, 64)
    assert grain_loss(noise, noise) == 0
    assert grain_loss(other, noise) < 0.3 * grain_loss(torch.zeros_like(noise), noise)
