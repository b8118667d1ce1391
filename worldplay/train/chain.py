"""From raw gameplay to a checkpoint folder: the stages of a recipe in a row, within one time budget, resumable."""
import logging
import math
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from worldplay import checkpoint, dataset, lerobot, runtime, zoo
from worldplay.checkpoint import WorldConfig
from worldplay.dataset import WindowStore
from worldplay.opening import load_world
from worldplay.envs import collect, open_env
from worldplay.models.codec import ImageCodec
from worldplay.models.lora import add_adapters, merged_weights
from worldplay.models.transformer import Transformer
from worldplay.scene import export_scenes
from worldplay.train.attention_choice import fastest_attention
from worldplay.train.base import ImageBase
from worldplay.train.bidirectional import BidirectionalStage
from worldplay.train.causal_cd import CausalCDStage
from worldplay.train.causal_ode import CausalODEStage, bidirectional_trajectories, causal_trajectories
from worldplay.train.codec import CodecStage, DecoderStage, encode_frames
from worldplay.train.context_sigma import choose_context_sigma
from worldplay.train.dmd import DMDStage
from worldplay.train.draws import Draws
from worldplay.train.metrics import Metrics
from worldplay.train.processes import full_state
from worldplay.train.run_log import RunLog
from worldplay.train.teacher_forcing import TeacherForcingStage
from worldplay.train.trainer import Trainer
from worldplay.train.video import VideoBase
from worldplay.train.windows import FrameBatches, LatentWindows, TrajectoryWindows, write_missing

log = logging.getLogger(__name__)


class Chain:
    """One run in a folder; `run` goes on where the last call stopped and leaves a playable world there.

    RUN/run.json           the recipe and the seconds each part took and may take
    RUN/data, RUN/latents  the frame cache and the latents of its frames; RUN/texts: rows of what they show, in words
    RUN/STAGE/state        what a stage needs to go on
    RUN/{config.json, model.safetensors, ...}   the world so far, renewed with every save
    """

    def __init__(self, recipe, folder, *, processes, dtype, budget=None, stop_at=math.inf, data=None, init_from=None,
                 seed=0, shared=None):
        """processes: worldplay.train.processes.Processes; the folder is the same for all.
        budget: seconds of the whole job, None when every loop has its steps; stop_at: time.monotonic() of this call's end.
        data: a LeRobot folder to train on instead of collecting. init_from: name or folder of a world to go on
        from: its codec, and its networks where the stage that makes one has no share or begins from it.
        shared: part of the run folder (data, latents.npy, trajectories, a stage) -> another folder that keeps it, for
        several runs; whoever needs it first makes it there.
        """
        self.shared = shared or {}
        self.recipe, self.folder = recipe, Path(folder)
        self.processes, self.device, self.dtype = processes, processes.device, dtype
        self.budget, self.stop_at = budget, stop_at
        self.data_from, self.init_from, self.seed = data, init_from and zoo.find(init_from), seed
        if self.init_from and self.init_from.resolve() == self.folder.resolve():
            raise ValueError(f"--out {folder}: that is the world to go on from; give another folder")
        self.base = self._base()
        self.has_lossy_codec = self.base is not None and self.base.world.lossy_codec
        self._check_data()
        self.compiled, reason = runtime.pick_compile(self.device)
        if recipe.latents is not None and self.device.type == "cpu":
            self.compiled, reason = False, "for blocks with text PyTorch 2.13 writes C++ that is none"
        log.info("blocks are %s (%s)", "compiled" if self.compiled else "run as they are", reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = RunLog(self.folder, recipe, processes, budget=budget, seed=seed, data=data and str(data),
                          init_from=self.init_from and str(self.init_from))
        self.metrics = Metrics(self.folder) if processes.is_first else None
        self.where = "collection"

    def run(self):
        """True when the world is finished, False when stopped with work left."""
        try:
            if not self.run_stages():
                return False
            if self.recipe.context_walk and "context_sigma_scores" not in self.log:
                if self.processes.agree(time.monotonic() > self.stop_at):
                    self.where = "the choice of the context sigma"
                    return False
                self.log.timed("choose context sigma", self._choose_context_sigma)
            if self.recipe.latents is not None:
                log.info("there is no real game beside such clips to walk in or to measure against: held-out losses are in "
                         "%s, pictures beside it", self.folder / "metrics.jsonl")
            return True
        finally:
            self.close()

    def close(self):
        """Write out what is written late."""
        if self.metrics:
            self.metrics.close()

    def run_stages(self):
        """All of `run` but the choice of the context sigma."""
        cache = self.log.timed("collect", self._collect)
        if self.recipe.latents is None and cache.env != self.recipe.env:
            raise ValueError(f"--data {self.data_from}: recorded in {cache.env!r}, this recipe is for {self.recipe.env!r}")
        for split in ("train", "held_out"):
            if not len(cache.split(split)):
                raise ValueError(f"{self._place('data')}: no {split} episode among {len(cache.episodes)}; every twentieth "
                                 "seed is held out, so 20 episodes are needed: more frames, or shorter episodes")
        codec = self._codec(cache)
        if codec is None:
            return False
        windows = self.log.timed("encode", lambda: self._windows(cache, codec))
        if windows is None:
            self.where = "encoding"
            return False
        self._choose_attention(cache, windows)
        # role -> what a stage, or the world before, has made
        networks = self.base.networks(cache.action_space) if self.base else {}
        parts = {"bidirectional": self._bidirectional, "teacher_forcing": self._teacher, "causal_ode": self._ode_student,
                 "causal_cd": self._cd_student, "dmd": self._dmd_student, "decoder": self._decoder}
        for stage, part in parts.items():
            if self.recipe.loop(stage).share and not part(cache, windows, codec, networks):
                return False
        return True

    # The parts

    def _collect(self):
        folder = self._place("data")
        self._first_makes(folder / "index.json", lambda: self._write_cache(folder))
        return dataset.FrameCache.open(folder)

    def _write_cache(self, folder):
        recipe = self.recipe
        if self.data_from is not None:
            lerobot.decode_to_cache(self.data_from, folder)
            return
        rollouts = collect.collect_rollouts(recipe.env, num_frames=recipe.num_frames, seed=self.seed,
                                            workers=os.cpu_count(), player=recipe.player,
                                            rollout_frames=recipe.rollout_frames)
        with tqdm(total=recipe.num_frames, desc="collect", unit="frame", disable=None) as bar:
            dataset.write_frame_cache(rollouts, folder, world=open_env(recipe.env), num_frames=recipe.num_frames,
                                      progress=bar.update)

    def _base(self):
        """The world to go on from, None where there is none."""
        if self.recipe.latents is not None:
            return VideoBase(self.init_from, self.recipe, self.device)
        return ImageBase(self.init_from, self.recipe) if self.init_from else None

    def _check_data(self):
        """Refuse what cannot be learnt before anything is written, and say what the decoder makes of lossy clips."""
        if self.data_from is None or (self._place("data") / "index.json").exists():
            return
        data = lerobot.LeRobotFolder.open(self.data_from)
        if self.recipe.latents is not None:
            self.base.check_data(data, self.data_from)
            return
        if not data.is_lossy:
            return
        if not self.init_from:
            raise ValueError(f"--data {self.data_from}: recorded clips are lossy, and no codec is trained on them: go on "
                             "from a world, whose codec stays (--init-from WORLD), or collect")
        if self.recipe.decoder_loop.share:
            log.warning("%s holds lossy clips: the codec's decoder learns their colours and their flaws, for you to play "
                        "and not to ship; a decoder share of 0 keeps the world's codec", self.data_from)

    def _codec(self, cache):
        """What makes latents of frames or, where that is shared with others, what shows them; None where time ended."""
        if self.base:
            return self.base.codec(self.device)
        torch.manual_seed(self.seed)
        stage = CodecStage(self.recipe.codec)
        done = self._train(stage, self._frames(cache))
        if not done:
            return None
        codec = ImageCodec(self.recipe.codec.model).to(self.device, memory_format=torch.channels_last)
        codec.load_state_dict(full_state(stage.models[stage.result]))
        return codec.eval().requires_grad_(False)

    def _windows(self, cache, codec):
        """Windows of the frames' latents, which are made once; None where the call's time ended before."""
        if self.recipe.latents is not None:
            return self.base.windows(cache, self._place, self.processes, self.stop_at)
        path, space = self._place("latents.npy"), cache.action_space
        self._first_makes(path, lambda: encode_frames(codec, cache.frames, path, self.device, self.dtype))
        return LatentWindows(np.load(path, mmap_mode="r"), cache.actions, cache.split("train"), cache.split("held_out"),
                             self.recipe.length, yaw_channel=len(space.keys) if space.look_axes else 0,
                             columns_per_unit=space.look_limit * self.recipe.columns_per_degree)

    # Each trains its stage, puts its result into `networks`, and returns whether the stage is done

    def _bidirectional(self, cache, windows, codec, networks):
        torch.manual_seed(self.seed + 2)
        init = _weights_of(networks, "bidirectional", "teacher", "student")
        stage = BidirectionalStage(self.recipe.bidirectional, self._transformer(cache), codec.decode_uint8, init)
        networks["bidirectional"] = stage.models[stage.result]
        return self._train(stage, windows)

    def _teacher(self, cache, windows, codec, networks):
        torch.manual_seed(self.seed + 1)
        init = _weights_of(networks, "teacher", "bidirectional", "student")
        stage = TeacherForcingStage(self.recipe.teacher_forcing, self._transformer(cache), self.recipe.context,
                                    codec.decode_uint8, init)
        networks["teacher"] = networks["student"] = stage.models[stage.result]
        return self._train(stage, windows, lambda: self._export(cache, codec, networks))

    def _ode_student(self, cache, windows, codec, networks):
        teacher = networks["teacher" if self.recipe.causal_ode.teacher == "causal" else "bidirectional"]
        data = self._trajectories(windows, teacher)
        if data is None:
            return False
        stage = CausalODEStage(self.recipe.causal_ode, self._transformer(cache), self.recipe.context,
                               _whole_weights(teacher), codec.decode_uint8)
        networks["student"] = stage.models[stage.result]
        return self._train(stage, data, lambda: self._export(cache, codec, networks))

    def _cd_student(self, cache, windows, codec, networks):
        stage = CausalCDStage(self.recipe.causal_cd, self._transformer(cache), self.recipe.context,
                              _whole_weights(networks["teacher"]), codec.decode_uint8)
        networks["student"] = stage.models[stage.result]
        return self._train(stage, windows, lambda: self._export(cache, codec, networks))

    def _dmd_student(self, cache, windows, codec, networks):
        stage = DMDStage(self.recipe.dmd, self._transformer(cache), self.recipe.context,
                         _whole_weights(networks["student"]), _whole_weights(networks["bidirectional"]), codec.decode_uint8,
                         self.recipe.student_steps)
        networks["student"] = stage.models[stage.result]
        return self._train(stage, windows, lambda: self._export(cache, codec, networks))

    def _decoder(self, cache, windows, codec, networks):
        stage = DecoderStage(self.recipe.codec, codec)
        self.has_lossy_codec |= cache.is_lossy
        return self._train(stage, self._frames(cache), lambda: self._export(cache, stage.models["ema"], networks))

    def _trajectories(self, windows, teacher):
        """TrajectoryWindows of a teacher; None where the call's time ended before all were made."""
        network = Transformer(teacher.config)
        network.load_state_dict(_whole_weights(teacher))
        network = network.to(self.device, self.dtype).eval()
        stores, batch = {}, self.recipe.causal_ode_loop.micro_batch or 16  # at once, no more than in training
        for held_out, num in ((False, self.recipe.num_trajectories), (True, -(-self.recipe.num_trajectories // 16))):
            starts = windows.starts[held_out]
            starts = starts[Draws(self.seed, -2, range(num)).integers("window", len(starts)).numpy()]
            name = "held_out" if held_out else "train"
            folder = self._place("trajectories") / name
            self._first_makes(folder / "index.json", lambda: WindowStore(folder, starts, batch))
            stores[held_out] = store = WindowStore(folder, starts, batch)
            def make(number, rows):
                draws = Draws(self.seed, -3, range(number * store.batch, number * store.batch + len(rows)))
                return self._walk(network, windows.at(rows), draws)
            if not self.log.timed("trajectories", lambda: write_missing(
                    store, make, self.processes, self.stop_at, f"trajectories, {name}")):
                self.where = "trajectories"
                return None
        log.info("trajectories of %d windows: %.1f MiB", len(stores[False].starts),
                 sum(store.num_bytes for store in stores.values()) / 2**20)
        return TrajectoryWindows(windows, stores[False], stores[True])

    def _walk(self, teacher, batch, draws):
        """float16 [b t 5 c h w]: the trajectories of one batch of windows."""
        batch = {name: x.to(self.device) for name, x in batch.items()}
        noise = draws.normal("trajectory", *batch["latents"].shape[1:]).to(self.device)
        options, steps = self.recipe.causal_ode, self.recipe.causal_ode.num_timesteps
        made = (causal_trajectories(teacher, batch, noise, self.recipe.context, steps, options.guidance)
                if options.teacher == "causal" else
                bidirectional_trajectories(teacher, batch, noise, steps, options.guidance))
        return made.half().cpu().numpy()

    def _choose_context_sigma(self):
        if not self.processes.is_first:
            return
        world = load_world(self.folder, device=self.device.type)
        best, scores = choose_context_sigma(world, num_frames=self.recipe.context_walk)
        checkpoint.write_json(self.folder / "config.json", replace(world.config, context_sigma=best).to_json())
        self.log["context_sigma_scores"] = {str(sigma): score for sigma, score in scores.items()}

    # What they share

    def _place(self, part):
        return self.shared.get(part, self.folder) / part

    def _train(self, stage, data, before_save=None):
        loop = self.recipe.loop(stage.name)
        if self.budget is not None:
            loop = replace(loop, seconds=self.log.stage_seconds(stage.name))
        for role, model in stage.models.items():
            if isinstance(model, Transformer):
                if self.recipe.lora_rank and role in {*stage.trained, stage.result}:
                    add_adapters(model, self.recipe.lora_rank, self.seed)
                model.causal_attention = self.log["attention"][self.device.type]["way"]
                model.checkpoint_activations = loop.checkpoint_activations
                for block in model.blocks if self.compiled else ():
                    block.compile()
        trainer = Trainer(stage, data, replace(loop, seed=self.seed), self._place(stage.name), self.metrics,
                          self.processes, self.dtype, before_save)
        if trainer.progress < 1:
            trainer.run(self.stop_at)
            self.where = f"{stage.name}, {100 * trainer.progress:.0f} % of it done"
        return trainer.progress >= 1

    def _choose_attention(self, cache, windows):
        """The fastest on this device, once for the run: another rounds differently, which a resume must not."""
        chosen, kind = self.log.setdefault("attention", {}), self.device.type
        if kind not in chosen:
            config, loop = self._transformer(cache), self.recipe.teacher_forcing_loop
            chosen[kind] = dict(zip(("way", "milliseconds"), self.log.timed("choose attention", lambda: fastest_attention(
                self.device, self.dtype, rule=self.recipe.context.rule, batch=loop.micro_batch or loop.batch,
                num_frames=self.recipe.length, num_tokens=config.num_tokens(*windows.size),
                num_heads=config.num_heads, head_dim=config.head_dim))))
            self.log.keep()

    def _first_makes(self, path, make):
        """make() by the first process, unless `path` is there already; the others wait for it."""
        if self.processes.is_first and not path.exists():
            make()
        self.processes.wait()

    def _frames(self, cache):
        return FrameBatches(cache.frames, cache.split("train"), cache.split("held_out"))

    def _transformer(self, cache):
        return self.recipe.network(cache.action_space)

    def _export(self, cache, codec, networks):
        config = self._config(cache, codec, is_distilled=networks["student"] is not networks.get("teacher"))
        weights = {"model": _whole_weights(networks["student"])}
        if "teacher" in networks:
            weights["teacher"] = _whole_weights(networks["teacher"])
        if config.codec is not None:
            weights["codec"] = full_state(codec)
        if not self.processes.is_first:
            return
        checkpoint.write_json(self.folder / "config.json", config.to_json())
        for name, tensors in weights.items():
            checkpoint.save_weights(self.folder / f"{name}.safetensors", tensors, torch.bfloat16)
        if config.codec is not None and not (self.folder / "scenes").exists():
            export_scenes(cache, self.folder / "scenes", self.recipe.env)

    def _config(self, cache, codec, is_distilled):
        """WorldConfig of the world so far."""
        recipe, steps = self.recipe, self.recipe.student_steps if is_distilled else 4
        if recipe.latents is not None:
            return self.base.config(cache, steps)
        return WorldConfig(
            name=recipe.name, env=recipe.env, action_space=cache.action_space, frame_size=cache.frame_size, fps=cache.fps,
            transformer=self._transformer(cache), codec=codec.config, steps=steps, **asdict(recipe.context.rule),
            context_sigma=recipe.context_sigma, columns_per_degree=recipe.columns_per_degree,
            lossy_codec=self.has_lossy_codec)


def _whole_weights(network):
    """The weights of a network as it is played: gathered from all processes, adapters merged; all must ask together."""
    return merged_weights(full_state(network))


def _weights_of(networks, *roles):
    """The whole weights of the first of these roles that there is; None where there is none."""
    return next((_whole_weights(networks[role]) for role in roles if role in networks), None)
