"""How fast a world plays here: frame times, cost over time, passes, and the machine's ceilings."""
import math
import time
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from worldplay import runtime
from worldplay.engine.attention_backend import measure
from worldplay.engine.cost import flop_counter
from worldplay.envs.players import PLAYERS
from worldplay.models.attention.kernels import AttentionShape

MARKS = (100, 1_000, 10_000, 100_000)
_INFO = ("device", "device_name", "dtype", "steps", "seed", "window", "path", "graph", "attention", "threads",
         "max_threads")
_PROFILED = 50  # frames
PASSES = ("denoise", "commit")


def bench(world, *, frames, load_ms, track=lambda iterable, **_: iterable):
    """Figures of a world played unpaced with the explorer's actions (JSON names of the bench command).

    world    a DreamWorld; its transformer and codec are timed from outside, in a run of their own
    frames   to play
    load_ms  what opening it took
    track    wraps an iterable as tqdm does

    frame_ms_again is the median of the first 100 frames of a new start at the end: a machine that has become
    slower meanwhile shows there, a world whose frames cost more and more does not. eager_pass_ms, for a world
    that runs by compiled code, is pass_ms of the passes as written, in the same run.

        Raises ValueError for fewer than 10 frames.
    """
    check_frames(frames)
    per_step = world.config.frames_per_chunk * world.codec.frames_per_latent
    num_steps = max(2, math.ceil(frames / per_step))
    vectors = PLAYERS["explorer"](world.action_space, 1 + num_steps, 0)
    actions = [world.action_space.decode(vector) for vector in vectors]
    first_ms = first_frame_ms(world, actions[0])
    times = list(track(played(world, actions[1:]), desc=f"bench {world.name}", total=frames, unit="frame"))
    latency, ready = np.array(times).T
    first_frame_ms(world, actions[0])
    again = frame_seconds([ready for _, ready in played(world, actions[1:1 + MARKS[0]])], per_step)
    info = {name: world.info[name] for name in _INFO if name in world.info}
    figures = {"world": world.name, **info, "frames": len(ready), "world_fps": world.fps, "load_ms": load_ms,
               "first_frame_ms": first_ms, **frame_figures(frame_seconds(ready, per_step)),
               "frame_ms_again": 1000 * float(np.median(again)),
               "latency_ms": percentiles(1000 * latency), **passes(world, actions[1:1 + _PROFILED])}
    if info["path"] == "compiled":
        with _as_written(world):
            figures["eager_pass_ms"] = passes(world, actions[1:1 + _PROFILED])["pass_ms"]
    return figures | {"peak_memory_mib": runtime.peak_memory_mib(world.device)}


def check_frames(frames):
    """Raise ValueError for fewer frames than a bench needs."""
    if frames < 10:
        raise ValueError(f"--frames {frames}: expected at least 10")


def frame_figures(seconds):
    """{fps, frame_ms, one_percent_low_fps, frame_ms_at} of the times between frames, seconds [n].

    one_percent_low_fps  rate of the slowest hundredth of the frames, at least one
    frame_ms_at          median of the 100 frames before frame 100, 1000, ...
    """
    frame_ms = 1000 * np.asarray(seconds)
    slowest = np.sort(frame_ms)[-max(1, len(frame_ms) // 100):]
    # frame i is ready at the end of interval i - 1
    at = {str(mark): float(np.median(frame_ms[max(0, mark - 101):mark - 1]))
          for mark in MARKS if mark <= len(frame_ms) + 1}
    return {"fps": float(1000 / frame_ms.mean()),
            "frame_ms": percentiles(frame_ms) | {"max": float(frame_ms.max())},
            "one_percent_low_fps": float(1000 / slowest.mean()), "frame_ms_at": at}


def frame_seconds(ready, per_step):
    """Seconds that each frame took, of the times at which frames were ready; those of one step share its time
    evenly.

    Otherwise the frames of a video codec's latent, which come at once, would seem to take none.
    """
    return np.repeat(np.diff(ready[per_step - 1::per_step]) / per_step, per_step)


def passes(world, actions):
    """{passes_per_frame, pass_ms, decode_ms, gflops, ceiling_gflops} over the frames of some actions.

    pass_ms         median time of one pass of the transformer, context passes included
    decode_ms       median time of one decoded frame
    gflops          10^9 floating-point operations a second that a pass achieves; a multiplication and an
                    addition count two
    ceiling_gflops  what this machine reaches on the matrix products of one pass alone, same dtype and sizes
    """
    times, flops = {}, []
    with world.graphs.off(), timed(world.transformer, PASSES, world.device, times, "pass"), \
            timed(world.codec, ("decode_next",), world.device, times, "decode"):
        num_frames = len(list(played(world, actions)))
    # code may take a product apart
    with world.graphs.off(), _as_written(world), _counted(world.transformer, PASSES, flops):
        list(played(world, actions[:1]))
    return {"passes_per_frame": len(times["pass"]) / num_frames, "pass_ms": float(np.median(times["pass"])),
            "decode_ms": float(np.median(times["decode"])),
            "gflops": float(np.mean(flops) / np.median(times["pass"]) / 1e6),
            "ceiling_gflops": _linear_gflops(world)}


def ceilings(device, dtype):
    """{copy_gbs, matmul_tflops, attention_tflops, attention_tflops_at} of this machine, medians on random
    data.

    copy_gbs             10^9 bytes read and written a second by a large copy
    matmul_tflops        10^12 operations a second of a large square matrix product in dtype
    attention_tflops     the same of full attention over many tokens in dtype, by its fastest backend
    attention_tflops_at  {"QUERIES x KEYS": {backend: the same, or why it is out}} in tokens: latents of Wan
                         2.1 1.3B at 480 x 832, one or a chunk of 4, against windows of 7, 9 and 21; on a
                         processor smaller ones
    """
    is_cpu = device.type == "cpu"
    tokens, heads = (2048, 4) if is_cpu else (16384, 12)
    source = torch.randn(2**26 if is_cpu else 2**28, device=device)
    copy = torch.empty_like(source)
    copy_ms = _median_ms(partial(copy.copy_, source), device)
    num_bytes = 2 * source.nbytes
    del source, copy
    large = attention_tflops(device, dtype, heads, tokens, tokens)
    latent, heads = (60, 2) if is_cpu else (1560, 12)
    return {"copy_gbs": num_bytes / copy_ms / 1e6, "matmul_tflops": matmul_tflops(device, dtype),
            "attention_tflops": max(rate for rate in large.values() if isinstance(rate, float)),
            "attention_tflops_at": {f"{chunk * latent} x {window * latent}": attention_tflops(
                device, dtype, heads, chunk * latent, window * latent)
                for chunk in (1, 4) for window in (7, 9, 21)}}


def attention_tflops(device, dtype, num_heads, num_queries, num_keys, head_dim=128):
    """{backend: 10^12 operations a second of full attention of a size in dtype, or why it is out}."""
    times = measure(AttentionShape(device.type, dtype, num_heads, head_dim, num_queries, num_keys), device)
    runtime.release_memory(device)
    flops = 4 * num_heads * num_queries * num_keys * head_dim
    return {name: flops / ms / 1e9 if isinstance(ms, float) else ms for name, ms in times.items()}


def matmul_tflops(device, dtype, repeats=20):
    """10^12 operations a second of a large square matrix product in dtype; draws no global random numbers."""
    side = 2048 if device.type == "cpu" else 8192
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, dtype=dtype, generator=generator) for _ in range(2))
    return 2 * side**3 / _median_ms(lambda: a @ b, device, repeats) / 1e9


def first_frame_ms(world, action):
    """Milliseconds to a new start's first frame, and to the end of the chunk it is in."""
    start = time.perf_counter()
    world.reset()
    if world.state.frame == world.state.first_generated:  # otherwise the start was generated, from a text
        list(played(world, [action]))
    return 1000 * (time.perf_counter() - start)


def played(world, actions):
    """Yield (seconds from action to frame, time it was ready) of every frame."""
    for action in actions:
        start = time.perf_counter()
        for _ in world.step(action):
            ready = time.perf_counter()
            yield ready - start, ready


def percentiles(ms):
    return {f"p{p}": float(np.percentile(ms, p)) for p in (50, 95, 99)}


@contextmanager
def timed(module, names, device, into, key):
    """Inside, every call of these methods adds its milliseconds to into[key]."""
    def wrap(method):
        def timed(*args, **kwargs):
            with runtime.measured(device, into, key):
                return method(*args, **kwargs)
        return timed
    with wrapped(module, names, wrap):
        yield


@contextmanager
def _as_written(world):
    """Inside, passes run without compiled code."""
    path = world.info["path"]
    if path == "compiled":
        world.take_path("eager")
    try:
        yield
    finally:
        if path == "compiled":
            world.take_path("compiled")


@contextmanager
def _counted(module, names, into):
    """Inside, every call of these methods appends its floating-point operations to `into`."""
    def wrap(method):
        def counted(*args, **kwargs):
            with flop_counter() as counter:
                result = method(*args, **kwargs)
            into.append(counter.get_total_flops())
            return result
        return counted
    with wrapped(module, names, wrap):
        yield


@contextmanager
def wrapped(module, names, wrap):
    names = [name for name in names if hasattr(module, name)]
    before = {name: vars(module)[name] for name in names if name in vars(module)}  # code that is installed
    for name in names:
        setattr(module, name, wrap(getattr(module, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(module, name)
        for name, method in before.items():
            setattr(module, name, method)


def _linear_gflops(world):
    """Rate of the products of one frame's tokens with all weights of the blocks, one after another."""
    config = world.config
    _, rows, columns = config.transformer.patch_size
    _, h, w = config.latent_shape
    tokens = (h // rows) * (w // columns)
    weights = [weight for weight in world.transformer.blocks.parameters() if weight.ndim == 2]
    inputs = {width: torch.randn(tokens, width, device=world.device, dtype=world.dtype)
              for width in {weight.shape[1] for weight in weights}}

    def multiply():
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)
    flops = 2 * tokens * sum(weight.numel() for weight in weights)
    with torch.inference_mode():
        return flops / _median_ms(multiply, world.device) / 1e6


def _median_ms(work, device, repeats=20, warm_up=3):
    times = {}
    for _ in range(warm_up):
        work()
    for _ in range(repeats):
        with runtime.measured(device, times, "work"):
            work()
    return float(np.median(times["work"]))
