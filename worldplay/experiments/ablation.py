"""Which initialisation a few-step student needs: the same DMD after each, measured against the real game."""
import logging
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from worldplay.engine.cost import flop_counter
from worldplay.engine.loading import load_world
from worldplay.eval.sources import Game
from worldplay.eval.streams import Material
from worldplay.experiments.ablation_report import write_report
from worldplay.experiments.job import Job
from worldplay.experiments.paired import measure
from worldplay.files import read_json, replacing
from worldplay.log import track
from worldplay.models.transformer import Transformer
from worldplay.train.recipe import ImageRecipe
from worldplay.train.stage_table import STAGES, Ingredients
from worldplay.train.stages.draws import Draws
from worldplay.train.state import load_state
from worldplay.train.trajectories import make_trajectories, num_held_out

log = logging.getLogger(__name__)

PLAYER = "explorer"
STEPS = (1, 2, 4)
# initialisation -> the stage that makes it, None: the AR teacher itself
INITS = {"bidirectional-ode": "causal_ode", "none": None, "causal-ode": "causal_ode",
         "causal-cd": "causal_cd", "chunk-wise-ode": "causal_ode"}
_SHARED = ("data", "latents.npy", "streamed", "codec", "bidirectional", "teacher_forcing")
_ROUNDS = 10  # of the latency measurement, all worlds in turn


@dataclass(frozen=True, kw_only=True)
class AblationRecipe(ImageRecipe):
    """A recipe whose chain is run once for every initialisation and number of sampling steps."""
    chunk: int = 4
    """Frames a chunk of the chunk-wise student."""
    num_streams: int = 16
    """Real streams on held-out seeds that every world is measured on."""
    num_targets: int = 32
    """Frames of each stream to predict; every chunk-th counts, right after a real frame for all worlds."""
    horizon: int = 64
    """Frames of free play of each stream."""

    def variant(self, init, steps=None):
        """The recipe of one run: an initialisation in INITS, and DMD to so many sampling steps or none."""
        chunk = self.chunk if init == "chunk-wise-ode" else 1
        teacher = "bidirectional" if init == "bidirectional-ode" else "causal"
        made_by = INITS[init]
        recipe = replace(
            self, name=init if steps is None else f"{init}-{steps}", student_steps=steps or 4,
            context=replace(self.context, frames_per_chunk=chunk),
            causal_ode=replace(self.causal_ode, teacher=teacher),
            causal_ode_loop=replace(self.causal_ode_loop, share=float(made_by == "causal_ode")),
            causal_cd_loop=replace(self.causal_cd_loop, share=float(made_by == "causal_cd")),
            dmd_loop=replace(self.dmd_loop, share=float(steps is not None)))
        recipe.check()
        return recipe


def cells():
    """[(initialisation, sampling steps)] of the grid."""
    return [(init, steps) for init in INITS for steps in STEPS if init != "chunk-wise-ode" or steps == 4]


class Ablation(Job):
    """All runs in one folder, and the report of them.

    OUT/shared          data, latents, codec, bidirectional network and AR teacher, made once
    OUT/INIT            what an initialisation needs beside them, and the world it makes
    OUT/INIT-STEPS      the world after DMD, and figures.npz: what it made of the real streams
    OUT/RESULTS.md ...  the table, its numbers as JSON and its picture
    """

    def __init__(self, recipe, folder, **options):
        """options: of Job."""
        super().__init__(recipe, folder, **options)
        self.source, self.streams = None, None
        for init, steps in cells():
            recipe.variant(init, steps)  # refuses now what would end a part hours later

    def parts(self):
        """As Job.parts: the shared stages, then every world and its figures."""
        todo = [(self._train, init, None) for init in INITS]
        todo += [(part, *cell) for cell in cells() for part in (self._train, self._measure)]
        return [(init + (f", {steps} steps" if steps else ""), partial(part, init, steps))
                for part, init, steps in todo]

    def finish(self):
        """Write the table, its numbers and its picture."""
        write_report(self.folder, self._collect_figures(), self._costs(), self._latencies(), self._scale())

    # The parts; each returns whether it is done

    def _train(self, init, steps):
        folder, recipe = self._place(init, steps), self.recipe.variant(init, steps)
        own = self.folder / init
        shared = {part: self.folder / "shared" for part in _SHARED}
        shared |= {part: own for part in ("trajectories", "causal_ode", "causal_cd")}
        if init == "chunk-wise-ode":
            shared["teacher_forcing"] = own
        return self.train(recipe, folder, shared=shared)

    def _measure(self, init, steps):
        path = self._place(init, steps) / "figures.npz"
        if not path.exists():
            recipe = self.recipe
            if self.streams is None:
                self.source = Game(recipe.env)
                self.streams = self.source.streams(PLAYER, recipe.num_streams, context=_context(recipe),
                                                   horizon=recipe.horizon)
            with track(desc=f"measure {path.parent.name}", unit="pass") as bar:
                material = Material(world=self._world(init, steps), source=self.source,
                                    streams={PLAYER: self.streams}, num_targets=recipe.num_targets,
                                    num_dreams=recipe.num_streams, walks=(), advance=bar.update)
                rows = measure(material, PLAYER, recipe.chunk)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **rows)
        return True

    # What the report is made of

    def _collect_figures(self):
        return {cell: dict(np.load(self._place(*cell) / "figures.npz")) for cell in cells()}

    def _costs(self):
        """What `write_report` takes as costs."""
        costs = {}
        for init, stage in INITS.items():
            if stage is None:
                costs[init] = {"flops": 0, "trajectory_share": 0.0, "seconds": 0.0, "bytes": 0}
                continue
            folder, recipe = self.folder / init, self.recipe.variant(init)
            seconds = load_state(folder / stage / "state", {}, {}, self.processes)["spent"]
            seconds += read_json(folder / "run.json")["spent"].get("trajectories", 0.0)
            size = sum(path.stat().st_size for path in (folder / "trajectories").rglob("*.npy"))
            flops, making = stage_flops(recipe, stage, self._world(init, 4).config)
            costs[init] = {"flops": flops + making, "trajectory_share": making / (flops + making),
                           "seconds": seconds, "bytes": size}
        return costs

    def _latencies(self):
        """{cell: {first_ms, later_ms}}: from the action to the first frame it causes, at the start and
        afterwards.

        The least of several rounds in which the worlds take turns: what else the machine does only adds.
        """
        worlds, times = {cell: self._world(*cell) for cell in cells()}, {}
        for _ in range(_ROUNDS):
            for cell, world in worlds.items():
                world.reset()
                action = world.action_space.decode(np.zeros(world.action_space.num_channels, np.float32))
                for name in ("first_ms", "later_ms", "later_ms"):
                    start, step = time.perf_counter(), world.step(action)
                    next(step)
                    milliseconds = 1000 * (time.perf_counter() - start)
                    times.setdefault(cell, {}).setdefault(name, []).append(milliseconds)
                    list(step)
        return {cell: {name: float(min(values)) for name, values in of_cell.items()}
                for cell, of_cell in times.items()}

    def _scale(self):
        """What the table has to say about its size."""
        recipe, turns = self.recipe, self.recipe.dmd.critic_turns + 1
        loops = {name: recipe.loop(name) for name in recipe.stages if name != "decoder"}
        model = self._world(*cells()[0])
        return {"env": recipe.env, "device": model.info["device_name"], "dtype": model.info["dtype"],
                "parameters": sum(p.numel() for p in model.transformer.parameters()),
                "length": recipe.length, "num_streams": recipe.num_streams, "horizon": recipe.horizon,
                "num_trajectories": recipe.num_trajectories, "chunk": recipe.chunk, "seed": self.seed,
                "steps": {name: loop.steps for name, loop in loops.items()},
                "batch": {name: loop.batch for name, loop in loops.items()},
                "student_updates": -(-loops["dmd"].steps // turns)}

    def _place(self, init, steps):
        return self.folder / (init if steps is None else f"{init}-{steps}")

    def _world(self, init, steps):
        return load_world(self._place(init, steps), device=self.device.type, steps=steps)


def stage_flops(recipe, stage, config, num_steps=8):
    """(Floating-point operations of stage `stage` of a recipe, those that make its trajectories).

    config     WorldConfig of the world it makes, for its sizes
    num_steps  steps that are counted, on one sample each, and taken for all; weights and data do not matter
    """
    shape = (1, recipe.length, *config.latent_shape)
    batch = {"latents": torch.zeros(shape),
             "actions": torch.zeros(*shape[:2], config.transformer.action_channels),
             "columns": torch.zeros(shape[:2], dtype=torch.float64)}
    network, making, loop = Transformer(config.transformer), 0, recipe.loop(stage)
    weights = network.state_dict()
    made = STAGES[stage].build(Ingredients(recipe=recipe, sizes=config.transformer,
                                           weights=lambda *names: weights))
    if STAGES[stage].data == "trajectories":
        with flop_counter() as counter:
            batch["trajectories"] = make_trajectories(recipe, network, batch, batch["latents"])
        making = counter.get_total_flops() * (recipe.num_trajectories + num_held_out(recipe))

    def call(role, function, *args, **kwargs):
        return function(made.models[role], *args, **kwargs)
    with flop_counter() as counter:
        for step in range(num_steps):
            made.loss(made.turn(step), batch, Draws(0, step, [step]), call)[0].backward()
    return counter.get_total_flops() * loop.batch * loop.steps // num_steps, making


def _context(recipe):
    """Real frames before the ones to predict: the window, in whole chunks."""
    return -(-recipe.context.window // recipe.chunk) * recipe.chunk
