"""Which way of training's attention is fastest here: measured once for a run, at its own size."""
import logging

import numpy as np
import torch

from worldplay import runtime
from worldplay.models.attention import causal_attention

log = logging.getLogger(__name__)

CANDIDATES = ("chunks", "flex")


def fastest_attention(device, dtype, *, rule, batch, num_frames, num_tokens, num_heads, head_dim, repeats=5):
    """(name, {name: milliseconds, or why it does not run}) of forward and backward with two halves of num_frames.

    Only what gives what the plain way gives counts, and the plain way itself is the last resort. A CPU has one way,
    which is not timed.
    """
    if device.type == "cpu":
        return CANDIDATES[0], {}
    shape = (batch, 2 * num_frames, num_tokens, num_heads, head_dim)
    inputs = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    with torch.no_grad():  # one sample, because the plain way holds a score of every pair of tokens
        expected = causal_attention("plain")(*(x[:1] for x in inputs), rule, 2)
    times = {name: _time(causal_attention(name), inputs, rule, expected, device, repeats) for name in CANDIDATES}
    for name, result in times.items():
        log.info("attention by %s: %s", name, result if isinstance(result, str) else f"{result:.2f} ms a layer")
    running = {name: ms for name, ms in times.items() if isinstance(ms, float)}
    if not running:
        log.warning("no way of attention is quick and right here; the plain one is taken, which holds every score")
    return min(running, key=running.get, default="plain"), times


def _time(attend, inputs, rule, expected, device, repeats):
    times = {}
    try:
        for i in range(2 + repeats):
            with runtime.measured(device, times, "warm up" if i < 2 else "work"):
                out = attend(*inputs, rule, 2)
                torch.autograd.grad(out, inputs, out.detach())
    except (RuntimeError, NotImplementedError) as error:  # a kernel that this GPU or its compiler does not take
        return str(error).splitlines()[0]
    error = float((out[:1].detach() - expected).abs().max())
    if error > max(4 * torch.finfo(inputs[0].dtype).eps, 1e-4):  # random values below 1 or so
        return f"off by {error:.2g}"
    return float(np.median(times["work"]))
