"""The attention kernel of play: the fastest correct one, measured once per GPU and shape, cached on disk."""
import json
import logging
from functools import cache
from importlib import metadata

import numpy as np
import torch
from einops import rearrange

from worldplay import runtime
from worldplay.files import write_json
from worldplay.models.attention.kernels import BACKENDS, candidates, prefer
from worldplay.worlds.zoo import user_cache

log = logging.getLogger(__name__)

NO_MEMORY = "no memory for it at present"
_FORMAT = 1  # of the cache file; files of another format are ignored
_ROWS = 64  # queries of each head whose outputs are compared with exact attention


@cache
def choose(shape, device):
    """Name in BACKENDS of the kernel for an AttentionShape on this device, which `attend` uses from now on.

    The first time, all candidates are measured, and the fastest is cached on disk for this GPU and these
    versions of PyTorch and xformers. Later starts read it and do not measure again: the same seed and actions
    must give the same frames, and another kernel rounds differently. A CPU has one candidate, which is
    neither timed nor cached.
    """
    names = candidates(device)
    if len(names) == 1:
        return names[0]
    path, key = _path(), _key(shape, device)
    entry = _read(path).get(key) or _measured(shape, device, path, key)
    prefer(shape, entry["attention"])
    return entry["attention"]


@torch.inference_mode()
def measure(shape, device):
    """{name: milliseconds, or why it cannot be used}: every candidate on random inputs of an AttentionShape.

    Queries, keys and values have the strides they have in play: queries are a slice of a projection, keys and
    values slices of a KV cache. Where no candidate is correct, the dict has "sdpa" too, PyTorch's own choice.
    """
    q, k, v = _operands(shape, device)
    rows = torch.linspace(0, shape.num_queries - 1, min(_ROWS, shape.num_queries), device=device).long()
    expected = _exact(q[:, :, rows], k, v)
    # in a pass, a GPU's calls are queued without waiting in between
    calls = 1 if device.type == "cpu" else 10

    def time_of(name):
        return trial(lambda: rearrange(BACKENDS[name](q, k, v), "b k l d -> b l (k d)"), expected, device,
                     calls=calls,
                     part=lambda out: rearrange(out[:, rows], "b l (k d) -> b k l d", k=shape.num_heads))
    times = {name: time_of(name) for name in candidates(device)}
    return times if fastest(times) else times | {"sdpa": time_of("sdpa")}


def trial(work, expected, device, *, part, calls=1, repeats=5):
    """Median milliseconds of a call of work() on the device, or a str why it cannot be used.

    part   function of work()'s result: the part that must equal `expected` up to rounding; values of about 1
           at most
    calls  of work() in each timing, without waiting for the device in between
    """
    times = {}
    try:
        for i in range(2 + repeats):
            with runtime.measured(device, times, "warm up" if i < 2 else "work"):
                for _ in range(calls):
                    out = work()
        error = float((part(out).detach() - expected).abs().max())
    except torch.OutOfMemoryError:
        return NO_MEMORY
    # no kernel for this GPU, dtype or size
    except (RuntimeError, ValueError, ImportError, OSError) as failure:
        return (str(failure) or type(failure).__name__).splitlines()[0]
    if not error <= max(4 * torch.finfo(out.dtype).eps, 1e-4):
        return f"off by {error:.2g}"
    return float(np.median(times["work"])) / calls


def fastest(times, default=None):
    """The name with the fewest milliseconds in {name: milliseconds, or a str}; default without any."""
    running = {name: ms for name, ms in times.items() if isinstance(ms, float)}
    return min(running, key=running.get, default=default)


def _operands(shape, device):
    """q, k and v [1 k l d], uniform in [-1, 1], but q in [-12, 12], so that few keys get most of the weight.

    With small q all outputs would be the mean of many values: so near 0 that an output of zeros would pass.
    """
    generator = torch.Generator(device).manual_seed(0)

    def uniform(*sizes, limit=1.0):
        return torch.empty(sizes, dtype=shape.dtype, device=device).uniform_(-limit, limit,
                                                                             generator=generator)
    q_k = uniform(1, shape.num_queries, 2 * shape.num_heads, shape.head_dim, limit=12.0)
    k, v = uniform(2, 1, shape.num_heads, shape.num_keys, shape.head_dim)
    return rearrange(q_k[:, :, :shape.num_heads], "b l k d -> b k l d"), k, v


def _exact(q, k, v):
    """Softmax attention in float32, without a fused kernel."""
    weights = (q.float() @ k.float().mT * q.shape[-1]**-0.5).softmax(dim=-1)
    return weights @ v.float()


# The cache file ---------------------------------------------------------------------------------------------


def _path():
    return user_cache() / "attention.json"


def _key(shape, device):
    """The key of a measurement: everything that could make another kernel the fastest."""
    try:
        xformers = metadata.version("xformers")
    except metadata.PackageNotFoundError:
        xformers = "none"
    return (f"{runtime.device_name(device)}, torch {torch.__version__}, xformers {xformers}, "
            f"{str(shape.dtype).removeprefix('torch.')}, {shape.num_heads} heads of {shape.head_dim}, "
            f"{shape.num_queries} x {shape.num_keys} tokens")


def _measured(shape, device, path, key):
    """The entry of a new measurement; not cached where memory was short: another program may have used it."""
    times = measure(shape, device)
    runtime.release_memory(device)
    log.info("attention measured, once for this GPU and %d x %d tokens: %s", shape.num_queries,
             shape.num_keys,
             ", ".join(f"{name} {ms:.3f} ms" if isinstance(ms, float) else f"{name} unusable ({ms})"
                       for name, ms in times.items()))
    if not fastest(times):
        log.warning("no attention kernel gives correct results here; PyTorch's own choice is used")
    entry = {"attention": fastest(times, "sdpa"), "ms": times}
    return entry if NO_MEMORY in times.values() else _keep(path, key, entry)


def _read(path):
    """key -> entry of the file; empty where there is no file, or with a warning where it is damaged."""
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cached["format"] != _FORMAT:
            raise ValueError(f"format {cached['format']!r:.40}")
        return {key: entry for key, entry in cached["measured"].items() if entry["attention"] in BACKENDS}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _warn_once(f"{path} cannot be read ({error}); attention is measured again")
        return {}


def _keep(path, key, entry):
    """Write an entry to the file; returns the one now there, which another process may have written first.

    Of two processes that write in the same millisecond, one's entry may be lost: then it is measured once
    more.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = {key: entry} | _read(path)
        write_json(path, {"format": _FORMAT, "measured": entries})
    except OSError as error:
        _warn_once(f"the measurement of attention cannot be kept in {path} ({error.strerror}); the next "
                   "start measures again, and may choose another kernel")
        return entry
    return entries[key]


@cache
def _warn_once(text):
    log.warning("%s", text)
