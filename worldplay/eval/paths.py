"""What compiled code gains: frames made as written and by code in turn, their times and how they differ."""
import logging
import time

import numpy as np

from worldplay.engine.dream import PATHS
from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.eval.latency import percentiles
from worldplay.eval.sources import open_source
from worldplay.eval.statistics import psnr

log = logging.getLogger(__name__)

FRAMES = 300
_STREAMS, _HORIZON = 24, 8  # held-out streams, and frames played freely from each
_WARM_UP = 20


def compare_paths(world, *, frames=FRAMES, track=lambda iterable, **_: iterable):
    """Figures of a world with an image codec that has compiled code, played by both paths in the same run.

    frames   played by each path, frame about, so that what else the machine does meets both alike; with as
             many threads as torch began with, whatever other programs do
    Returns  dict: eager and compiled, each {frame_ms, latency_ms} with p50, p95 and p99; ratio, of the median
             frame times, compiled to eager; held_out (`held_out`), None where its game is not installed
    """
    path = world.info["path"]
    world.threads.fix(world.info.get("max_threads"))
    try:
        figures = _times(world, frames, track)
        ratio = figures["compiled"]["frame_ms"]["p50"] / figures["eager"]["frame_ms"]["p50"]
        return {**figures, "ratio": ratio, "held_out": held_out(world)}
    finally:
        world.take_path(path)


def held_out(world):
    """How near both paths come to real frames of play that no trainer sees, played freely from real starts.

    Returns  {streams, frames, eager_db, compiled_db, difference_db, between_db}: PSNR to the real frames of
             either path, its largest difference over the frames of a horizon, and PSNR between the two paths;
             None where the world's game is not installed
    """
    try:
        source = open_source(world.config.env)
    except WorldError as error:
        log.info("no comparison with real frames: %s", error)
        return None
    try:
        streams = source.streams(source.players[0], _STREAMS, context=world.config.window, horizon=_HORIZON)
    finally:
        source.close()
    decode, context = world.action_space.decode, streams.context
    streams = streams.encoded_for(source.action_space, world.action_space)
    made = {path: np.empty_like(streams.frames[:, context:]) for path in PATHS}
    for i, (real, vectors) in enumerate(zip(streams.frames, streams.actions)):
        actions = [decode(vector) for vector in vectors]
        world.reset(frames=real[:context], actions=actions[:context])
        state = world.snapshot()
        for path in PATHS:
            world.restore(state)
            world.take_path(path)
            made[path][i] = list(world.walk(actions[context:]))
    real = streams.frames[:, context:]
    eager, compiled = (psnr(made[path], real).mean(axis=0) for path in PATHS)
    return {"streams": len(real), "frames": real.shape[1], "eager_db": float(eager.mean()),
            "compiled_db": float(compiled.mean()), "difference_db": float(np.abs(compiled - eager).max()),
            "between_db": float(psnr(made["eager"], made["compiled"]).mean())}


def _times(world, frames, track):
    vectors = PLAYERS["explorer"](world.action_space, 1 + _WARM_UP + frames, 0)
    actions = [world.action_space.decode(vector) for vector in vectors[1:]]
    world.reset()
    states = {path: world.snapshot() for path in PATHS}
    seconds = {path: [] for path in PATHS}
    for action in track(actions, desc=f"compare {world.name}", unit="frame"):
        for path in PATHS:
            world.state = states[path]  # not a copy, whose memory would be another each time
            world.take_path(path)
            start = time.perf_counter()
            steps = world.step(action)
            next(steps)
            ready = time.perf_counter()
            list(steps)
            seconds[path].append((time.perf_counter() - start, ready - start))
    return {path: {name: percentiles(1000 * np.array(times)[_WARM_UP:, column])
                   for column, name in enumerate(("frame_ms", "latency_ms"))}
            for path, times in seconds.items()}
