"""The base class of causal video codecs: one latent at a time, with the state as an argument and a result."""
from abc import ABC, abstractmethod

import torch
from einops import rearrange, repeat
from torch import nn


class VideoCodec(nn.Module, ABC):
    """One latent is 8 x 8 pixels of four frames; the first latent is one frame. Counts are 1, 4, 4, ...

    Frames are floats in [-1, 1] (`to_float` and `to_uint8` of models.codecs.image convert from and to uint8),
    latents are those of the transformer. A state holds the cached inputs of causal layers, a tuple of tensors
    with the batch axis first and of fixed sizes, so every latent after the first costs the same. No call
    modifies a state that it was given, so a reference to it is a snapshot.

    first_frames   frames that the first latent is encoded from: 1, or more where the encoder looks ahead
    """
    stride = 8
    frames_per_latent = 4
    first_frames = 1

    def decode_next(self, latent, state=None):
        """(frames, state) of the next latent of a video.

        latent   [b c h w]
        state    returned with the previous latent; None begins a video
        Returns  [b n 3 8h 8w] with n = 1 for the first latent and 4 for a later one, about [-1, 1], not
                 clamped, in the dtype of the weights; and the state for the next latent
        """
        return self._decode(latent[:, None], state)

    def decode(self, latents):
        """latents [b t c h w] of a video from its beginning -> frames [b 4t-3 3 8h 8w], about [-1, 1]."""
        state, parts = None, []
        for latent in latents.unbind(dim=1):
            frames, state = self.decode_next(latent, state)
            parts.append(frames)
        return torch.cat(parts, dim=1)

    def encode_next(self, frames, state=None):
        """(latent, state) of the next frames of a video.

        frames   [b n 3 H W] in [-1, 1], H and W multiples of 8; n = first_frames, later 4
        state    returned with the previous frames; None begins a video
        Returns  [b c H/8 W/8], float32, and the state for the next frames

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

            Raises ValueError for another number of frames: the last ones would make no whole latent.
        """
        n = frames.shape[1]
        if n % self.frames_per_latent != 1:
            whole = (n - 1) // self.frames_per_latent * self.frames_per_latent + 1
            remedy = f"; leave out the last {n - whole}" if n else ""
            raise ValueError(f"{n} frames to encode: expected 1, 5, 9, ... (1 + a multiple of 4){remedy}")
        state, latents, begin = None, [], 0
        while len(latents) * self.frames_per_latent < n:
            end = begin + (self.frames_per_latent if latents else self.first_frames)
            group = frames[:, [min(i, n - 1) for i in range(begin, end)]]  # padded with the last frame
            latent, state = self.encode_next(group, state)
            latents.append(latent)
            begin = end
        return torch.stack(latents, dim=1)

    @abstractmethod
    def _decode(self, latents, state):
        """(frames, state) of the next latents [b t c h w]; state None: of the first latent of a video."""

    @abstractmethod
    def _encode(self, frames, state):
        """(latents [b t c h w] float32, state) of the next frames, as many as `encode_next` expects."""


class Memory:
    """Cached inputs of causal layers during one call of a codec.

    Each layer calls `recall` for the tensor it kept in the previous call and `keep` for the next call; layers
    are told apart by the order in which they run, the same in every call.

    state   tuple of tensors, `state()` of the previous call; None at the beginning of a video
    """

    def __init__(self, state):
        self._past = None if state is None else iter(state)
        self._next = []

    def recall(self):
        """The tensor that this layer kept in the previous call; None at the beginning of a video."""
        return None if self._past is None else next(self._past)

    def keep(self, x):
        """Keep a copy of x for this layer's next call; a view would hold the memory of the whole tensor."""
        self._next.append(x.clone())

    def state(self):
        """The state after the call, a tuple of the tensors kept."""
        return tuple(self._next)


class FrameConv(nn.Conv2d):
    """A two-dimensional convolution of every frame of x [b t h w c], the layout inside the codecs.

    Convolutions on the CPU and on tensor cores, norms and 1 x 1 convolutions are fastest with channels last.
    """

    def forward(self, x):
        return by_frame(super().forward, x)


def by_frame(convolve, x):
    """Apply convolve, a function of [(b t) c h w], to x [b t h w c] without copying it."""
    y = convolve(rearrange(x, "b t h w c -> (b t) c h w"))
    return rearrange(y, "(b t) c h w -> b t h w c", t=x.shape[1])


def enlarge(x):
    """Nearest-neighbour upsampling, [b t h w c] -> [b t 2h 2w c]."""
    return repeat(x, "b t h w c -> b t (h 2) (w 2) c")
