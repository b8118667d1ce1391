"""Stages `codec` and `decoder`: the image autoencoder, and the grain its decoder gives to surfaces later."""
import copy
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from worldplay.models.codecs.image import ImageCodec, to_float, to_uint8
from worldplay.models.configs import CodecConfig
from worldplay.train.metrics import contact_sheet
from worldplay.train.optim import early_decay, move_average
from worldplay.train.stages.averaged import AveragedStudent


def reconstruction_loss(decoded, frames):
    """Mean squared plus a tenth of mean absolute error, both of [b 3 H W] in [-1, 1]."""
    return F.mse_loss(decoded, frames) + 0.1 * F.l1_loss(decoded, frames)


def grain_loss(decoded, frames, cell=8, scales=2):
    """Mean absolute difference of local sharpness, both of [b 3 H W] in [-1, 1].

    Local sharpness is the mean step between neighbouring pixels within cells of `cell` x `cell` pixels, at
    the full size and at halved ones. Squared error alone shows a fine grain that it cannot place as a flat
    surface.
    """
    loss = 0.0
    for _ in range(scales):
        loss = loss + (_steps(decoded, cell) - _steps(frames, cell)).abs().mean() / scales
        decoded, frames = F.avg_pool2d(decoded, 2), F.avg_pool2d(frames, 2)
    return loss


def _steps(x, cell):
    across = (x[..., :-1, 1:] - x[..., :-1, :-1]).abs() + (x[..., 1:, :-1] - x[..., :-1, :-1]).abs()
    return F.avg_pool2d(across, cell, ceil_mode=True)


@dataclass(frozen=True, kw_only=True)
class CodecStageConfig:
    """Hyperparameters of stages codec and decoder: sizes, latent noise, average, weight of the grain loss."""
    model: CodecConfig = CodecConfig()
    latent_noise: float = 0.15
    """The decoder bears noise of this standard deviation at most (latents have variance 1); it keeps them
    smooth."""
    ema: float = 0.998
    """Decay of the averaged weights, which are what ships."""
    grain: float = 0.2
    """Weight of grain_loss in stage decoder."""


class CodecStage(AveragedStudent):
    """Trains the whole autoencoder; the next stages use the average of its weights."""
    name = "codec"

    def __init__(self, config):
        self.config = config
        super().__init__(ImageCodec(config.model).to(memory_format=torch.channels_last))

    def loss(self, role, batch, draws, call):
        frames = to_float(batch["frames"])
        latents = call(role, ImageCodec.encode, frames)
        scale = draws.uniform("latent noise level", 1, 1, 1) * self.config.latent_noise
        noise = scale * draws.normal("latent noise", *latents.shape[1:])
        decoded = call(role, ImageCodec.decode, latents + noise.to(latents.device)).float()
        psnr = -10 * (decoded - frames).square().mean().div(4).log10()
        return reconstruction_loss(decoded, frames), {"psnr_db": psnr}

    def sheet(self, batch, draws, call):
        return reconstruction_sheet(call, "ema", batch["frames"][:8])


class DecoderStage(AveragedStudent):
    """Trains the decoder of a finished codec further, now with grain_loss; its latents stay the same."""
    name = "decoder"

    def __init__(self, config, codec):
        self.config = config
        student = copy.deepcopy(codec).requires_grad_(False)
        student.decoder.requires_grad_(True)
        super().__init__(student)

    def loss(self, role, batch, draws, call):
        frames = to_float(batch["frames"])
        with torch.no_grad():
            latents = call("ema", ImageCodec.encode_as_in_play, frames)
        scale = draws.uniform("latent noise level", 1, 1, 1) * self.config.latent_noise
        noise = scale * draws.normal("latent noise", *latents.shape[1:])
        decoded = call(role, ImageCodec.decode, latents + noise.to(latents.device)).float()
        grain = grain_loss(decoded, frames)
        psnr = -10 * (decoded - frames).square().mean().div(4).log10()
        loss = reconstruction_loss(decoded, frames) + self.config.grain * grain
        return loss, {"psnr_db": psnr, "grain": grain}

    def after_step(self, step):
        decay = early_decay(self.config.ema, step)
        move_average(self.models["ema"].decoder, self.models["student"].decoder, decay)

    def sheet(self, batch, draws, call):
        return reconstruction_sheet(call, "ema", batch["frames"][:8])


def reconstruction_sheet(call, role, frames):
    """Real frames, uint8 [n H W 3], four a row, each row above what a codec makes of it; uint8 [. . 3]."""
    def reconstruct(codec):
        return codec.decode(codec.encode_as_in_play(to_float(frames)))
    decoded = to_uint8(call(role, reconstruct).float())
    pairs = zip(frames.cpu().split(4), decoded.cpu().split(4))
    return contact_sheet([row for pair in pairs for row in pair])
