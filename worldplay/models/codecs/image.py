"""The image autoencoder of worlds whose latent is one frame, small enough to decode on a CPU in milliseconds.

No convolution runs at full resolution: frames enter through PixelUnshuffle and leave through PixelShuffle.
Source of the layout: madebyollin/taesd (plain residual ReLU blocks).
"""
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from worldplay.models.configs import CodecConfig


class Block(nn.Module):
    """x + two 3x3 convolutions with ReLU."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x):
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class LatentNorm(nn.BatchNorm2d):
    """Normalises latents per channel: by batch statistics in training, by running ones in inference.

    It computes in float32, whatever the dtype of the codec's weights.
    """

    def __init__(self, channels):
        super().__init__(channels, affine=False, momentum=0.1)

    @torch.no_grad()
    def settle(self, latents):
        """Take latents [b c h w] as those that the running statistics are of, in place of all before."""
        self.running_mean.copy_(latents.float().mean((0, 2, 3)))
        self.running_var.copy_(latents.float().var((0, 2, 3)))

    def forward(self, latents):
        if self.training:
            return super().forward(latents.float())
        return self.by_running(latents)

    def by_running(self, latents):
        """latents [b c h w], normalised by the running statistics in training too."""
        mean, var = (rearrange(x.float(), "c -> c 1 1") for x in (self.running_mean, self.running_var))
        return (latents.float() - mean) * torch.rsqrt(var + self.eps)


class ImageCodec(nn.Module):
    """Encoder and decoder; latents have mean 0 and variance 1 per channel over the training frames."""
    stride = CodecConfig.stride
    frames_per_latent = 1

    def __init__(self, config):
        super().__init__()
        self.config = config
        w2, w4, w8 = config.widths
        e2, e4, e8 = config.enc_blocks
        d2, d4, d8 = config.dec_blocks
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, w2, 3, padding=1), nn.ReLU(), *(Block(w2) for _ in range(e2)),
            nn.Conv2d(w2, w4, 3, stride=2, padding=1), nn.ReLU(), *(Block(w4) for _ in range(e4)),
            nn.Conv2d(w4, w8, 3, stride=2, padding=1), nn.ReLU(), *(Block(w8) for _ in range(e8)),
            nn.Conv2d(w8, config.channels, 3, padding=1))
        self.norm = LatentNorm(config.channels)
        self.decoder = nn.Sequential(
            nn.Conv2d(config.channels, w8, 3, padding=1), nn.ReLU(), *(Block(w8) for _ in range(d8)),
            nn.Conv2d(w8, 4 * w4, 1), nn.PixelShuffle(2), nn.ReLU(), *(Block(w4) for _ in range(d4)),
            nn.Conv2d(w4, 4 * w2, 1), nn.PixelShuffle(2), nn.ReLU(), *(Block(w2) for _ in range(d2)),
            nn.Conv2d(w2, 12, 3, padding=1), nn.PixelShuffle(2))

    @property
    def hidden_weights(self):
        """Names of the kernels between two hidden layers: all but those that see pixels or latents."""
        ends = {self.encoder[1], self.encoder[-1], self.decoder[0], self.decoder[-2]}
        return [f"{name}.weight" for name, module in self.named_modules()
                if isinstance(module, nn.Conv2d) and module not in ends]

    @property
    def dtype(self):
        return self.encoder[1].weight.dtype

    def encode(self, frames):
        """frames [b 3 H W] in [-1, 1], H and W multiples of 8 -> normalised latents [b c H/8 W/8],
        float32.
        """
        frames = frames.to(self.dtype, memory_format=torch.channels_last)
        return self.norm(self.encoder(frames))

    def encode_as_in_play(self, frames):
        """`encode` with the running statistics, also while the codec is in training mode."""
        frames = frames.to(self.dtype, memory_format=torch.channels_last)
        return self.norm.by_running(self.encoder(frames))

    @torch.no_grad()
    def settle_norm(self, frames):
        """Normalise by the latents of these frames from now on, uint8 [n H W 3]: statistics that ran along
        with training lag behind the weights, in a short one by most of the way."""
        parts = map(to_float, frames.split(16))
        self.norm.settle(torch.cat([
            self.encoder(part.to(self.dtype, memory_format=torch.channels_last)) for part in parts]))

    def decode(self, latents):
        """latents [b c h w] -> frames [b 3 8h 8w], about [-1, 1], not clamped."""
        return self.decoder(latents.to(self.dtype, memory_format=torch.channels_last))

    def decode_next(self, latents, state=None):
        """As VideoCodec.decode_next, (frames [b 1 3 H W] of latents [b c h w], None): no state is needed."""
        return self.decode(latents)[:, None], None

    def encode_uint8(self, frames):
        """frames uint8 [b H W 3] -> latents [b c h w], float32."""
        return self.encode(to_float(frames))

    def decode_uint8(self, latents):
        """latents [b c h w] -> frames uint8 [b H W 3]."""
        return to_uint8(self.decode(latents))


def to_float(frames):
    """uint8 [... H W 3] -> float32 [... 3 H W] in [-1, 1]."""
    return rearrange(frames, "... H W c -> ... c H W").float() / 127.5 - 1


def to_uint8(frames):
    """[... 3 H W] in [-1, 1] -> uint8 [... H W 3], clamped and rounded to the nearest level."""
    levels = (frames.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return rearrange(levels, "... c H W -> ... H W c").contiguous()
