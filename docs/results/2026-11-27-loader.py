"""Batches a second that the loader gives, and that the trainer takes, at doom-maze's sizes: lines of JSON.

    python docs/results/2026-11-27-loader.py [FRAMES [SECONDS]]

    python docs/results/2026-11-27-loader.py videos FOLDER [NAME=VALUE...]

The second one reads a LeRobot folder twice (options of LeRobotFolder.open), and encodes as many frames by an
untrained codec of doom-maze: frames a second, the better pass.

FRAMES raw frames and their latents are written to a folder and read as a run reads them, by memory-mapped
arrays: once as they come, from the system's memory, and once with the files' pages dropped from it before
every batch, so that each byte comes from the disk, as of a data set that is larger than the memory.
"""
import json
import mmap
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import train_world
from worldplay import runtime
from worldplay.data.lerobot import LeRobotFolder
from worldplay.envs import open_env
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.transformer import Transformer
from worldplay.train.image_latents import FrameEncoder
from worldplay.train.processes import Processes
from worldplay.train.stage_table import STAGES, Ingredients
from worldplay.train.stages.draws import Draws
from worldplay.train.trainer import Trainer
from worldplay.train.windows import FrameBatches, LatentWindows

OF_VIDEOS = sys.argv[1:2] == ["videos"]
FRAMES = int(sys.argv[1]) if len(sys.argv) > 1 and not OF_VIDEOS else 64_000
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 and not OF_VIDEOS else 10.0


def stored(folder, name, dtype, shape):
    """A memory-mapped array of that many random rows, on the disk."""
    path, rng = Path(folder, f"{name}.npy"), np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, "w+", dtype, (FRAMES, *shape))
    block = rng.integers(0, 200, (1000, *shape)).astype(dtype)
    for start in range(0, FRAMES, len(block)):
        array[start:start + len(block)] = block[:FRAMES - start]
    array.flush()
    return np.load(path, mmap_mode="r"), path


def rate(act, seconds):
    """Calls a second, after one that does not count."""
    act()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return len(times) / sum(times)


def measure(name, recipe, sizes, data, array, path):
    """Prints one stage's row; data gives its batches out of `array`, the file `path`."""
    device = torch.device("cpu")
    loop = replace(recipe.loop(name), steps=1_000_000)
    stage = STAGES[name].build(Ingredients(recipe=recipe, sizes=sizes, codec=None,
                                           weights=lambda *names: Transformer(sizes).state_dict()))
    trainer = Trainer(stage, data, loop, tempfile.mkdtemp(), None, Processes(device),
                      runtime.pick_dtype(device)[0])
    step = [0]

    def load():
        step[0] += 1
        return data.batch(Draws(0, step[0], range(loop.batch)))

    def cold():
        """Seconds of a batch all of whose bytes come from the disk."""
        array._mmap.madvise(mmap.MADV_DONTNEED)  # what is mapped would not be dropped
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        load()
        return time.perf_counter() - start
    gives = rate(load, SECONDS / 5)
    colds, end = [], time.perf_counter() + SECONDS / 2
    while time.perf_counter() < end:
        colds.append(cold())
    takes = rate(trainer.train_step, SECONDS)
    from_disk = len(colds) / sum(colds)
    print(json.dumps({"stage": name, "batch": loop.batch, "trainer_takes": round(takes, 2),
                      "loader_gives": round(gives, 1), "of_what_is_taken": round(gives / takes),
                      "from_disk": round(from_disk, 1), "of_what_is_taken_from_disk":
                      round(from_disk / takes, 1), "mib": path.stat().st_size >> 20}), flush=True)


def videos(folder, **options):
    """Prints the row of a data set."""
    device = torch.device("cpu")
    codec = ImageCodec(train_world.doom_maze().codec.model).eval().to(memory_format=torch.channels_last)
    encode = FrameEncoder(codec, device, runtime.pick_dtype(device)[0])
    rates = {"reads": 0.0, "encodes": 0.0}
    for _ in range(2):
        start, num, first = time.perf_counter(), 0, None
        for rollout in LeRobotFolder.open(folder, **options).rollouts():
            num, first = num + len(rollout.frames), rollout.frames[:64] if first is None else first
        rates["reads"] = max(rates["reads"], num / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in range(10):
            encode(first)
        rates["encodes"] = max(rates["encodes"], 10 * len(first) / (time.perf_counter() - start))
    print(json.dumps({"folder": folder, "frames": num, **{name: round(x) for name, x in rates.items()}}))


def main():
    if OF_VIDEOS:
        return videos(sys.argv[2], **dict(each.split("=", 1) for each in sys.argv[3:]))
    recipe = train_world.doom_maze()
    world = open_env(recipe.env)
    space, (height, width) = world.action_space, world.frame_size
    starts = np.arange(0, FRAMES - 499, 500)
    episodes = np.stack([starts, np.full_like(starts, 500), np.arange(len(starts))], axis=1)
    train, held_out = episodes[1:], episodes[:1]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        frames, path = stored(folder, "frames", np.uint8, (height, width, 3))
        measure("codec", recipe, recipe.network(space), FrameBatches(frames, train, held_out),
                frames, path)
        latents, path = stored(folder, "latents", np.float16, (8, height // 8, width // 8))
        actions = np.zeros((FRAMES, space.num_channels), np.float32)
        windows = LatentWindows(latents, actions, train, held_out, recipe.length, space,
                                recipe.columns_per_degree)
        measure("teacher_forcing", recipe, recipe.network(space), windows, latents, path)


if __name__ == "__main__":
    main()
