"""Causal attention of whole sequences for training: its implementations by name, and the plain one."""
from einops import rearrange

from worldplay.models.attention.frame_rule import seen_frames
from worldplay.models.attention.kernels import attend

# the reference, and two implementations that leave out pairs of tokens that are masked
CAUSAL_ATTENTION = ("plain", "chunks", "flex")


def causal_attention(name):
    """The function of q, k, v, rule, halves called `name` in CAUSAL_ATTENTION; ValueError for another name.

    The modules are imported here, because they import torch's compiler, which takes a second and which play
    does not need.
    """
    if name == "plain":
        return plain_attention
    if name == "chunks":
        from worldplay.models.attention.chunks import chunk_attention
        return chunk_attention
    if name == "flex":
        from worldplay.models.attention.flex import flex_attention
        return flex_attention
    raise ValueError(f"attention {name!r}: expected one of {', '.join(CAUSAL_ATTENTION)}")


def plain_attention(q, k, v, rule, halves):
    """Causal attention with one dense mask over all tokens: the reference for the others, same arguments.

    q, k, v  [b f p k d]  f = halves * t frames; with 2 halves the clean frames come before the noisy ones
    rule     FrameRule; every past frame is seen in its first half, the own chunk in its own half
    Returns  [b f p k d]
    """
    keys, values, sees = seen_frames(k, v, rule, halves)
    tokens = q.shape[2]
    mask = sees.repeat_interleave(tokens, dim=0).repeat_interleave(tokens, dim=1)
    return attend(q, *(rearrange(x, "b f p k d -> b k (f p) d") for x in (keys, values)), mask)
