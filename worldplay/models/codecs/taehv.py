"""The tiny video autoencoder TAEHV for the latents of Wan 2.1 (taew2_1), under its published key names."""
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from worldplay.models.codecs.video import FrameConv, Memory, VideoCodec, enlarge


class TAEHV(VideoCodec):
    """A small and fast replacement of WanVAE: the same latents and frame counts, less detail.

    See VideoCodec for the calls. taew2_1 has 11 315 539 parameters (encoder 1 470 928, decoder 9 844 611).
    Counted for frames of 480 x 832 (latents 60 x 104): the decoder's state is 9 tensors, 64 MiB in 16 bits,
    and a latent costs 0.54 Tflop (WanVAE 13.6); the encoder's are 9 tensors, 48 MiB, 0.24 Tflop.

    Encoder and decoder compute what the published ones do. The first three frames of the decoder's output
    lie before the video and are dropped. The encoder has no special first frame: it reads frames 0..3 for the
    first latent and 4..7 for the next one, while WanVAE's latents end with frames 0, 4, ... For the three
    frames that are missing at the end, `encode` repeats the last one, so an image is encoded as four copies
    of it. Its latents approximate those of WanVAE; to start from an image as the published worlds do, encode
    it with WanVAE.

    Source: madebyollin/taehv, taehv.py.
    """
    channels = 16
    first_frames = 4

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([
            conv(3, 64), nn.ReLU(),
            Pool(64, 2), conv(64, 64, stride=2, bias=False), *(MemoryBlock(64) for _ in range(3)),
            Pool(64, 2), conv(64, 64, stride=2, bias=False), *(MemoryBlock(64) for _ in range(3)),
            Pool(64, 1), conv(64, 64, stride=2, bias=False), *(MemoryBlock(64) for _ in range(3)),
            conv(64, self.channels)])
        self.decoder = nn.ModuleList([
            SoftClamp(), conv(self.channels, 256), nn.ReLU(),
            *(MemoryBlock(256) for _ in range(3)), Enlarge(), Grow(256, 1), conv(256, 128, bias=False),
            *(MemoryBlock(128) for _ in range(3)), Enlarge(), Grow(128, 2), conv(128, 64, bias=False),
            *(MemoryBlock(64) for _ in range(3)), Enlarge(), Grow(64, 2), conv(64, 64, bias=False),
            nn.ReLU(), conv(64, 3)])

    @property
    def dtype(self):
        return self.encoder[0].weight.dtype

    def fit(self, tensors):
        """Tensors of a published file, where Grow may be larger: of it, the rows of the last frames are kept.

        tensors  name -> tensor; other wrong shapes and missing names are left to the loader's check
        """
        fitted = dict(tensors)
        for i, layer in enumerate(self.decoder):
            name = f"decoder.{i}.conv.weight"
            if isinstance(layer, Grow) and name in fitted:
                fitted[name] = fitted[name][-len(layer.conv.weight):]
        return fitted

    def _encode(self, frames, state):
        x = (rearrange(frames, "b n c H W -> b n H W c").to(self.dtype) + 1) / 2
        latents, state = run(self.encoder, x, state)
        return rearrange(latents, "b t h w c -> b t c h w").float(), state

    def _decode(self, latents, state):
        x = rearrange(latents, "b t c h w -> b t h w c").to(self.dtype)
        frames, next_state = run(self.decoder, x, state)
        early = self.frames_per_latent - 1 if state is None else 0
        return rearrange(2 * frames[:, early:] - 1, "b n H W c -> b n c H W"), next_state


def run(layers, x, state):
    """(output, state after it) of layers applied to x [b t h w c]; state None begins a video."""
    memory = Memory(state)
    for layer in layers:
        x = layer(x, memory) if isinstance(layer, MemoryBlock) else layer(x)
    return x, memory.state()


def conv(channels_in, channels_out, **options):
    """A 3 x 3 FrameConv that keeps the size, up to its stride."""
    return FrameConv(channels_in, channels_out, 3, padding=1, **options)


class MemoryBlock(nn.Module):
    """Residual block: three convolutions of x [b t h w c] and the x one time step earlier, at first zero."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.ModuleDict({"0": conv(2 * width, width), "2": conv(width, width),
                                   "4": conv(width, width)})

    def forward(self, x, memory):
        past = memory.recall()
        past = torch.zeros_like(x[:, :1]) if past is None else past
        memory.keep(x[:, -1:])
        y = torch.cat([x, torch.cat([past, x[:, :-1]], dim=1)], dim=-1)
        y = self.conv["2"](F.relu(self.conv["0"](y)))
        return F.relu(x + self.conv["4"](F.relu(y)))


class Pool(nn.Module):
    """A 1 x 1 convolution from `factor` consecutive frames to one."""

    def __init__(self, width, factor):
        super().__init__()
        self.factor = factor
        self.conv = FrameConv(factor * width, width, 1, bias=False)

    def forward(self, x):
        return self.conv(rearrange(x, "b (t factor) h w c -> b t h w (factor c)", factor=self.factor))


class Grow(nn.Module):
    """A 1 x 1 convolution from one frame to `factor` consecutive ones."""

    def __init__(self, width, factor):
        super().__init__()
        self.factor = factor
        self.conv = FrameConv(width, factor * width, 1, bias=False)

    def forward(self, x):
        return rearrange(self.conv(x), "b t h w (factor c) -> b (t factor) h w c", factor=self.factor)


class Enlarge(nn.Module):
    """`enlarge` as a layer: twice the rows and columns."""

    def forward(self, x):
        return enlarge(x)


class SoftClamp(nn.Module):
    """Latents smoothly limited to (-3, 3)."""

    def forward(self, x):
        return 3 * torch.tanh(x / 3)
