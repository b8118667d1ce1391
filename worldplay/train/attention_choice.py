"""Which way of training's attention is fastest here: measured once for a run, at its own size."""
import logging

import torch

from worldplay.engine.attention_backend import fastest, trial
from worldplay.models.attention.causal import causal_attention

log = logging.getLogger(__name__)

CANDIDATES = ("chunks", "flex")


def fastest_attention(device, dtype, *, rule, batch, num_frames, num_tokens, num_heads, head_dim, repeats=5):
    """(name, {name: milliseconds, or why it does not run}) of forward and backward with two halves of
    num_frames.

    Only what gives what the plain way gives counts, and the plain way itself is the last resort. A CPU has
    one way, which is not timed.
    """
    if device.type == "cpu":
        return CANDIDATES[0], {}
    shape = (batch, 2 * num_frames, num_tokens, num_heads, head_dim)
    inputs = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    with torch.no_grad():  # one sample, because the plain way holds a score of every pair of tokens
        expected = causal_attention("plain")(*(x[:1] for x in inputs), rule, 2)
    times = {name: _time(causal_attention(name), inputs, rule, expected, device, repeats)
             for name in CANDIDATES}
    for name, result in times.items():
        log.info("attention by %s: %s", name,
                 result if isinstance(result, str) else f"{result:.2f} ms a layer")
    if not fastest(times):
        log.warning("no attention kernel is fast and correct here; the plain one is taken, "
                    "which holds every score")
    return fastest(times, "plain"), times


def _time(attend, inputs, rule, expected, device, repeats):
    def both_ways():
        out = attend(*inputs, rule, 2)
        torch.autograd.grad(out, inputs, out.detach())
        return out
    return trial(both_ways, expected, device, part=lambda out: out[:1], repeats=repeats)
