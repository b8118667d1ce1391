"""Causal attention for training that multiplies only what is seen, a few chunks at a time."""
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from torch.nn import functional as F

from worldplay.models.attention.frame_rule import moved_sinks
from worldplay.models.configs import FrameRule

# of scores multiplied at once, so that they stay in the second-level caches (2 x 2 MiB where measured)
GROUP_BYTES = 3 << 20


@torch.compiler.disable  # it is a few large products already; tracing its loop only costs time
def chunk_attention(q, k, v, rule, halves):
    """What `plain_attention` gives, at a cost that grows with t * window.

        Raises ValueError when t is not a multiple of the chunk.
    """
    t, p, heads, size = q.shape[1] // halves, q.shape[2], q.shape[3], rule.frames_per_chunk
    if t % size:
        raise ValueError(f"{t} frames are not a multiple of frames_per_chunk {size}")
    q = rearrange(q * q.shape[-1] ** -0.5, "b (z u f) p k d -> u (b k) (z f p) d", z=halves, f=size)
    own = sinks = (None, None)
    if halves == 2:
        own = [rearrange(x[:, t:], "b (u f) p k d -> u (b k) (f p) d", f=size) for x in (k, v)]
    if rule.sink:
        kept = torch.stack([moved_sinks(k, rule, start) for start in range(0, t, size)])
        sinks = [rearrange(x, "u b f p k d -> u (b k) (f p) d") for x in (kept, v[None, :, :rule.sink])]
        sinks[1] = sinks[1].expand(sinks[0].shape)
    k, v = (rearrange(x[:, :t], "b t p k d -> (b k) (t p) d") for x in (k, v))
    out = _ChunkAttention.apply(q, k, v, *own, *sinks, rule, p)
    return rearrange(out, "u (b k) (z f p) d -> b (z u f) p k d", k=heads, z=halves, p=p)


class _ChunkAttention(torch.autograd.Function):
    """Attention of every chunk, written out: windows overlap, so their gradients are added up in place.

    q                [u n m d]  u chunks, n = batch * heads, m tokens of a chunk in all halves; scaled already
    k, v             [n l d]    first half of the sequence, l = t * p
    own_k, own_v     [u n o d]  second half of each chunk, or None; its queries see these and not the
                                first half of their own chunk
    sink_k, sink_v   [u n s d]  sink frames as each chunk sees them, or None
    """

    @staticmethod
    def forward(ctx, q, k, v, own_k, own_v, sink_k, sink_v, rule, tokens):
        lead = _lead(q, rule) * tokens
        k, v = (F.pad(x, (0, 0, lead, 0)).contiguous() for x in (k, v))  # windows are cut out by strides
        out, weights = torch.empty_like(q), []
        for group in _groups(q, rule, tokens):
            scores = group.rows_times(q, k, own_k, sink_k)
            group.hide_unseen(scores)
            weights.append(scores.softmax(dim=-1))
            group.weighted_sums(weights[-1], v, own_v, sink_v, out)
        ctx.save_for_backward(q, k, v, own_k, own_v, sink_k, sink_v, *weights)
        ctx.rule, ctx.tokens = rule, tokens
        return out

    @staticmethod
    def backward(ctx, grad_out):
        q, k, v, own_k, own_v, sink_k, sink_v, *weights = ctx.saved_tensors
        inputs = (q, k, v, own_k, own_v, sink_k, sink_v)
        grad_q, *grads = [None if x is None else torch.zeros_like(x) for x in inputs]
        for group, weight in zip(_groups(q, ctx.rule, ctx.tokens), weights):
            grad_weight = group.rows_times(grad_out, v, own_v, sink_v)
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, weight.dtype)
            group.weighted_sums(grad_scores, k, own_k, sink_k, grad_q)
            group.add_products(grad_scores, q, *grads[0::2])
            group.add_products(weight, grad_out, *grads[1::2])
        lead = _lead(q, ctx.rule) * ctx.tokens
        return grad_q, grads[0][:, lead:], grads[1][:, lead:], *grads[2:], None, None


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Neighbouring chunks multiplied at once; each sees `sinks` frames and the `width` frames up to its end.

    part     slice of the chunks
    starts   first frame of each
    lead     frames of padding before the sequence
    """
    part: slice
    starts: range
    sinks: int
    width: int
    lead: int
    tokens: int
    rule: FrameRule

    def rows_times(self, rows, x, own, sinks):
        """Products [(u n) m l] of the chunks' rows [. n m d] with all that they may see."""
        rows = rows[self.part].flatten(0, 1)
        products = torch.bmm(rows, self._seen(x, sinks).transpose(1, 2))
        if own is not None:
            corner = self._corner(products, own)
            corner.copy_(torch.bmm(rows[:, -own.shape[2]:], own[self.part].flatten(0, 1).transpose(1, 2)))
        return products

    def hide_unseen(self, scores):
        """Set to -inf the scores of what lies before the window or the sequence, or is no sink frame yet."""
        scores = scores.unflatten(0, (len(self.starts), -1))
        for i, start in enumerate(self.starts):
            sinks, first = self.rule.past(start)
            first += self.sinks + self.width - start - self.rule.frames_per_chunk
            scores[i, :, :, sinks * self.tokens:first * self.tokens] = float("-inf")

    def weighted_sums(self, weight, x, own, sinks, out):
        """Write the sums [. n m d] by weight [(u n) m l] of all that the chunks see to their place in out."""
        with self._without_corner(weight, own) as corner:
            sums = torch.bmm(weight, self._seen(x, sinks))
        if own is not None:
            sums[:, -own.shape[2]:] += torch.bmm(corner, own[self.part].flatten(0, 1))
        out[self.part] = sums.view_as(out[self.part])

    def add_products(self, weight, rows, grad, grad_own, grad_sinks):
        """Add weight [(u n) m l], transposed, times rows [. n m d] to the gradients of all they see."""
        rows = rows[self.part].flatten(0, 1)
        with self._without_corner(weight, grad_own) as corner:
            products = torch.bmm(weight.transpose(1, 2), rows).unflatten(0, (len(self.starts), -1))
        if grad_own is not None:
            own = grad_own[self.part]
            own.copy_(torch.bmm(corner.transpose(1, 2), rows[:, -own.shape[2]:]).view_as(own))
        if grad_sinks is not None:
            grad_sinks[self.part] = products[:, :, :grad_sinks.shape[2]]
        for start, product in zip(self.starts, products[:, :, self.sinks * self.tokens:]):
            end = (self.lead + start + self.rule.frames_per_chunk) * self.tokens
            grad[:, end - product.shape[1]:end] += product

    def _seen(self, x, sinks):
        """Copies [(u n) l d] of the chunks' windows in x [n l d], behind their sinks [. n s d]."""
        n, length, d = x.shape
        size = self.rule.frames_per_chunk
        first = self.lead + self.starts[0] + size - self.width
        shape = (len(self.starts), n, self.width * self.tokens, d)
        windows = x.as_strided(shape, (size * self.tokens * d, length * d, d, 1), first * self.tokens * d)
        if sinks is not None:
            windows = torch.cat([sinks[self.part], windows], dim=2)
        return windows.contiguous().flatten(0, 1)

    def _corner(self, products, own):
        """View of the products of second-half rows with the chunk itself: the last rows and columns."""
        return products[:, -own.shape[2]:, -own.shape[2]:]

    @contextmanager
    def _without_corner(self, weight, own):
        """Give a copy of the corner and keep it zero meanwhile, where there is a second half."""
        if own is None:
            yield None
            return
        corner = self._corner(weight, own)
        copy = corner.clone()
        corner.zero_()
        yield copy
        corner.copy_(copy)


def _groups(q, rule, tokens):
    chunks, n, rows, _ = q.shape
    size, width = rule.frames_per_chunk, _lead(q, rule) + rule.frames_per_chunk
    sinks = min(rule.sink, chunks * size)
    row_bytes = (width + sinks) * tokens * q.element_size()
    count = max(1, GROUP_BYTES // (n * rows * row_bytes))
    for first in range(0, chunks, count):
        starts = range(first * size, min(first + count, chunks) * size, size)
        yield _Group(part=slice(first, first + len(starts)), starts=starts, sinks=sinks,
                     width=min(width, starts[-1] + size), lead=width - size, tokens=tokens, rule=rule)


def _lead(q, rule):
    """Most frames of its past, besides sinks, that a chunk of q [u n m d] sees."""
    past = (len(q) - 1) * rule.frames_per_chunk
    return past if rule.window is None else min(past, rule.window - rule.sink - rule.frames_per_chunk)
