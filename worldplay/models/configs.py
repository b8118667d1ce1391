"""Sizes of the networks and the frames that attention sees: dataclasses of a config.json, without torch."""
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of a Transformer; widths and channels count numbers."""
    dim: int = 256
    """Width of a token."""
    ffn_dim: int = 1024
    """Width inside a block's two-layer network."""
    num_heads: int = 4
    """Attention heads; they share the width."""
    num_layers: int = 8
    """Blocks."""
    in_channels: int = 8
    """Channels of a latent; a recipe with its own codec sets them, and the actions' too."""
    out_channels: int = 8
    """The same of what comes out."""
    patch_size: tuple[int, int, int] = (1, 2, 2)
    """(1, rows, columns) of latent that make one token."""
    freq_dim: int = 256
    """Width of the timestep's sinusoid."""
    text_dim: int | None = None
    """Width of the text encoder's rows; None: no text, no cross-attention."""
    text_len: int = 512
    """Rows that a prompt is padded to."""
    action_channels: int = 0
    """Length of an encoded action; 0: no actions."""
    has_camera: bool = False
    """Whether attention has a second branch, by the cameras of the frames."""
    eps: float = 1e-6
    """Added to a variance before the root in every norm."""

    def __post_init__(self):
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise ValueError(f"dim {self.dim} must be num_heads {self.num_heads} times an even number")
        if self.has_camera and self.head_dim % 4:
            raise ValueError(f"has_camera: a head of {self.head_dim} channels must be a multiple of 4")
        if len(self.patch_size) != 3 or self.patch_size[0] != 1:
            raise ValueError(f"patch_size {self.patch_size} must be (1, rows, columns)")

    @property
    def head_dim(self):
        return self.dim // self.num_heads

    def num_tokens(self, h, w):
        """Tokens of one frame of h x w latents."""
        return (h // self.patch_size[1]) * (w // self.patch_size[2])


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sizes of an ImageCodec."""
    channels: int = 8
    """Channels of a latent."""
    widths: tuple[int, int, int] = (48, 96, 128)
    """Channels of the stages at 1/2, 1/4 and 1/8 of the frame."""
    enc_blocks: tuple[int, int, int] = (1, 1, 2)
    """Residual blocks of the encoder at each of them."""
    dec_blocks: tuple[int, int, int] = (1, 2, 2)
    """The same of the decoder."""
    stride: ClassVar[int] = 8
    """Rows and columns of the frame for one of the latent."""

    def __post_init__(self):
        for field in ("widths", "enc_blocks", "dec_blocks"):
            object.__setattr__(self, field, tuple(getattr(self, field)))


@dataclass(frozen=True, kw_only=True)
class FrameRule:
    """Which frames a chunk of a causal sequence sees: sink frames, the past inside the window, and itself.

    frames_per_chunk  frames made together; they see each other
    window            most frames seen at once: sink + past + the chunk itself; None sees the whole past
    sink              first frames of the sequence that stay visible
    sink_position     "absolute": their keys keep their time; "before_window": once the window rolls, they
                      move along in time, so that they lie right before it
    """
    frames_per_chunk: int = 1
    window: int | None = None
    sink: int = 0
    sink_position: str = "absolute"

    def __post_init__(self):
        if self.sink_position not in ("absolute", "before_window"):
            raise ValueError(f"sink_position {self.sink_position!r}: expected 'absolute' or 'before_window'")
        if self.frames_per_chunk < 1 or self.sink < 0:
            raise ValueError(f"frames_per_chunk {self.frames_per_chunk} must be at least 1, "
                             f"sink {self.sink} at least 0")
        if self.window is not None and self.window < self.sink + self.frames_per_chunk:
            raise ValueError(f"window {self.window} has no room for {self.sink} sink frames and a chunk of "
                             f"{self.frames_per_chunk}")

    def past(self, start):
        """(number of sink frames, first past frame) that the chunk beginning at frame `start` sees.

        It sees frames [0, sinks), [first, start) and its own.
        """
        sinks = min(self.sink, start)
        if self.window is None:
            return sinks, sinks
        return sinks, max(sinks, start + self.frames_per_chunk - (self.window - self.sink))

    def sink_shift(self, start):
        """Frames by which the sink keys are moved in time for the chunk beginning at frame `start`."""
        if self.window is None or self.sink_position == "absolute":
            return 0
        return max(0, start + self.frames_per_chunk - self.window)
