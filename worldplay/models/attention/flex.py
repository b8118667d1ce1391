"""Causal attention for training by FlexAttention: one compiled kernel that passes over what nobody sees."""
from functools import cache

import torch
from einops import rearrange
from torch.nn.attention import flex_attention as flex

from worldplay.models.attention.frame_rule import seen_frames

_masks = {}  # of the last two only: a stage trains one shape, a camera's branch may have a rule of its own


@torch.compiler.disable(recursive=False)  # a graph of its own, so that the mask is made outside of any
def flex_attention(q, k, v, rule, halves):
    """What `plain_attention` gives, same arguments; for a GPU, because it has no backward pass on a CPU.

    On the meta device, which no kernel takes, it gives the shapes and keeps for its backward what the kernel
    does.
    """
    if q.is_meta:
        return _Shapes.apply(q, k, v)
    tokens = q.shape[2]
    k, v, sees = seen_frames(k, v, rule, halves)
    shape = (rule, halves, q.shape[1], tokens, q.device)
    if shape not in _masks:
        if len(_masks) > 1:
            _masks.clear()
        _masks[shape] = flex.create_block_mask(
            lambda b, h, query, key: sees[query // tokens, key // tokens], None, None, q.shape[1] * tokens,
            k.shape[1] * tokens, device=q.device, _compile=q.device.type != "cpu")
    out = _kernel(q.device.type)(*(rearrange(x, "b f p k d -> b k (f p) d") for x in (q, k, v)),
                                 block_mask=_masks[shape])
    return rearrange(out, "b k (f p) d -> b f p k d", p=tokens)


class _Shapes(torch.autograd.Function):
    """The result and the gradients of the kernel, without their values."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q)
        # the last: sums of exponentials
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:-1], device=q.device))
        return out

    @staticmethod
    def backward(ctx, grad_out):
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])


@cache
def _kernel(device_type):
    """torch.compile(flex_attention); on a CPU, which only the tests use, the function as it is."""
    return flex.flex_attention if device_type == "cpu" else torch.compile(flex.flex_attention)
