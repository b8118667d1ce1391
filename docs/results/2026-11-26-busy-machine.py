"""A row of 2026-11-26-busy-machine.md: play or a training step beside 0 to 3 busy loops, as a line of JSON.

    OMP_NUM_THREADS=2 GOMP_SPINCOUNT=10000 \
        python docs/results/2026-11-26-busy-machine.py play|train [SECONDS [LOOPS]]

    python docs/results/2026-11-26-busy-machine.py turns play|train SECONDS SETTING... [LOOPS,LOOPS...]

ADAPT=1: threads as a window adapts them. CHOOSE=1: as eval, scripts and training choose them, beside each
number of loops anew. `turns` measures settings such as "OMP_NUM_THREADS=2 GOMP_SPINCOUNT=10000" in turn, each
in a process of its own that sleeps meanwhile, as often as SECONDS allow: a line of JSON a turn.
"""
import json
import os
import subprocess
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

SECONDS = float(sys.argv[2]) if sys.argv[1] in ("play", "train") and len(sys.argv) > 2 else 3.0
LOOPS = int(sys.argv[3]) if sys.argv[1] in ("play", "train") and len(sys.argv) > 3 else 3


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


def median_ms(act, seconds, least=2):
    """Median time of a call over so many seconds, and calls a second."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < least:
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return round(1000 * float(np.median(times)), 1), round(len(times) / sum(times), 3)


def choose():
    """By what others use for a second, about as long as torch takes to load."""
    others = OtherPrograms()
    time.sleep(1.0)
    return choose_threads(torch.device("cpu"), others)


def row():
    """One setting, that of this process, beside 0 to LOOPS busy loops."""
    act, cells, threads = KINDS[sys.argv[1]](), [], []
    median_ms(act, 1.0)
    for k in range(LOOPS + 1):
        with busy_loops(k):
            if os.environ.get("CHOOSE"):
                threads.append(choose())
            cells.append(median_ms(act, SECONDS))
    names = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "ADAPT", "CHOOSE")
    print(json.dumps({**{name: os.environ[name] for name in names if name in os.environ},
                      sys.argv[1]: cells, "threads": threads}), flush=True)


def one():
    """For `turns`: a cell for every line of input."""
    act = KINDS[sys.argv[2]]()
    act()
    print("ready", flush=True)
    for _ in sys.stdin:
        threads = choose() if os.environ.get("CHOOSE") else torch.get_num_threads()
        print(json.dumps([*median_ms(act, 1.0, least=1), threads]), flush=True)


def turns(kind, seconds, *settings):
    """All settings in turn beside each number of loops, again and again."""
    loops = [int(k) for k in settings[-1].split(",")] if settings[-1].replace(",", "").isdigit() else [0]
    settings = [setting for setting in settings if "=" in setting]
    own = {name: value for name, value in os.environ.items() if "MP_" not in name}
    each = [subprocess.Popen([sys.executable, __file__, "one", kind], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, env=own | dict(part.split("=") for part in words))
            for words in map(str.split, settings)]
    for process in each:
        process.stdout.readline()
    end = time.monotonic() + float(seconds)
    for turn in range(10_000):
        for k in loops:
            with busy_loops(k):
                order = range(len(each)) if turn % 2 else reversed(range(len(each)))
                cells = {}
                for i in order:
                    each[i].stdin.write("\n")
                    each[i].stdin.flush()
                    cells[settings[i]] = json.loads(each[i].stdout.readline())
            print(json.dumps({"turn": turn, "loops": k, **cells}), flush=True)
            if time.monotonic() > end:
                for process in each:
                    process.kill()
                return


KINDS = {"play": playing, "train": training}
if sys.argv[1] == "turns":
    turns(*sys.argv[2:])
elif sys.argv[1] == "one":
    one()
else:
    row()
