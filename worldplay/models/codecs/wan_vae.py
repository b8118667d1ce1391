"""The Wan 2.1 video autoencoder under its published key names, latent by latent in both directions."""
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from worldplay.models.codecs.video import FrameConv, Memory, VideoCodec, by_frame, enlarge


@dataclass(frozen=True, kw_only=True)
class WanVAEConfig:
    """Sizes of a WanVAE and the statistics of its latents; the defaults are those of Wan2.1_VAE.pth."""
    width: int = 96
    """Channels at full resolution."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Channels at 1, 1/2, 1/4 and 1/8 of the frame, in widths."""
    blocks: int = 2
    """Residual blocks at each resolution in the encoder; the decoder has one more."""
    halves_time: tuple[bool, ...] = (False, True, True)
    """Whether the step from one resolution to the next also halves the number of frames."""
    latent_mean: tuple[float, ...] = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
                                      0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
    """Mean of every channel of the latents, over the videos it was trained on."""
    latent_std: tuple[float, ...] = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                     3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
    """Their standard deviation."""

    @property
    def channels(self):
        """Channels of a latent."""
        return len(self.latent_mean)


class WanVAE(VideoCodec):
    """Encoder and decoder; latents have mean 0 and variance 1 per channel. Encoding returns the mean.

    See VideoCodec for the calls. Wan2.1_VAE.pth has 126 892 531 parameters (encoder 53.6 M, decoder 73.3 M).
    Counted for frames of 480 x 832 (latents 60 x 104): the decoder's state is 32 tensors, 944 M numbers,
    1.76 GiB in 16 bits, and a latent costs 13.6 Tflop (the first one 4.4); the encoder's are 24 tensors,
    1.04 GiB, 8.1 Tflop. The decoder's frames go somewhat beyond [-1, 1]; the published wrapper clamps them.

    Source: Wan-Video/Wan2.1, wan/modules/vae.py; there the state is held by the module, and encoding drops
    the frames of a group that is not full.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        c = config.channels
        self.encoder = Encoder(config)
        self.conv1 = PointConv(2 * c, 2 * c)
        self.conv2 = PointConv(c, c)
        self.decoder = Decoder(config)
        # stored as int32, which casting the module to another dtype does not change: they stay float32
        statistics = torch.tensor([config.latent_mean, config.latent_std], dtype=torch.float32)
        self.register_buffer("statistics_bits", statistics.view(torch.int32), persistent=False)

    @property
    def statistics(self):
        """Mean and standard deviation of the latents, float32 [2 c]."""
        return self.statistics_bits.view(torch.float32)

    @property
    def dtype(self):
        return self.conv1.weight.dtype

    def _encode(self, frames, state):
        memory = Memory(state)
        x = self.encoder(rearrange(frames, "b n c H W -> b n H W c").to(self.dtype), memory)
        mean_of_latent, _ = self.conv1(x).chunk(2, dim=-1)
        mean, std = self.statistics
        return rearrange((mean_of_latent.float() - mean) / std, "b t h w c -> b t c h w"), memory.state()

    def _decode(self, latents, state):
        memory = Memory(state)
        mean, std = self.statistics
        x = rearrange(latents, "b t c h w -> b t h w c").float() * std + mean
        frames = self.decoder(self.conv2(x.to(self.dtype)), memory)
        return rearrange(frames, "b n H W c -> b n c H W"), memory.state()


class PointConv(nn.Conv3d):
    """A 1 x 1 x 1 convolution, [b t h w c]."""

    def __init__(self, channels_in, channels_out):
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x):
        return F.linear(x, self.weight.flatten(1), self.bias)


class CausalConv(nn.Conv3d):
    """A convolution over each frame and the two before it, [b t h w c], padded with zeros at the beginning.

    The three frames are concatenated along the channels of one two-dimensional convolution. Measured on a CPU
    against the three-dimensional one: in float32 0.2 to 0.4 of its time for 4 frames, about the same for 1
    frame; in bfloat16 up to 1.4 times as long. Not measured on a GPU.
    """

    def __init__(self, channels_in, channels_out, size=3):
        super().__init__(channels_in, channels_out, (3, size, size), padding=(0, size // 2, size // 2))

    def forward(self, x, memory):
        past = memory.recall()
        if past is None:
            past = torch.zeros_like(x[:, :1]).expand(-1, 2, -1, -1, -1)
        x = torch.cat([past, x], dim=1)
        memory.keep(x[:, -2:])
        return self.over(x)

    def over(self, x, step=1):
        """The convolution without state, [b t+2 h w c] -> [b t h w c]; of every step-th frame."""
        frames = torch.cat([x[:, i:x.shape[1] - 2 + i:step] for i in range(3)], dim=-1)
        weight = rearrange(self.weight, "o c t h w -> o (t c) h w")
        return by_frame(lambda y: F.conv2d(y, weight, self.bias, padding=self.padding[1:]), frames)


class RMSNorm(nn.Module):
    """RMS norm over channels; gamma has as many trailing axes of size 1 as in the published file."""

    def __init__(self, channels, num_axes):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * num_axes))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.gamma.flatten(), eps=1e-24)


class ResidualBlock(nn.Module):
    """x + two causal convolutions, each after a norm and SiLU."""

    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.residual = nn.ModuleDict({
            "0": RMSNorm(channels_in, 3), "2": CausalConv(channels_in, channels_out),
            "3": RMSNorm(channels_out, 3), "6": CausalConv(channels_out, channels_out)})
        self.shortcut = PointConv(channels_in, channels_out) if channels_in != channels_out else nn.Identity()

    def forward(self, x, memory):
        norm1, conv1, norm2, conv2 = self.residual.values()
        y = conv1(F.silu(norm1(x)), memory)
        return self.shortcut(x) + conv2(F.silu(norm2(y)), memory)


class FrameAttention(nn.Module):
    """x + self-attention with one head over the pixels of each frame."""

    def __init__(self, channels):
        super().__init__()
        self.norm = RMSNorm(channels, 2)
        self.to_qkv = FrameConv(channels, 3 * channels, 1)
        self.proj = FrameConv(channels, channels, 1)

    def forward(self, x, memory):
        _, t, h, _, _ = x.shape
        q, k, v = rearrange(self.to_qkv(self.norm(x)), "b t h w (three c) -> three (b t) 1 (h w) c", three=3)
        y = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj(rearrange(y, "(b t) 1 (h w) c -> b t h w c", t=t, h=h))


class Downsample(nn.Module):
    """Half the rows and columns; with halves_time half the frames too, but for the first one of a video."""

    def __init__(self, channels, halves_time):
        super().__init__()
        self.resample = nn.ModuleDict({"1": FrameConv(channels, channels, 3, stride=2)})
        self.time_conv = CausalConv(channels, channels, size=1) if halves_time else None

    def forward(self, x, memory):
        x = self.resample["1"](F.pad(x, (0, 0, 0, 1, 0, 1)))  # padded on the right and at the bottom
        if self.time_conv is None:
            return x
        past = memory.recall()
        memory.keep(x[:, -1:])
        return x if past is None else self.time_conv.over(torch.cat([past, x], dim=1), step=2)


class Upsample(nn.Module):
    """Twice the rows and columns with half the channels, with doubles_time twice the frames too.

    The first latent stays one frame, and the convolution over time does not read it: for the second latent it
    is padded with zeros.
    """

    def __init__(self, channels, doubles_time):
        super().__init__()
        self.resample = nn.ModuleDict({"1": FrameConv(channels, channels // 2, 3, padding=1)})
        self.time_conv = CausalConv(channels, 2 * channels, size=1) if doubles_time else None

    def forward(self, x, memory):
        if self.time_conv is not None:
            x = self._in_time(x, memory)
        return self.resample["1"](enlarge(x))

    def _in_time(self, x, memory):
        past = memory.recall()
        if past is None:
            memory.keep(torch.zeros_like(x).repeat(1, 2, 1, 1, 1))
            return x
        x = torch.cat([past, x], dim=1)
        memory.keep(x[:, -2:])
        return rearrange(self.time_conv.over(x), "b t h w (two c) -> b (t two) h w c", two=2)


class Stack(nn.Module):
    """The common part of encoder and decoder: conv1, the `layers` of the subclass, and the head."""

    def __init__(self, channels_in, width_in, width_out, channels_out):
        super().__init__()
        self.conv1 = CausalConv(channels_in, width_in)
        self.head = nn.ModuleDict({"0": RMSNorm(width_out, 3), "2": CausalConv(width_out, channels_out)})

    def forward(self, x, memory):
        x = self.conv1(x, memory)
        for layer in self.layers():
            x = layer(x, memory)
        return self.head["2"](F.silu(self.head["0"](x)), memory)


class Encoder(Stack):
    """Frames [b n H W 3] -> mean and logarithm of the variance of latents [b t h w 2c], before `conv1`."""

    def __init__(self, config):
        widths = [config.width * factor for factor in config.multipliers]
        super().__init__(3, widths[0], widths[-1], 2 * config.channels)
        self.downsamples = nn.ModuleList()
        for i, (before, width) in enumerate(zip([widths[0], *widths], widths)):
            self.downsamples += [ResidualBlock(width if j else before, width) for j in range(config.blocks)]
            if i < len(config.halves_time):
                self.downsamples.append(Downsample(width, config.halves_time[i]))
        self.middle = middle(widths[-1])

    def layers(self):
        return [*self.downsamples, *self.middle]


class Decoder(Stack):
    """Latents [b t h w c], in their own scale and after `conv2`, -> frames [b n H W 3], about [-1, 1]."""

    def __init__(self, config):
        widths = [config.width * factor for factor in reversed(config.multipliers)]
        doubles_time = config.halves_time[::-1]
        super().__init__(config.channels, widths[0], widths[-1], 3)
        self.middle = middle(widths[0])
        self.upsamples = nn.ModuleList()
        for i, (before, width) in enumerate(zip([2 * widths[0], *widths], widths)):
            before = before // 2  # by Upsample
            self.upsamples += [ResidualBlock(width if j else before, width) for j in range(config.blocks + 1)]
            if i < len(doubles_time):
                self.upsamples.append(Upsample(width, doubles_time[i]))

    def layers(self):
        return [*self.middle, *self.upsamples]


def middle(width):
    """The layers at the lowest resolution, the same in encoder and decoder."""
    return nn.ModuleList([ResidualBlock(width, width), FrameAttention(width), ResidualBlock(width, width)])
