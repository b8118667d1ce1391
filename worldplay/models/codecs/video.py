"""What video codecs have in common: one latent at a time, with what they remember handed in and out."""
from abc import ABC, abstractmethod

import torch
from einops import rearrange, repeat
from torch import nn


class VideoCodec(nn.Module, ABC):
    """One latent is 8 x 8 pixels of four frames; the first latent is one frame. Counts are 1, 4, 4, ...

    Frames are floats in [-1, 1] (`to_float` and `to_uint8` of codecs.image lead from and to uint8), latents
    are those of the transformer. A state is a tuple of tensors with the batch axis first, whose sizes never
    change, so the thousandth latent costs what the second one costs. No call modifies a state it was given:
    keeping the tuple is a snapshot of it.

    first_frames   frames that the first latent is encoded from: 1, or more where the encoder looks ahead
    """
    stride = 8
    frames_per_latent = 4
    first_frames = 1

    def decode_next(self, latent, state=None):
        """(frames, state) of the next latent of a video.

        latent   [b c h w]
        state    of the latent before; None begins a video
        Returns  [b n 3 8h 8w] with n = 1 for the first latent and 4 for a later one, about [-1, 1], not
                 clamped, in the dtype of the weights; and the state to hand in with the latent after
        """
        return self._decode(latent[:, None], state)

    def decode(self, latents):
        """latents [b t c h w] of a video from its beginning -> frames [b 4t-3 3 8h 8w], about [-1, 1]."""
        state, made = None, []
        for latent in latents.unbind(dim=1):
            frames, state = self.decode_next(latent, state)
            made.append(frames)
        return torch.cat(made, dim=1)

    def encode_next(self, frames, state=None):
        """(latent, state) of the next frames of a video.

        frames   [b n 3 H W] in [-1, 1], H and W multiples of 8; n = first_frames, later 4
        state    of the frames before; None begins a video
        Returns  [b c H/8 W/8], float32, and the state to hand in with the frames after

            Raises ValueError for another number of frames or a size that is no multiple of 8.
        """
        expected = self.frames_per_latent if state else self.first_frames
        if frames.shape[1] != expected:
            raise ValueError(f"{frames.shape[1]} frames to encode: expected {expected} here")
        if any(length % self.stride for length in frames.shape[-2:]):
            raise ValueError(f"frames of {frames.shape[-2]} x {frames.shape[-1]} pixels to encode: expected "
                             f"multiples of {self.stride}")
        latents, state = self._encode(frames, state)
        return latents[:, 0], state

    def encode(self, frames):
        """Latents of a whole video.

        frames   [b n 3 H W] in [-1, 1]; n = 1, 5, 9, ...
        Returns  [b t c H/8 W/8], float32; t = (n + 3) / 4

            Raises ValueError for another number of frames: a group that is not full would be lost.
        """
        n = frames.shape[1]
        if n % self.frames_per_latent != 1:
            whole = (n - 1) // self.frames_per_latent * self.frames_per_latent + 1
            remedy = f"; leave out the last {n - whole}" if n else ""
            raise ValueError(f"{n} frames to encode: expected 1, 5, 9, ... (1 + a multiple of 4){remedy}")
        state, latents, begin = None, [], 0
        while len(latents) * self.frames_per_latent < n:
            end = begin + (self.frames_per_latent if latents else self.first_frames)
            group = frames[:, [min(i, n - 1) for i in range(begin, end)]]  # the last frame stands in for more
            latent, state = self.encode_next(group, state)
            latents.append(latent)
            begin = end
        return torch.stack(latents, dim=1)

    @abstractmethod
    def _decode(self, latents, state):
        """(frames, state) of the next latents [b t c h w]; without a state, of the first one."""

    @abstractmethod
    def _encode(self, frames, state):
        """(latents [b t c h w] float32, state) of the next frames, in groups as `encode_next` takes them."""


class Memory:
    """What the layers keep of a video: read in the order they run, and made anew in the same order.

    state   of the call before, None at the beginning of a video
    """

    def __init__(self, state):
        self._past = None if state is None else iter(state)
        self._kept = []

    def recall(self):
        """What this layer kept in the call before; None at the beginning."""
        return None if self._past is None else next(self._past)

    def keep(self, x):
        """Keep x for this layer's next call; a copy, so that the rest of a larger tensor can be freed."""
        self._kept.append(x.clone())

    def state(self):
        return tuple(self._kept)


class FrameConv(nn.Conv2d):
    """A two-dimensional convolution of every frame, [b t h w c] as everywhere inside the codecs.

    Channels come last because that is where convolutions on the CPU and on tensor cores want them, and norms
    and 1 x 1 convolutions too.
    """

    def forward(self, x):
        return by_frame(super().forward, x)


def by_frame(convolve, x):
    """A function of [(b t) c h w] applied to x [b t h w c], without a copy."""
    y = convolve(rearrange(x, "b t h w c -> (b t) c h w"))
    return rearrange(y, "(b t) c h w -> b t h w c", t=x.shape[1])


def enlarge(x):
    """[b t h w c] -> [b t 2h 2w c], every value four times."""
    return repeat(x, "b t h w c -> b t (h 2) (w 2) c")
