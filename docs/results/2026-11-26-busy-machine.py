"""A row of 2026-11-26-busy-machine.md: play or a training step beside 0 to 3 busy loops, as a line of JSON.

    OMP_NUM_THREADS=2 GOMP_SPINCOUNT=10000 \
        python docs/results/2026-11-26-busy-machine.py play|train [SECONDS [LOOPS]]

ADAPT=1: threads as a window adapts them. CHOOSE=1: as eval, scripts and training choose them, beside each
number of loops anew.
"""
import json
import os
import sys
import tempfile
import time

import numpy as np
import torch

import train_world
from worldplay import runtime
from worldplay.cores import OtherPrograms
from worldplay.engine.loading import load_world
from worldplay.engine.threads import choose_threads
from worldplay.envs.players import PLAYERS
from worldplay.eval.busy import busy_loops
from worldplay.models.transformer import Transformer
from worldplay.train.processes import Processes
from worldplay.train.stage_table import STAGES, Ingredients
from worldplay.train.trainer import Trainer

SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
LOOPS = int(sys.argv[3]) if len(sys.argv) > 3 else 3


class Latents:
    """Random sequences of the maze's size."""

    def batch(self, draws, held_out=False):
        return {"latents": draws.normal("x", 20, 8, 15, 20), "actions": draws.normal("a", 20, 5).clamp(-1, 1),
                "columns": torch.zeros(len(draws.indices), 20, dtype=torch.float64)}


def playing():
    """A function that makes the next frame of the default world, as eval and headless play do."""
    world = load_world(device="cpu")
    if os.environ.get("ADAPT"):  # as a window does
        world.threads.adapt()
    vectors = PLAYERS["explorer"](world.action_space, 500, 0)
    actions = iter([world.action_space.decode(vector) for vector in vectors] * 20)
    world.reset(seed=0)
    return lambda: list(world.step(next(actions)))


def training():
    """A function that makes a step of teacher_forcing of doom-maze, blocks run as they are."""
    recipe, device = train_world.doom_maze(), torch.device("cpu")
    from worldplay.envs import open_env
    sizes = recipe.network(open_env(recipe.env).action_space)
    stage = STAGES["teacher_forcing"].build(Ingredients(
        recipe=recipe, sizes=sizes, codec=None, weights=lambda *names: Transformer(sizes).state_dict()))
    trainer = Trainer(stage, Latents(), recipe.teacher_forcing_loop, tempfile.mkdtemp(), None,
                      Processes(device), runtime.pick_dtype(device)[0])
    trainer.config = trainer.config.__class__(**{**vars(trainer.config), "steps": 1000})
    return trainer.train_step


def median_ms(act, seconds):
    """Median time of a call over so many seconds."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 2:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return round(1000 * float(np.median(times)), 1), round(len(times) / sum(times), 3)


def choose():
    """By what others use for a second, about as long as torch takes to load."""
    others = OtherPrograms()
    time.sleep(1.0)
    return choose_threads(torch.device("cpu"), others)


names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "ADAPT", "CHOOSE")
row = {name: os.environ[name] for name in names if name in os.environ}
act = {"play": playing, "train": training}[sys.argv[1]]()
median_ms(act, 1.0)
row[sys.argv[1]], row["threads"] = [], []
for k in range(LOOPS + 1):
    with busy_loops(k):
        if os.environ.get("CHOOSE"):
            row["threads"].append(choose())
        row[sys.argv[1]].append(median_ms(act, SECONDS))
print(json.dumps(row), flush=True)
