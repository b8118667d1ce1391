"""The attention backend of play: the fastest right one, measured once per machine and shape, kept on disk."""
import json
import logging
from functools import cache
from importlib import metadata

import numpy as np
import platformdirs
import torch
from einops import rearrange

from worldplay import runtime
from worldplay.files import write_json
from worldplay.models.attention.kernels import BACKENDS, candidates, prefer

log = logging.getLogger(__name__)

NO_MEMORY = "no memory for it at present"
_FORMAT = 1  # of the file; another one is measured anew
_ROWS = 64  # queries of each head whose results are compared


@cache
def choose(shape, device):
    """Name in BACKENDS that attention of an AttentionShape runs by on this device, and that `attend` takes
    from now on.

    The first time, all candidates are measured and the fastest is kept in the user's cache for this GPU and
    these versions of PyTorch and xformers. Later starts read it: the same seed and actions must give the same
    frames, which no new measurement would promise. A processor has one way, which is neither timed nor kept.
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
    """{name: milliseconds, or why it is out} of every candidate at an AttentionShape, on random numbers.

    Queries, keys and values lie as a world's do: queries among others of the projection, keys and values in
    the slots of a KV cache. Where no candidate is right, "sdpa" is among them, PyTorch's own choice.
    """
    q, k, v = _operands(shape, device)
    rows = torch.linspace(0, shape.num_queries - 1, min(_ROWS, shape.num_queries), device=device).long()
    expected = _exact(q[:, :, rows], k, v)
    # a GPU is given all the calls of a pass before it has done the first
    calls = 1 if device.type == "cpu" else 10

    def tried(name):
        return trial(lambda: rearrange(BACKENDS[name](q, k, v), "b k l d -> b l (k d)"), expected, device,
                     calls=calls,
                     part=lambda out: rearrange(out[:, rows], "b l (k d) -> b k l d", k=shape.num_heads))
    times = {name: tried(name) for name in candidates(device)}
    return times if fastest(times) else times | {"sdpa": tried("sdpa")}


def trial(work, expected, device, *, part, calls=1, repeats=5):
    """Milliseconds of work() on the device, the median over repeats, or why it is out: it fails, or its
    result is off.

    part   function of work()'s result: what of it must be `expected`, up to rounding; of values below 1 or so
    calls  of work() at a time, between which the device is not waited for
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
    # no kernel for this GPU, number type or size
    except (RuntimeError, ValueError, ImportError, OSError) as failure:
        return (str(failure) or type(failure).__name__).splitlines()[0]
    if not error <= max(4 * torch.finfo(out.dtype).eps, 1e-4):
        return f"off by {error:.2g}"
    return float(np.median(times["work"])) / calls


def fastest(times, default=None):
    """The name with the least milliseconds in {name: milliseconds, or why it is out}; default where all are
    out.
    """
    running = {name: ms for name, ms in times.items() if isinstance(ms, float)}
    return min(running, key=running.get, default=default)


def _operands(shape, device):
    """q, k and v [1 k l d] with numbers in [-1, 1]; q's are larger, so that a few keys take most of the
    weight.

    Otherwise every result would be the mean of all values, near 0, and so near it that nothing could be far
    off.
    """
    generator = torch.Generator(device).manual_seed(0)

    def uniform(*sizes, limit=1.0):
        return torch.empty(sizes, dtype=shape.dtype, device=device).uniform_(-limit, limit,
                                                                             generator=generator)
    q_k = uniform(1, shape.num_queries, 2 * shape.num_heads, shape.head_dim, limit=12.0)
    k, v = uniform(2, 1, shape.num_heads, shape.num_keys, shape.head_dim)
    return rearrange(q_k[:, :, :shape.num_heads], "b l k d -> b k l d"), k, v


def _exact(q, k, v):
    """Attention written out, in float32."""
    weights = (q.float() @ k.float().mT * q.shape[-1]**-0.5).softmax(dim=-1)
    return weights @ v.float()


# The file ---------------------------------------------------------------------------------------------------


def _path():
    return platformdirs.user_cache_path("worldplay", appauthor=False) / "attention.json"


def _key(shape, device):
    """What a measurement holds for; another version or GPU is another key."""
    try:
        xformers = metadata.version("xformers")
    except metadata.PackageNotFoundError:
        xformers = "none"
    return (f"{runtime.device_name(device)}, torch {torch.__version__}, xformers {xformers}, "
            f"{str(shape.dtype).removeprefix('torch.')}, {shape.num_heads} heads of {shape.head_dim}, "
            f"{shape.num_queries} x {shape.num_keys} tokens")


def _measured(shape, device, path, key):
    """The entry of a new measurement, kept unless memory was short: that may be another program's doing."""
    times = measure(shape, device)
    runtime.release_memory(device)
    log.info("attention measured, once for this GPU and %d x %d tokens: %s", shape.num_queries,
             shape.num_keys,
             ", ".join(f"{name} {ms:.3f} ms" if isinstance(ms, float) else f"{name} out ({ms})"
                       for name, ms in times.items()))
    if not fastest(times):
        log.warning("no backend of attention is right here; PyTorch's own choice is taken")
    entry = {"attention": fastest(times, "sdpa"), "ms": times}
    return entry if NO_MEMORY in times.values() else _keep(path, key, entry)


def _read(path):
    """key -> entry of the file; none where there is no file, or with a warning where it is damaged."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != _FORMAT:
            raise ValueError(f"format {kept['format']!r:.40}")
        return {key: entry for key, entry in kept["measured"].items() if entry["attention"] in BACKENDS}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _warn_once(f"{path} cannot be read ({error}); attention is measured again")
        return {}


def _keep(path, key, entry):
    """What the file says of the key from now on: this entry, or the one of a process that was quicker.

    Of two processes that write in the same millisecond, one's entry may be lost: then it is measured once
    more.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {key: entry} | _read(path)
        write_json(path, {"format": _FORMAT, "measured": kept})
    except OSError as error:
        _warn_once(f"what was measured cannot be kept in {path} ({error.strerror}); the next start measures "
                   "attention again, and may choose otherwise")
        return entry
    return kept[key]


@cache
def _warn_once(text):
    log.warning("%s", text)
