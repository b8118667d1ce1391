"""From gameplay to a checkpoint folder: the stages of a recipe in a row, in one time budget, resumable."""
import logging
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from worldplay import runtime
from worldplay.engine.loading import load_world
from worldplay.eval.look import look_of_cache
from worldplay.files import lock, write_json
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.lora import add_adapters, merged_weights
from worldplay.models.transformer import Transformer
from worldplay.train.attention_choice import fastest_attention
from worldplay.train.context_sigma import choose_context_sigma, plan_walks
from worldplay.train.deadline import Deadline
from worldplay.train.gameplay import Gameplay
from worldplay.train.image_latents import ImageLatents
from worldplay.train.metrics import Metrics
from worldplay.train.processes import full_state
from worldplay.train.recipe import ImageRecipe
from worldplay.train.run_log import RunLog
from worldplay.train.stage_table import STAGES, Ingredients
from worldplay.train.stages.draws import INITIAL_WEIGHTS, Draws
from worldplay.train.trainer import Trainer
from worldplay.train.trajectories import trajectory_windows
from worldplay.train.video_latents import VideoLatents
from worldplay.train.windows import FrameBatches
from worldplay.worlds import zoo
from worldplay.worlds.weights import save_weights

log = logging.getLogger(__name__)

_NORM_FRAMES = 256  # by whose latents a codec's are normalised, spread over those it has learnt from
_WORTH_COMPILING = 1800.0  # seconds of training from which on it pays on a processor of two cores


class Chain:
    """One run in a folder; `run` goes on where the last call stopped and leaves a playable world there.

    RUN/run.json           the recipe and the seconds each part took and may take
    RUN/data, RUN/latents  the frame cache and the latents of its frames, or RUN/streamed of a data set whose
                           frames are not all kept; RUN/texts: rows of what they show, in words
    RUN/STAGE/state        what a stage needs to go on
    RUN/{config.json, model.safetensors, ...}   the world so far, renewed with every save

    latents   ImageLatents or VideoLatents, by the kind of the recipe
    networks  name -> network that a stage, or the world before, has made: codec, bidirectional, teacher,
              student
    where     what is going on, for a run that stops with work left
    """

    def __init__(self, recipe, folder, *, processes, dtype, budget=None, deadline=None, data=None,
                 reading=None, keep_frames=None, init_from=None, seed=0, shared=None, path="auto"):
        """processes: worldplay.train.processes.Processes; the folder is the same for all.
        budget: seconds of the whole job, None when every loop has its steps; deadline: the Deadline
        of this call. data, reading, keep_frames: as Gameplay has them. init_from: name or folder of a world
        to go on from: its codec, and its networks where the stage that makes one has no share or begins from
        it. shared: part of the run folder (data, latents.npy, streamed, trajectories, a stage) -> another
        folder that keeps it, for several runs; whoever needs it first makes it there. path: "auto" compiles
        blocks where that is possible and, on a processor, training lasts half an hour or longer; "eager" does
        not.
        """
        self.shared = shared or {}
        self.recipe, self.folder = recipe, Path(folder)
        self.processes, self.device, self.dtype = processes, processes.device, dtype
        self.budget, self.deadline = budget, deadline or Deadline()
        self.seed = seed
        self.init_from = init_from and zoo.find(init_from)
        if self.init_from and self.init_from.resolve() == self.folder.resolve():
            raise ValueError(f"--out {folder}: that is the world to go on from; give another folder")
        kind = ImageLatents if isinstance(recipe, ImageRecipe) else VideoLatents
        self.latents = kind(recipe, self.init_from, self.device)
        self.gameplay = Gameplay(recipe, self.place("data"), self.latents, data=data, reading=reading or {},
                                 keep_frames=keep_frames, seed=seed)
        self.gameplay.check()
        self.compiled, reason = runtime.pick_compile(self.device)
        if path == "eager":
            self.compiled, reason = False, "--path eager"
        elif self.device.type == "cpu" and _planned_seconds(recipe, budget) < _WORTH_COMPILING:
            self.compiled, reason = False, "in less than half an hour compiling takes more than it gives"
        elif self.latents.no_compile():
            self.compiled, reason = False, self.latents.no_compile()
        log.info("blocks are %s (%s)", "compiled" if self.compiled else "run as they are", reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_folder()
        if self.compiled:
            runtime.keep_compiled_code(zoo.user_cache() / "training")
        self.log = RunLog(self.folder, recipe, processes, budget=budget, seed=seed, data=data and str(data),
                          **self.gameplay.reading, keep_frames=keep_frames,
                          init_from=self.init_from and str(self.init_from))
        self.metrics = Metrics(self.folder) if processes.is_first else None
        self.where, self.networks, self.cache, self.windows = "collection", {}, None, None
        self.look = None  # of the world, once something of it is written

    def run(self):
        """True when the world is finished, False when stopped with work left."""
        try:
            if not self.run_stages():
                return False
            if self._context_walk and "context_sigma_scores" not in self.log:
                self.where = "the choice of the context sigma"
                if self.processes.agree(self.deadline.passed(time.monotonic())):
                    return False
                self.log.timed("choose context sigma", self._choose_context_sigma)
            log.info("held-out losses are in %s, pictures beside it", self.folder / "metrics.jsonl")
            return True
        finally:
            self.close()

    def close(self):
        """Finish what is written beside training, and let the folder go."""
        if self.metrics:
            self.metrics.close()
        if self.lock:
            self.lock.close()

    def _take_folder(self):
        """Keep other trainings out of the run folder until `close`, or the end of the process.

            Raises ValueError where one has it.
        """
        self.lock = open(self.folder / "run.lock", "a+b") if self.processes.is_first else None
        if not self.processes.agree(self.lock is None or lock(self.lock)):
            raise ValueError(f"--out {self.folder}: another training is at work there; wait for its end, or "
                             "give another folder")

    def run_stages(self):
        """All of `run` but the choice of the context sigma."""
        self.open_data()
        self._plan_context_walks()
        codec = self.latents.codec()
        if codec is not None:
            self.networks["codec"] = codec
        elif not self._run_stage("codec"):
            return False
        if not self.make_windows():
            return False
        self._choose_attention()
        self.networks |= self.latents.networks(self.cache.action_space)
        stages = [name for name in self.recipe.stages if name != "codec" and self.recipe.loop(name).share]
        return all(self._run_stage(name) for name in stages)

    # What the stages learn from

    @property
    def sizes(self):
        """TransformerConfig of the run's network; None before the data is open."""
        return self.cache and self.recipe.network(self.cache.action_space)

    def open_data(self):
        """Open the frame cache, which is collected or read from the data set first."""
        self.cache = self.log.timed("collect", lambda: self.gameplay.open(self.processes))

    def make_windows(self):
        """Whether the windows of latents are there, or the call's time ended before."""
        codec = self.networks.get("codec")
        self.windows = self.log.timed("encode", lambda: self.latents.windows(self.cache, codec, self))
        if self.windows is None:
            self.where = "encoding"
        return self.windows is not None

    def _data(self, kind):
        """What gives batches of this kind (StageEntry.data); None if the call's time ended before."""
        if kind == "frames":
            return FrameBatches(self.cache.frames, self.cache.split("train"), self.cache.split("held_out"))
        if kind == "windows":
            return self.windows
        self.where = "trajectories"
        teacher = self._weights(self.recipe.causal_ode.teacher_network)
        return self.log.timed("trajectories", lambda: trajectory_windows(self.windows, teacher, self))

    # A stage

    def _run_stage(self, name):
        """Whether the stage is done; its result is among the networks from its start on."""
        if name not in self.shared:
            return self._train_stage(name)
        with self.processes.turn(self.place(name)):
            return self._train_stage(name)

    def _train_stage(self, name):
        entry, loop = STAGES[name], self.recipe.loop(name)
        if self.processes.agree(self.deadline.is_interrupted):
            self.where = f"{name}, which has not begun"
            return False
        data = self._data(entry.data)
        if data is None:
            return False
        codec = self.networks.get("codec")
        torch.manual_seed(self._draws.seed_for(name))
        stage = entry.build(Ingredients(recipe=self.recipe, sizes=self.sizes, weights=self._weights,
                                        codec=codec, decode=codec and codec.decode_uint8))
        self.networks |= dict.fromkeys(entry.makes, stage.models[stage.result])
        if "codec" in entry.makes:
            self.latents.lossy_codec |= self.cache.is_lossy
        self._prepare(stage, loop)
        trainer = Trainer(stage, data, replace(loop, seed=self.seed), self.place(name), self.metrics,
                          self.processes, self.dtype)
        if entry.is_shown:
            trainer.before_save = self._export
        elif "codec" in entry.makes:
            frames = data.spread(_NORM_FRAMES).to(self.device)
            trainer.before_save = lambda: trainer.call(stage.result, ImageCodec.settle_norm, frames)
        if not trainer.step:
            self._check_nothing_follows(name)
        self._set_seconds(trainer)
        if trainer.progress < 1:
            trainer.run(self.deadline)
            self.where = f"{name}, {100 * trainer.progress:.0f} % of it done"
        if trainer.progress < 1:
            return False
        self.log.finished(name, trainer.spent)
        if name == "codec":
            self.networks["codec"] = self.latents.finished_codec(self.networks["codec"])
        return True

    def _check_nothing_follows(self, name):
        """Raise ValueError where a stage would begin although others have gone on from its result.

        Its state was removed: latents, trajectories and later stages that the old result led to would be
        mixed with the new one.
        """
        later = self.recipe.stages[self.recipe.stages.index(name) + 1:]
        made = [self.place(part) / "state" for part in later]
        made += [self.place("latents.npy"), self.place("streamed")] * (name == "codec")
        made += [self.place("trajectories")] * ("causal_ode" in later)
        stale = [str(path) for path in made if path.exists()]
        if stale:
            raise ValueError(f"stage {name} would begin again, but {', '.join(stale)} come from its earlier "
                             "result: remove them too, or give another --out")

    def _set_seconds(self, trainer):
        """Give a stage its share of what the budget has left after its blocks are compiled."""
        stage = trainer.stage

        def share():
            if self.budget is not None:
                trainer.config = replace(trainer.config, seconds=self.log.stage_seconds(stage.name))
        if trainer.step:  # its share was fixed when it began
            share()
        has_blocks = any(isinstance(model, Transformer) for model in stage.models.values())
        if self.compiled and has_blocks and trainer.progress < 1:
            log.info("%s: compiling its blocks, which takes minutes the first time; the code is kept for "
                     "later runs. The same command with --path eager goes on without, at a slower step",
                     stage.name)
            started = time.monotonic()
            self.log.timed("compile", trainer.warm_up)
            log.info("%s: compiled in %.0f s", stage.name, time.monotonic() - started)
        share()

    def _prepare(self, stage, loop):
        """Give the transformers of a stage their adapters, their attention and their compiled blocks."""
        for role, model in stage.models.items():
            if isinstance(model, Transformer):
                if self.recipe.lora_rank and role in {*stage.trained, stage.result}:
                    add_adapters(model, self.recipe.lora_rank, self._draws.generator("adapters"))
                model.causal_attention = self.log["attention"][self.device.type]["way"]
                model.checkpoint_activations = loop.checkpoint_activations
                for block in model.blocks if self.compiled else ():
                    block.compile()

    @property
    def _draws(self):
        """Random numbers of weights that a stage begins with."""
        return Draws(self.seed, INITIAL_WEIGHTS, ())

    def _weights(self, *names):
        """The whole weights of the first of these networks that there is; None where there is none."""
        return next((_whole_weights(self.networks[name]) for name in names if name in self.networks), None)

    def _choose_attention(self):
        """The fastest on this device, once for the run: another way rounds differently, a resume must not."""
        chosen, kind = self.log.setdefault("attention", {}), self.device.type
        if kind not in chosen:
            config, loop = self.sizes, self.recipe.teacher_forcing_loop
            way, milliseconds = self.log.timed("choose attention", lambda: fastest_attention(
                self.device, self.dtype, rule=self.recipe.context.rule, batch=loop.micro_batch or loop.batch,
                num_frames=self.recipe.length, num_tokens=config.num_tokens(*self.windows.size),
                num_heads=config.num_heads, head_dim=config.head_dim))
            chosen[kind] = {"way": way, "milliseconds": milliseconds}
            self.log.keep()

    # The world so far

    def _export(self):
        networks = self.networks
        is_distilled = networks["student"] is not networks.get("teacher")
        config = self.latents.config(self.cache, self.recipe.student_steps if is_distilled else 4)
        files = {file: networks[name] for file, name in (("model", "student"), ("teacher", "teacher"))
                 if name in networks}
        weights = {name: _whole_weights(network) for name, network in files.items()}
        if self.processes.is_first:
            for name, tensors in weights.items():
                save_weights(self.folder / f"{name}.safetensors", tensors, torch.bfloat16)
        self.latents.save_codec(networks["codec"], self.cache, self.folder, self.processes.is_first)
        if self.processes.is_first:
            # last: it makes the folder a world, and names the number of steps of these weights
            self.look = self.look or look_of_cache(self.cache)
            write_json(self.folder / "config.json", replace(config, look=self.look).to_json())

    @property
    def _context_walk(self):
        """Frames of the walks that choose the context sigma; 0: its value stays."""
        return self.log.get("context_walk", {}).get("frames", self.latents.context_walk)

    def _plan_context_walks(self):
        """Once for a run with a budget: keep time for the walks at its end, and say how much."""
        if self.budget is None or not self.latents.context_walk or "context_walk" in self.log:
            return
        config = self.latents.config(self.cache, self.recipe.student_steps)
        frames, seconds = self.processes.agree(self.log.timed("plan context sigma", lambda: plan_walks(
            config, self.device, wanted=self.latents.context_walk, budget=self.budget)))
        self.log["context_walk"] = {"frames": frames, "seconds": seconds if frames else 0.0}
        self.log.keep()
        if frames:
            log.info("the context sigma is chosen at the end, by walks of %d frames: about %.0f s of the "
                     "budget are kept for them", frames, seconds)
        else:
            log.warning("context sigma %g stays, unchosen: walks of 100 frames would take about %.0f s, too "
                        "much of this budget", self.recipe.context_sigma, seconds)

    def _choose_context_sigma(self):
        if not self.processes.is_first:
            return
        world = load_world(self.folder, device=self.device.type)
        best, scores = choose_context_sigma(world, self.place("data"), num_frames=self._context_walk,
                                            seconds=self.log.seconds_left)
        write_json(self.folder / "config.json", replace(world.config, context_sigma=best).to_json())
        self.log["context_sigma_scores"] = {str(sigma): score for sigma, score in scores.items()}

    def place(self, part):
        """The path of a part of the run folder, wherever it is kept."""
        return self.shared.get(part, self.folder) / part


def _planned_seconds(recipe, budget):
    """Seconds of the whole job, or of its stages where they have their own; infinite where steps end it."""
    if budget is not None:
        return budget
    loops = [recipe.loop(name) for name in recipe.stages if recipe.loop(name).share]
    return sum(math.inf if loop.seconds is None else loop.seconds for loop in loops)


def _whole_weights(network):
    """Weights of a network as it is played, adapters merged; all processes must call it together."""
    return merged_weights(full_state(network))
