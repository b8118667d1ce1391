"""Keys and values that the chunks of a causal sequence attend to under a FrameRule, and the mask for it."""
import torch
from einops import rearrange

from worldplay.models.attention.rope import rotate, time_shift


def seen_frames(k, v, rule, halves):
    """Keys, values [b f+extra p k d] and mask bool [f f+extra], True where a frame attends to another.

    The extra frames are copies of the sink frames with shifted time positions, for the chunks whose rule
    shifts them.
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
