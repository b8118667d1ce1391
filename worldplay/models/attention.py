"""Attention between frames: who sees whom, and the dense pass that is the oracle."""
import importlib.util
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch.nn import functional as F

from worldplay.models.position import rotate, time_shift


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


class AttentionShape(NamedTuple):
    """Full attention of one sequence: all that its speed on a machine depends on.

    device                 kind of device, torch.device.type
    num_queries, num_keys  tokens
    """
    device: str
    dtype: torch.dtype
    num_heads: int
    head_dim: int
    num_queries: int
    num_keys: int


_preferred = {}  # AttentionShape -> name in BACKENDS


def prefer(shape, name):
    """Let `attend` run by BACKENDS[name] wherever a world is played at an AttentionShape, from now on in this process."""
    _preferred[shape] = name


def attend(q, k, v, mask=None):
    """Softmax attention; by what `prefer` was told in inference mode and without a mask, by PyTorch's own choice otherwise.

    q        [b t p k d] queries of t frames; k and v [b k l d]
    mask     bool [(t p) l], True where a query sees a key; None: it sees all
    Returns  [b t p k d]

    Training, which is never in inference mode, does not depend on the worlds that its process has opened.
    """
    (t, p, heads, d), name = q.shape[1:], "sdpa"
    q = rearrange(q, "b t p k d -> b k (t p) d")
    if mask is not None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:
        if torch.is_inference_mode_enabled():
            name = _preferred.get((q.device.type, q.dtype, heads, d, t * p, k.shape[2]), name)
        out = BACKENDS[name](q, k, v)
    return rearrange(out, "b k (t p) d -> b t p k d", p=p)


def candidates(device):
    """Names in BACKENDS that are worth a try on a device: on a GPU several, on others PyTorch's own choice."""
    if device.type in ("cpu", "meta"):
        return ("sdpa",)
    return ("flash", "cudnn", "efficient", *(("xformers",) if importlib.util.find_spec("xformers") else ()))


# SDPA's kernels are called themselves: torch.nn.attention.sdpa_kernel sets flags of the whole process, other threads
# included, and takes 8 us a call, where all of SDPA on a few tokens takes 4.


def _by_sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def _by_flash(q, k, v):
    return torch.ops.aten._scaled_dot_product_flash_attention.default(q, k, v)[0]


def _by_cudnn(q, k, v):
    return torch.ops.aten._scaled_dot_product_cudnn_attention.default(q, k, v, None, False)[0]


def _by_efficient(q, k, v):
    return torch.ops.aten._scaled_dot_product_efficient_attention.default(q, k, v, None, False)[0]


def _by_xformers(q, k, v):
    from xformers.ops import memory_efficient_attention
    out = memory_efficient_attention(*(rearrange(x, "b k l d -> b l k d") for x in (q, k, v)))
    return rearrange(out, "b l k d -> b k l d")


# name -> function of q [b k l d], k and v [b k m d] -> [b k l d], without gradients; "sdpa" is PyTorch's own choice
BACKENDS = {"sdpa": _by_sdpa, "flash": _by_flash, "cudnn": _by_cudnn, "efficient": _by_efficient, "xformers": _by_xformers}

CAUSAL_ATTENTION = ("plain", "chunks", "flex")  # the oracle, and two ways to the same that multiply only what is seen


def causal_attention(name):
    """The function of q, k, v, rule, halves by that name in CAUSAL_ATTENTION; ValueError for another.

    The modules are imported here, because they take torch's compiler along, a second of imports that play has no use for.
    """
    if name == "plain":
        return plain_attention
    if name == "chunks":
        from worldplay.models.chunk_attention import chunk_attention
        return chunk_attention
    if name == "flex":
        from worldplay.models.flex_attention import flex_attention
        return flex_attention
    raise ValueError(f"attention {name!r}: expected one of {', '.join(CAUSAL_ATTENTION)}")


def plain_attention(q, k, v, rule, halves):
    """Causal attention by one dense mask over all tokens: the oracle of the fast ways, same arguments.

    q, k, v  [b f p k d]  f = halves * t frames; with 2 halves the clean frames come before the noisy ones
    rule     FrameRule; every past frame is seen in its first half, the own chunk in its own half
    Returns  [b f p k d]
    """
    keys, values, sees = seen_frames(k, v, rule, halves)
    tokens = q.shape[2]
    mask = sees.repeat_interleave(tokens, dim=0).repeat_interleave(tokens, dim=1)
    return attend(q, *(rearrange(x, "b f p k d -> b k (f p) d") for x in (keys, values)), mask)


def seen_frames(k, v, rule, halves):
    """What `plain_attention` looks at: keys and values [b f+extra p k d], and who sees them, bool [f f+extra].

    The extra frames are sink frames again, moved in time, for the chunks that see them so.
    """
    num_frames = k.shape[1] // halves
    rolled = [start for start in _starts(num_frames, rule) if rule.sink_shift(start)]
    k = torch.cat([k, *(moved_sinks(k, rule, start) for start in rolled)], dim=1)
    v = torch.cat([v, *(v[:, :rule.sink] for _ in rolled)], dim=1)
    return k, v, _frame_mask(num_frames, rule, halves, rolled, k.device)


def moved_sinks(k, rule, start):
    """Keys [b s p k d] of the sink frames of k [b f p k d], in time where the chunk at `start` sees them."""
    shift = rule.sink_shift(start)
    sinks = k[:, :rule.sink]
    return rotate(sinks, time_shift(shift, k.shape[-1], k.device)) if shift else sinks


def _starts(num_frames, rule):
    return range(0, num_frames, rule.frames_per_chunk)


def _frame_mask(num_frames, rule, halves, rolled, device):
    """bool [f, f + extra]: frames of all halves against them and the moved sinks of rolled chunks."""
    num_keys = halves * num_frames + len(rolled) * rule.sink
    mask = torch.zeros(halves, num_frames, num_keys, dtype=torch.bool, device=device)
    for start in _starts(num_frames, rule):
        chunk = slice(start, start + rule.frames_per_chunk)
        sinks, first = rule.past(start)
        mask[:, chunk, first:start] = True
        if start in rolled:
            extra = halves * num_frames + rolled.index(start) * rule.sink
            mask[:, chunk, extra:extra + sinks] = True
        else:
            mask[:, chunk, :sinks] = True
        for half in range(halves):
            own = half * num_frames + start
            mask[half, chunk, own:half * num_frames + min(start + rule.frames_per_chunk, num_frames)] = True
    return rearrange(mask, "z t l -> (z t) l")
