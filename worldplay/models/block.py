"""One block of the transformer, its two attentions, and the head behind the last block."""
import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from worldplay.models.attention.kernels import attend
from worldplay.models.attention.rope import rotate


class SelfAttention(nn.Module):
    """Attention between tokens; queries and keys are normalised over the full width, then rotated by
    position.

    With a camera there is a second branch of the same queries, keys and values, with an output projection of
    its own.
    """

    def __init__(self, config):
        super().__init__()
        self.num_heads, self.width, self.eps = config.num_heads, config.dim, config.eps
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.prope_o = nn.Linear(config.dim, config.dim) if config.has_camera else None
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, eps=config.eps) for _ in range(2))
        self.fused = None

    def fuse(self):
        """Keep the joined weights of q, k and v instead of their parts; a second time changes nothing."""
        if self.fused is not None:
            return
        weight, bias, gain = (nn.Parameter(x.detach(), requires_grad=False) for x in self.joined())
        self.fused = nn.ParameterList([weight, bias, gain])
        del self.q, self.k, self.v, self.norm_q, self.norm_k

    def joined(self):
        """Weight [3e e] and bias [3e] of q, k and v in one layer, and the gains [2 e] of both norms."""
        parts = (self.q, self.k, self.v)
        return (torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]),
                torch.stack([self.norm_q.weight, self.norm_k.weight]))

    def project(self, x, rotary):
        """Queries and keys, rotated unless rotary is None, and values, [b t p k d] each, of x [b t p e]."""
        weight, bias, gain = self.joined() if self.fused is None else self.fused
        q_k, v = F.linear(x, weight, bias).split([2 * self.width, self.width], dim=-1)
        q_k = rearrange(q_k, "b t p (two e) -> b t p two e", two=2)
        q_k = F.rms_norm(q_k, (self.width,), eps=self.eps) * gain
        q_k = rearrange(q_k, "b t p two (k d) -> b t p (two k) d", k=self.num_heads)
        q_k = q_k if rotary is None else rotate(q_k, rotary)
        return *q_k.chunk(2, dim=3), rearrange(v, "b t p (k d) -> b t p k d", k=self.num_heads)

    def merge(self, out):
        """Output projection [b t p e]: o of the rotary heads [b t p k d]; of [b t p 2k d], with camera
        heads, plus prope_o of those.
        """
        out = rearrange(out, "b t p k d -> b t p (k d)")
        if out.shape[-1] == self.width:
            return self.o(out)
        by_rotary, by_camera = out.split(self.width, dim=-1)
        return self.o(by_rotary) + self.prope_o(by_camera)


class CrossAttention(nn.Module):
    """Attention of tokens to the rows of a text."""

    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, eps=config.eps) for _ in range(2))

    def keys_values(self, rows):
        """Keys and values, [b k l d] each, of embedded text rows [b l e]."""
        return tuple(rearrange(x, "b l (k d) -> b k l d", k=self.num_heads)
                     for x in (self.norm_k(self.k(rows)), self.v(rows)))

    def queries(self, x):
        """[b t p k d] of x [b t p e]."""
        return rearrange(self.norm_q(self.q(x)), "b t p (k d) -> b t p k d", k=self.num_heads)

    def merge(self, out):
        """Output projection, [b t p e], of the heads [b t p k d]."""
        return self.o(rearrange(out, "b t p k d -> b t p (k d)"))


class Block(nn.Module):
    """Self-attention, cross-attention when there is text, and a two-layer network; modulated per frame."""

    def __init__(self, config):
        super().__init__()
        self.width, self.eps = (config.dim,), config.eps
        self.modulation = nn.Parameter(nn.init.normal_(torch.empty(1, 6, config.dim), std=config.dim**-0.5))
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps) if config.text_dim else None
        self.cross_attn = CrossAttention(config) if config.text_dim else None
        self.ffn = nn.Sequential(nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"),
                                 nn.Linear(config.ffn_dim, config.dim))

    def forward(self, x, modulation, rotary, attention, text):
        """x [b t p e] tokens, modulation [b t 6 e], attention(q, k, v) -> out, text: keys and values.

        rotary is None where `attention` rotates queries and keys itself, because it also needs them as
        projected. Between the attentions are the three parts below: worldplay.engine.compiled puts compiled
        code in their place.
        """
        out = attention(*self.qkv(x, modulation, rotary))
        if self.cross_attn is not None:
            x, q = self.text_queries(x, out, modulation)
            out = attend(q, *text)
        return self.feed_forward(x, out, modulation)

    def qkv(self, x, modulation, rotary):
        """Queries, keys and values, [b t p k d] each, of the block's self-attention."""
        shift, scale = self.rows(modulation)[:2]
        return self.self_attn.project(self.modulated(x, shift, scale), rotary)

    def text_queries(self, x, out, modulation):
        """(x [b t p e] with the output of self-attention added, queries [b t p k d] for the
        cross-attention).
        """
        x = self._attended(x, out, modulation)
        return x, self.cross_attn.queries(self.norm3(x))

    def feed_forward(self, x, out, modulation):
        """x [b t p e] after the block: the output of its last attention added, then the two-layer network."""
        x = self._attended(x, out, modulation) if self.cross_attn is None else x + self.cross_attn.merge(out)
        shift, scale, gate = self.rows(modulation)[3:]
        return torch.addcmul(x, gate, self.ffn(self.modulated(x, shift, scale)))

    def keys_values(self, x, modulation, rotary):
        """Keys and values alone, for a pass that ends there; FSDP gathers weights around it, so `forward`
        does not call it.
        """
        return self.qkv(x, modulation, rotary)[1:]

    def text_keys_values(self, rows):
        """Keys and values of embedded text rows for the block's cross-attention; see CrossAttention."""
        return self.cross_attn.keys_values(rows)

    def _attended(self, x, out, modulation):
        return torch.addcmul(x, self.rows(modulation)[2], self.self_attn.merge(out))

    def rows(self, modulation):
        """The six rows [b t 1 e] of the block's own plus the frames' modulation."""
        return (self.modulation + modulation)[..., None, :].unbind(dim=2)

    def modulated(self, x, shift, scale):
        return torch.addcmul(shift, F.layer_norm(x, self.width, eps=self.eps), 1 + scale)


class Head(nn.Module):
    """Output layer: tokens [b t p e] to patch values [b t p n], channels last within a patch."""

    def __init__(self, config):
        super().__init__()
        self.width, self.eps = (config.dim,), config.eps
        self.head = nn.Linear(config.dim, math.prod(config.patch_size) * config.out_channels)
        self.modulation = nn.Parameter(nn.init.normal_(torch.empty(1, 2, config.dim), std=config.dim**-0.5))

    def forward(self, x, time):
        """time [b t e]: the time embedding before its projection."""
        shift, scale = (self.modulation + time[:, :, None])[..., None, :].unbind(dim=2)
        return self.head(torch.addcmul(shift, F.layer_norm(x, self.width, eps=self.eps), 1 + scale))
