"""How fast a world plays for agents: frames a second by the number of plays in one batch."""
import time
from importlib.util import find_spec

import numpy as np

from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.eval.latency import percentiles

_INFO = ("device", "device_name", "dtype", "steps", "window", "max_threads")
_EACH = 10  # steps of one size before the next one's turn


def bench_batches(world, sizes, *, frames, track=lambda iterable, **_: iterable):
    """Figures of a DreamWorld played in batches of these sizes, as Gymnasium's `make_vec` plays it.

    sizes    numbers of plays in a batch
    frames   of each play, the window full; what it takes to fill the window is not counted
    Returns  {world, device ..., frames, batches: {size: {fps, step_ms with p50, p95 and p99}}}: fps counts
             the frames of all plays, step_ms is the time of a step of all, from actions to frames

    Sizes take turns of a few steps, so that what else the machine does meets all alike.

        Raises ValueError for a size below 1, WorldError("not_found") for a world that makes several frames at
        once and without Gymnasium.
    """
    if not find_spec("gymnasium"):  # not needed to measure a window
        raise WorldError("not_found", "--batch: Gymnasium is not installed (pip install gymnasium)")
    from worldplay.envs.gymnasium import DreamVectorEnv
    if min(sizes) < 1:
        raise ValueError(f"--batch {min(sizes)}: expected 1 or more plays")
    envs = {size: DreamVectorEnv(world.batch(size)) for size in dict.fromkeys(sizes)}
    filling = world.config.window + 2
    vectors = {size: np.stack([PLAYERS["explorer"](world.action_space, filling + frames, seed)
                               for seed in range(size)], axis=1) for size in envs}  # float32 [steps size a]
    for size, env in envs.items():
        env.reset(seed=0)
        for each in vectors[size][:filling]:
            env.step(each)
    seconds = {size: [] for size in envs}
    for turn in track(range(filling, filling + frames, _EACH), desc=f"bench {world.name}", unit="turn"):
        for size, env in envs.items():
            for each in vectors[size][turn:min(turn + _EACH, filling + frames)]:
                start = time.perf_counter()
                env.step(each)
                seconds[size].append(time.perf_counter() - start)
    return {"world": world.name, **{name: world.info[name] for name in _INFO if name in world.info},
            "world_fps": world.fps, "frames": frames,
            "batches": {str(size): {"fps": size * frames / sum(times),
                                    "step_ms": percentiles(1000 * np.array(times))}
                        for size, times in seconds.items()}}
