"""Which frames a chunk of a causal sequence sees."""
from dataclasses import dataclass

import torch
from einops import rearrange

from worldplay.models.attention.rope import rotate, time_shift


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
