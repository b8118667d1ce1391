"""Full attention of one sequence, by the fastest kernel that was measured."""
import importlib.util
from typing import NamedTuple

import torch
from einops import rearrange
from torch.nn import functional as F


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
    """Let `attend` run by BACKENDS[name] wherever a world is played at an AttentionShape, from now on in this
    process.
    """
    _preferred[shape] = name


def attend(q, k, v, mask=None):
    """Softmax attention; by the backend given to `prefer` in inference mode and without a mask, by PyTorch's
    own choice otherwise.

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
    """Names in BACKENDS that are worth a try on a device: on a GPU several, on others PyTorch's own
    choice.
    """
    if device.type in ("cpu", "meta"):
        return ("sdpa",)
    return ("flash", "cudnn", "efficient", *(("xformers",) if importlib.util.find_spec("xformers") else ()))


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


# name -> function of q [b k l d], k and v [b k m d] -> [b k l d], without gradients; "sdpa" is PyTorch's own
# choice
BACKENDS = {"sdpa": _by_sdpa, "flash": _by_flash, "cudnn": _by_cudnn, "efficient": _by_efficient,
            "xformers": _by_xformers}
