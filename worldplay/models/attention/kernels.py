"""Full attention of one sequence by one of several kernels, the fastest that was measured."""
import importlib.util
from typing import NamedTuple

import torch
from einops import rearrange
from torch.nn import functional as F


class AttentionShape(NamedTuple):
    """The sizes of a full attention that decide which kernel is the fastest.

    device                 torch.device.type
    num_queries, num_keys  in tokens
    """
    device: str
    dtype: torch.dtype
    num_heads: int
    head_dim: int
    num_queries: int
    num_keys: int


_preferred = {}  # AttentionShape -> name in BACKENDS


def prefer(shape, name):
    """Have `attend` use BACKENDS[name] for an AttentionShape in inference mode, in all of this process."""
    _preferred[shape] = name


def attend(q, k, v, mask=None):
    """Softmax attention: in inference mode without a mask by the kernel set by `prefer`, otherwise by
    scaled_dot_product_attention.

    q        [b t p k d] queries of t frames; k and v [b k l d]
    mask     bool [(t p) l], True where a query attends to a key; None: everywhere
    Returns  [b t p k d]

    Training is never in inference mode, so it does not depend on the worlds that its process has opened.
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
    """Names in BACKENDS to measure on a device: several on a GPU, otherwise PyTorch's own choice."""
    if device.type in ("cpu", "meta"):
        return ("sdpa",)
    return ("flash", "cudnn", "efficient", *(("xformers",) if importlib.util.find_spec("xformers") else ()))


def _by_sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


# SDPA's kernels are called directly: torch.nn.attention.sdpa_kernel sets flags of the whole process, other
# threads included, and takes 8 us a call, where all of SDPA on a few tokens takes 4.


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


# name -> function of q [b k l d], k and v [b k m d] -> [b k l d], without gradients; "sdpa": PyTorch chooses
BACKENDS = {"sdpa": _by_sdpa, "flash": _by_flash, "cudnn": _by_cudnn, "efficient": _by_efficient,
            "xformers": _by_xformers}
