"""How fast a world plays while busy loops use every core, held against its fair share of them."""
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import numpy as np

from worldplay.cores import allowed_cores
from worldplay.envs.players import PLAYERS
from worldplay.eval import latency

FRAMES = 100
# It says that it runs, and ends by itself when its input is closed, however this process ends.
_LOOP = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("running", flush=True)
while True: pass
"""


def bench_loaded(world, quiet, *, track=lambda iterable, **_: iterable):
    """Figures of a world played as by `latency.bench`, beside as many busy loops as there are allowed cores.

    quiet  figures of latency.bench of the same world, made just before
    Returns dict: busy_loops, frames, fps, frame_ms, latency_ms, threads (those of the last step), and

    fair_share  n / (n + k) for n cores and k loops: the part of the machine that an even division of
                processor time gives to a program of n threads, here 1/2
    fps_ratio   fps over that of `quiet`
    fair_ratio  fps_ratio over fair_share: 1.0 loses nothing but the time that the loops are due
    """
    cores = allowed_cores()
    per_step = world.config.frames_per_chunk * world.codec.frames_per_latent
    vectors = PLAYERS["explorer"](world.action_space, 1 + max(2, FRAMES // per_step), 0)
    actions = [world.action_space.decode(vector) for vector in vectors]
    latency.first_frame_ms(world, actions[0])
    with busy_loops(cores):
        times = list(track(latency.played(world, actions[1:]), desc=f"bench {world.name}, loaded",
                           total=FRAMES, unit="frame"))
    delays, ready = np.array(times).T
    figures = latency.frame_figures(latency.frame_seconds(ready, per_step))
    fair, ratio = cores / (cores + cores), figures["fps"] / quiet["fps"]
    return {"busy_loops": cores, "frames": len(ready), "fps": figures["fps"], "frame_ms": figures["frame_ms"],
            "latency_ms": latency.percentiles(1000 * delays), "threads": world.info.get("threads"),
            "fair_share": fair, "fps_ratio": ratio, "fair_ratio": ratio / fair}


@contextmanager
def busy_loops(number):
    """Inside, so many processes each keep a core busy."""
    with ExitStack() as stack:
        for _ in range(number):
            process = stack.enter_context(subprocess.Popen(
                [sys.executable, "-c", _LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            process.stdout.readline()
        yield
