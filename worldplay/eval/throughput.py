"""The speed of Wan-size worlds with random weights: several configurations, and what bounds each of them."""
import logging
import math
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from worldplay import runtime
from worldplay.action import Action
from worldplay.engine.cost import PARTS, cost_of, memory_of, part_of
from worldplay.engine.loading import random_world, same_networks
from worldplay.engine.parts import check_room
from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.eval.latency import (
    PASSES,
    ceilings,
    first_frame_ms,
    frame_figures,
    frame_seconds,
    percentiles,
    played,
    timed,
    wrapped,
)

log = logging.getLogger(__name__)

FRAMES = 120  # timed of each configuration
# Assumed, not measured: the makers' figures, dense bfloat16 and memory. Attention is taken to reach the same
# rate.
DATA_SHEETS = {"A800 80 GB": {"matmul_tflops": 312.0, "attention_tflops": 312.0, "memory_gbs": 2039.0},
               "H100 SXM": {"matmul_tflops": 989.0, "attention_tflops": 989.0, "memory_gbs": 3350.0},
               "H200 SXM": {"matmul_tflops": 989.0, "attention_tflops": 989.0, "memory_gbs": 4800.0}}
_PROBED = 8  # latents of each run beside the timed one
_WARM_UP = 2  # chunks with the window full, ahead of the timed ones


def paths(path, device):
    """The paths of passes that are measured where "auto", "eager" or "compiled" was asked for."""
    if path == "auto":
        return ("eager",) if device.type == "cpu" else ("eager", "compiled")
    return path,


def bench_random(name, configs, *, frames=FRAMES, device="auto", path="auto",
                 track=lambda iterable, **_: iterable):
    """Figures of WorldConfigs that differ in chunk, window and steps alone, played with one set of random
    weights.

    name     what they are reported as
    frames   timed of each configuration, once its window is full
    device   on a processor a scaled-down shape is played in their place (`scaled_down`)
    path     how passes run: "eager", "compiled", or "auto" (`paths`)
    Returns  the JSON names of docs/eval.md; full_size holds what is counted, whatever was played

        Raises WorldError where the weights alone have no room on the GPU.
    """
    device, _ = runtime.pick_device(device)
    is_scaled_down = device.type == "cpu"
    shapes = [scaled_down(config) for config in configs] if is_scaled_down else list(configs)
    start = time.perf_counter()
    weights = random_world(replace(shapes[0], window=shapes[0].frames_per_chunk, sink=0), device=device.type)
    load_ms = 1000 * (time.perf_counter() - start)
    rates = ceilings(device, weights.dtype)
    runtime.release_memory(device)  # or what was freed would seem to be taken
    costs = _by_window(shapes, lambda shape: cost_of(shape, weights.dtype))
    runs = list(product(zip(shapes, costs), paths(path, device)))
    made = [_configuration(shape, weights, each, cost, rates, frames)
            for (shape, cost), each in track(runs, desc=f"bench {name}", unit="configuration")]
    info = {key: weights.info[key] for key in ("device", "device_name", "dtype", "seed")}
    return {"world": name, **info, "is_random": True, "is_scaled_down": is_scaled_down,
            "shape": _sizes(shapes[0]),
            "world_fps": weights.fps, "load_ms": load_ms, **rates, "configs": made,
            "full_size": full_size(configs, None if is_scaled_down else rates),
            "peak_memory_mib": max([runtime.peak_memory_mib(device),
                                    *(x.get("peak_memory_mib", 0) for x in made)])}


def scaled_down(config):
    """The same chunk, window and steps at a size that a processor plays: its speed says nothing of the full
    one's.
    """
    sizes = replace(config.transformer, dim=256, ffn_dim=1536, num_heads=2, num_layers=6)
    return replace(config, transformer=sizes, frame_size=(96, 160))


def full_size(configs, rates=None):
    """What is counted of configurations at their own size, in bfloat16, and the frames a second that it
    allows.

    rates    `ceilings` of this machine; None leaves bound_fps to the data sheets
    Returns  {"assumed_rates", "configs": [{...}]}; tflop_per_frame by part, gigabytes (10^9) that a pass
             reads, memory in MiB by part, bound_fps by machine
    """
    machines = dict(DATA_SHEETS)
    if rates is not None:
        machines["this machine"] = _bounds(rates)
    counted = zip(configs, _by_window(configs, cost_of), _by_window(configs, memory_of))
    return {"assumed_rates": DATA_SHEETS, "configs": [_counted(*each, machines) for each in counted]}


def _by_window(configs, count):
    """count(config) of each; one chunk and window is counted once, because steps change nothing."""
    found = {}
    for config in configs:
        key = config.frames_per_chunk, config.window
        found[key] = found.get(key) or count(config)
    return [found[config.frames_per_chunk, config.window] for config in configs]


def _counted(config, cost, memory, machines):
    parts = {part: flops / cost.frames / 1e12 for part, flops in cost.passes(config.steps).items()}
    parts["decode"] = cost.latents * cost.decode / cost.frames / 1e12
    return _named(config) | {
        "tflop_per_frame": parts | {"all": sum(parts.values())},
        "pass_reads_gb": {"weights": cost.weight_bytes / 1e9, "keys_values": cost.kv_bytes / 1e9},
        "memory_mib": {part: num_bytes / 2**20 for part, num_bytes in memory.items()} | {
            "all": sum(memory.values()) / 2**20},
        "bound_fps": {name: cost.bound_fps(config.steps, **rates) for name, rates in machines.items()}}


def _configuration(config, weights, path, cost, rates, frames):
    """One entry of configs: its figures, or why it cannot be played here."""
    held = sum(x.nbytes for part in (weights.transformer, weights.codec) for x in part.state_dict().values())
    try:
        check_room(config, weights.device, held=held)
        world = same_networks(weights, config)
        if path == "compiled":
            world.compile(wait=True)
    except WorldError as problem:
        log.warning("%s", problem)
        return _named(config) | {"path": path, "problem": str(problem)}
    runtime.forget_peak_memory(weights.device)
    figures = _named(config) | {"path": path} | _figures(world, cost, rates, frames)
    del world
    runtime.release_memory(weights.device)
    return figures


def _figures(world, cost, rates, frames):
    """What is measured of a world, each in a run of its own with the window full, and its bound."""
    size, steps = world.config.frames_per_chunk, world.info["steps"]
    first_frame_ms(world, Action())  # kernels are found and memory is taken at the first call
    first_ms = first_frame_ms(world, Action())
    with _without_decoding(world):
        _play(world, math.ceil(world.config.window / size))
    _play(world, _WARM_UP)
    latency, ready = np.array(_play(world, 1 + math.ceil(frames / cost.frames))).T
    speed = frame_figures(frame_seconds(ready, cost.frames))
    del speed["frame_ms_at"]  # the window is full from the first one on
    probed = math.ceil(_PROBED / size)
    with _without_decoding(world):
        bare = frame_figures(frame_seconds(np.array(_play(world, 1 + probed))[:, 1], cost.frames))
    passes = _passes(world, cost, rates, probed)
    bound = cost.bound_fps(steps, **_bounds(rates))
    return {"attention": world.info["attention"], "frames": len(ready) - cost.frames, **speed,
            "fps_without_decode": bare["fps"], "first_frame_ms": first_ms,
            "latency_ms": percentiles(1000 * latency[::cost.frames]), **passes, "bound_fps": bound,
            "bound_share": speed["fps"] / bound, "peak_memory_mib": runtime.peak_memory_mib(world.device)}


def _passes(world, cost, rates, num_chunks):
    """{passes_per_frame, pass_ms, pass_split_ms, decode_ms, gflops, ceiling_gflops}; context passes count
    too.
    """
    times, steps = {}, world.info["steps"]
    with timed(world.transformer, PASSES, world.device, times, "pass"), \
            timed(world.codec, ("decode_next",), world.device, times, "decode"):
        num_frames = len(_play(world, num_chunks))
    pass_ms, num_passes = float(np.median(times["pass"])), len(times["pass"])
    split = dict.fromkeys((*PARTS, "rest"), 0.0)
    with _without_decoding(world):
        for name, ms in runtime.work_ms(world.device, lambda: _play(world, num_chunks)).items():
            split[part_of(name)] += ms / num_passes
    split["rest"] = max(0.0, pass_ms - split["linear"] - split["attention"])  # gaps between kernels included
    flops = {part: done / (steps + 1) for part, done in cost.passes(steps).items()}
    least_ms = sum(flops[part] / rates[rate] / 1e9 for part, rate in (
        ("linear", "matmul_tflops"), ("attention", "attention_tflops")))
    return {"passes_per_frame": num_passes / num_frames, "pass_ms": pass_ms, "pass_split_ms": split,
            "decode_ms": float(np.median(times["decode"])), "gflops": sum(flops.values()) / pass_ms / 1e6,
            "ceiling_gflops": sum(flops.values()) / least_ms / 1e6}


def _play(world, num_chunks):
    """`played` of the explorer's actions, as a list."""
    vectors = PLAYERS["explorer"](world.action_space, num_chunks, 0)
    return list(played(world, map(world.action_space.decode, vectors)))


@contextmanager
def _without_decoding(world):
    """Inside, the world shows one and the same picture, and the decoder rests."""
    shape = 1, world.codec.frames_per_latent, 3, *world.frame_size
    still = torch.rand(shape, device=world.device, dtype=world.dtype)
    with wrapped(world.codec, ("decode_next",), lambda method: lambda latent, state=None: (still, state)):
        yield


def _named(config):
    mode = "frame-wise" if config.frames_per_chunk == 1 else "chunk-wise"
    return {"mode": mode, "frames_per_chunk": config.frames_per_chunk, "window": config.window,
            "steps": config.steps}


def _sizes(config):
    sizes, (height, width) = config.transformer, config.frame_size
    return {"frame_size": [height, width], "tokens_per_frame": sizes.num_tokens(*config.latent_shape[1:]),
            **{name: getattr(sizes, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers")}}


def _bounds(rates):
    return {"matmul_tflops": rates["matmul_tflops"], "attention_tflops": rates["attention_tflops"],
            "memory_gbs": rates["copy_gbs"]}


# For people -------------------------------------------------------------------------------------------------


def table(figures):
    """The figures of `bench_random` as a page."""
    shape, lines = figures["shape"], []
    height, width = shape["frame_size"]
    sizes = (f"{width}x{height} pixels, {shape['tokens_per_frame']} tokens a latent, {shape['num_layers']} "
             "blocks of "
             f"width {shape['dim']}")
    scaled = "SCALED DOWN for a processor, no figure of the full size: " if figures["is_scaled_down"] else ""
    lines += [f"{figures['world']} with random weights, {scaled}{sizes}",
              f"{figures['device_name']}, {figures['dtype']}; of this run: copy {figures['copy_gbs']:.3g} "
              "GB/s, matrices "
              f"{figures['matmul_tflops']:.3g}, attention {figures['attention_tflops']:.3g} TFLOP/s",
              *(f"attention over {tokens} tokens: {_rates(rates)}"
                for tokens, rates in figures["attention_tflops_at"].items()), ""]
    rows = [("", "window", "steps", "path", "fps", "no decode", "first ms", "pass ms", "linear", "attention",
             "rest",
             "decode ms", "TFLOP/s", "of", "bound fps", "share", "peak MiB")]
    rows += [_measured_row(entry) for entry in figures["configs"]]
    lines += [*_columns(rows), "", "Counted at full size in bfloat16, the window full; the bounds of named "
                                   "machines are "
              "assumptions from their", "data sheets, and no measurement:", ""]
    full = figures["full_size"]["configs"]
    machines = list(full[0]["bound_fps"])
    rows = [("", "window", "steps", "TFLOP/frame", "linear", "attention", "decode", "weights GB/pass",
             "K/V GB/pass",
             "memory MiB", *(f"fps {name}" for name in machines))]
    rows += [(entry["mode"], entry["window"], entry["steps"],
              *(f"{entry['tflop_per_frame'][part]:.2f}" for part in (
        "all", "linear", "attention", "decode")), *(f"{x:.2f}" for x in entry["pass_reads_gb"].values()),
        f"{entry['memory_mib']['all']:.0f}", *(f"{entry['bound_fps'][name]:.1f}" for name in machines))
             for entry in full]
    return "\n".join([*lines, *_columns(rows)])


def _rates(rates):
    return ", ".join(f"{name} {rate:.3g}" if isinstance(rate, float) else f"{name} out ({rate})"
                     for name, rate in rates.items())


def _measured_row(entry):
    start = entry["mode"], entry["window"], entry["steps"], entry["path"]
    if "problem" in entry:
        return *start, entry["problem"]
    numbers = (entry["fps"], entry["fps_without_decode"], entry["first_frame_ms"], entry["pass_ms"],
               *entry["pass_split_ms"].values(), entry["decode_ms"])
    return (*start, *(f"{x:.1f}" for x in numbers), f"{entry['gflops'] / 1000:.3g}",
            f"{entry['ceiling_gflops'] / 1000:.3g}", f"{entry['bound_fps']:.1f}",
            f"{entry['bound_share']:.0%}", f"{entry['peak_memory_mib']:.0f}")


def _columns(rows):
    """Rows of texts and numbers as lines, the first column at the left and the others at the right."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows if len(row) == len(rows[0])) for i in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) if i else cell.ljust(width)
                      for i, (cell, width) in enumerate(zip(row, widths)))
            for row in rows]
