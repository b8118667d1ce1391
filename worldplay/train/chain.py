"""From raw gameplay to a checkpoint folder: the stages of a recipe in a row, within one time budget, resumable."""
import copy
import json
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
from worldplay.dataset import TrajectoryStore
from worldplay.engine import load_world
from worldplay.envs import collect, open_env
from worldplay.models.codec import ImageCodec
from worldplay.models.lora import add_adapters, merged_weights
from worldplay.models.transformer import Transformer
from worldplay.scene import Scene, save_scene
from worldplay.train.attention_choice import fastest_attention
from worldplay.train.bidirectional import BidirectionalStage
from worldplay.train.causal_cd import CausalCDStage
from worldplay.train.causal_ode import CausalODEStage, bidirectional_trajectories, causal_trajectories
from worldplay.train.codec import CodecStage, DecoderStage
from worldplay.train.context_sigma import choose_context_sigma
from worldplay.train.dmd import DMDStage
from worldplay.train.draws import Draws
from worldplay.train.finetune import match_actions
from worldplay.train.metrics import Metrics
from worldplay.train.recipe import STAGES
from worldplay.train.teacher_forcing import TeacherForcingStage
from worldplay.train.trainer import Trainer
from worldplay.train.windows import FrameBatches, LatentWindows, TrajectoryWindows

log = logging.getLogger(__name__)


class Chain:
    """One run in a folder; `run` goes on where the last call stopped and leaves a playable world there.

    RUN/run.json           the recipe and the seconds each part took and may take
    RUN/data, RUN/latents  the frame cache and the latents of its frames
    RUN/STAGE/state        what a stage needs to go on
    RUN/{config.json, model.safetensors, ...}   the world so far, renewed after every save
    """

    def __init__(self, recipe, folder, *, device, dtype, budget=None, stop_at=math.inf, data=None, init_from=None, seed=0):
        """budget: seconds of the whole job, None when every loop has its steps; stop_at: time.monotonic() of this call's end.
        data: a LeRobot folder to train on instead of collecting. init_from: name or folder of a world whose codec and teacher to go on from.
        """
        self.recipe, self.folder = recipe, Path(folder)
        self.device, self.dtype, self.budget, self.stop_at = device, dtype, budget, stop_at
        self.data_from, self.init_from, self.seed = data, init_from and zoo.find(init_from), seed
        if self.init_from and self.init_from.resolve() == self.folder.resolve():
            raise ValueError(f"--out {folder}: that is the world to go on from; give another folder")
        self.compiled, reason = runtime.pick_compile(device)
        log.info("blocks are %s (%s)", "compiled" if self.compiled else "run as they are", reason)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self._open_log()
        self.metrics = Metrics(self.folder)
        self.where = "collection"

    def run(self):
        """True when the world is finished, False when stopped with work left."""
        cache = self._timed("collect", self._collect)
        if cache.env != self.recipe.env:
            raise ValueError(f"--data {self.data_from}: recorded in {cache.env!r}, this recipe is for {self.recipe.env!r}")
        for split in ("train", "held_out"):
            if not len(cache.split(split)):
                raise ValueError(f"{self.folder / 'data'}: no {split} episode among {len(cache.episodes)}; every twentieth "
                                 "seed is held out, so 20 episodes are needed: more frames, or shorter episodes")
        codec = self._codec(cache)
        if codec is None:
            return False
        latents = self._timed("encode", lambda: self._encode(cache, codec))
        windows = self._windows(cache, latents)
        self._choose_attention(cache, windows)
        networks = {}  # role -> what a stage has made
        parts = {"bidirectional": self._bidirectional, "teacher_forcing": self._teacher, "causal_ode": self._ode_student,
                 "causal_cd": self._cd_student, "dmd": self._dmd_student, "decoder": self._decoder}
        for stage, part in parts.items():
            if self.recipe.loop(stage).share and not part(cache, windows, codec, networks):
                return False
        if self.recipe.context_walk and "context_sigma_scores" not in self.log:
            if time.monotonic() > self.stop_at:
                self.where = "the choice of the context sigma"
                return False
            self._timed("choose context sigma", self._choose_context_sigma)
        return True

    # The parts

    def _collect(self):
        folder, recipe = self.folder / "data", self.recipe
        if (folder / "index.json").exists():
            return dataset.FrameCache.open(folder)
        if self.data_from is not None:
            return lerobot.decode_to_cache(self.data_from, folder)
        rollouts = collect.collect_rollouts(recipe.env, num_frames=recipe.num_frames, seed=self.seed,
                                            workers=os.cpu_count(), rollout_frames=recipe.rollout_frames)
        with tqdm(total=recipe.num_frames, desc="collect", unit="frame", disable=None) as bar:
            return dataset.write_frame_cache(rollouts, folder, world=open_env(recipe.env),
                                             num_frames=recipe.num_frames, progress=bar.update)

    def _codec(self, cache):
        if self.init_from:
            codec = ImageCodec(self._base_config().codec).to(memory_format=torch.channels_last)
            path = self.init_from / "codec.safetensors"
            checkpoint.load_into(codec, checkpoint.load_weights(path), path)
            return codec.to(self.device).eval().requires_grad_(False)
        torch.manual_seed(self.seed)
        stage = CodecStage(self.recipe.codec)
        done = self._train(stage, self._frames(cache))
        return stage.models[stage.result].eval() if done else None

    def _encode(self, cache, codec):
        path = self.folder / "latents.npy"
        if not path.exists():
            encode_frames(codec, cache.frames, path, self.device, self.dtype)
        return np.load(path, mmap_mode="r")

    # Each trains its stage, puts its result into `networks`, and returns whether the stage is done

    def _bidirectional(self, cache, windows, codec, networks):
        torch.manual_seed(self.seed + 2)
        stage = BidirectionalStage(self.recipe.bidirectional, self._transformer(cache), codec.decode_uint8)
        networks["bidirectional"] = stage.models[stage.result]
        return self._train(stage, windows)

    def _teacher(self, cache, windows, codec, networks):
        torch.manual_seed(self.seed + 1)
        init = None
        if self.init_from:
            path = self.init_from / "teacher.safetensors"
            model = Transformer(self._transformer(cache))
            weights = checkpoint.load_weights(path)
            weights = match_actions(weights, cache.action_space, self._base_config().action_space)
            checkpoint.load_into(model, weights, path)
            init = model.state_dict()
        elif "bidirectional" in networks:
            init = networks["bidirectional"].state_dict()
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
                               merged_weights(teacher), codec.decode_uint8)
        networks["student"] = stage.models[stage.result]
        return self._train(stage, data, lambda: self._export(cache, codec, networks))

    def _cd_student(self, cache, windows, codec, networks):
        stage = CausalCDStage(self.recipe.causal_cd, self._transformer(cache), self.recipe.context,
                              merged_weights(networks["teacher"]), codec.decode_uint8)
        networks["student"] = stage.models[stage.result]
        return self._train(stage, windows, lambda: self._export(cache, codec, networks))

    def _dmd_student(self, cache, windows, codec, networks):
        stage = DMDStage(self.recipe.dmd, self._transformer(cache), self.recipe.context,
                         networks["student"].state_dict(), networks["bidirectional"].state_dict(), codec.decode_uint8,
                         self.recipe.student_steps)
        networks["student"] = stage.models[stage.result]
        return self._train(stage, windows, lambda: self._export(cache, codec, networks))

    def _decoder(self, cache, windows, codec, networks):
        stage = DecoderStage(self.recipe.codec, codec)
        return self._train(stage, self._frames(cache), lambda: self._export(cache, stage.models["ema"], networks))

    def _trajectories(self, windows, teacher):
        """TrajectoryWindows of a teacher; None where the call's time ended before all were made."""
        teacher = copy.deepcopy(teacher).to(self.device, self.dtype).eval()
        stores = {}
        for held_out, num in ((False, self.recipe.num_trajectories), (True, -(-self.recipe.num_trajectories // 16))):
            starts = windows.starts[held_out]
            starts = starts[Draws(self.seed, -2, range(num)).integers("window", len(starts)).numpy()]
            name = "held_out" if held_out else "train"
            stores[held_out] = store = TrajectoryStore(self.folder / "trajectories" / name, starts, batch=16)
            for number, rows in tqdm(store.missing(), desc=f"trajectories, {name}", unit="batch", disable=None):
                if time.monotonic() > self.stop_at:
                    self.where = "trajectories"
                    return None
                self._timed("trajectories", lambda: store.write(number, self._walk(teacher, windows.at(rows), Draws(
                    self.seed, -3, range(number * store.batch, number * store.batch + len(rows))))))
        log.info("trajectories of %d windows: %.1f MiB", len(stores[False].starts),
                 sum(store.num_bytes for store in stores.values()) / 2**20)
        return TrajectoryWindows(windows, stores[False], stores[True])

    def _walk(self, teacher, batch, draws):
        """float16 [b t 5 c h w]: the trajectories of one batch of windows."""
        batch = {name: x.to(self.device) for name, x in batch.items()}
        noise = draws.normal("trajectory", *batch["latents"].shape[1:]).to(self.device)
        options, steps = self.recipe.causal_ode, self.recipe.causal_ode.num_timesteps
        made = (causal_trajectories(teacher, batch, noise, self.recipe.context, steps) if options.teacher == "causal"
                else bidirectional_trajectories(teacher, batch, noise, steps))
        return made.half().cpu().numpy()

    def _choose_context_sigma(self):
        world = load_world(self.folder, device=self.device.type)
        best, scores = choose_context_sigma(world, num_frames=self.recipe.context_walk)
        checkpoint.write_json(self.folder / "config.json", replace(world.config, context_sigma=best).to_json())
        self.log["context_sigma_scores"] = {str(sigma): score for sigma, score in scores.items()}

    # What they share

    def _train(self, stage, data, after_save=None):
        loop = self.recipe.loop(stage.name)
        if loop.steps is None:
            loop = replace(loop, seconds=self._seconds(stage.name))
        for role, model in stage.models.items():
            if isinstance(model, Transformer):
                if self.recipe.lora_rank and role in {*stage.trained, stage.result}:
                    add_adapters(model, self.recipe.lora_rank, self.seed)
                model.causal_attention = self.log["attention"]
                for block in model.blocks if self.compiled else ():
                    block.compile()
        trainer = Trainer(stage, data, replace(loop, seed=self.seed), self.folder / stage.name, self.metrics,
                          self.device, self.dtype, after_save)
        if trainer.progress < 1:
            trainer.run(self.stop_at)
            self.where = f"{stage.name}, {100 * trainer.progress:.0f} % of it done"
        return trainer.progress >= 1

    def _choose_attention(self, cache, windows):
        """The fastest on this device, once for the run: another rounds differently, which a resume must not."""
        if "attention" not in self.log:
            config = self._transformer(cache)
            self.log["attention"], self.log["attention_ms"] = fastest_attention(
                self.device, self.dtype, rule=self.recipe.context.rule, batch=self.recipe.teacher_forcing_loop.batch,
                num_frames=self.recipe.length, num_tokens=config.num_tokens(*windows.latents.shape[-2:]),
                num_heads=config.num_heads, head_dim=config.head_dim)
            checkpoint.write_json(self.folder / "run.json", self.log)

    def _seconds(self, name):
        """Seconds of a stage: its share of what the parts before it left of the budget; fixed when it starts.

        Making the trajectories counts against the share of causal_ode.
        """
        if name not in self.log["seconds"]:
            spent = sum(seconds for part, seconds in self.log["spent"].items() if part != "trajectories")
            left = self.budget - spent - sum(self.log["seconds"].values())
            rest = [self.recipe.loop(later).share for later in STAGES[STAGES.index(name):]]
            self.log["seconds"][name] = max(1.0, left * rest[0] / sum(rest))
            checkpoint.write_json(self.folder / "run.json", self.log)
        made = self.log["spent"].get("trajectories", 0.0) if name == "causal_ode" else 0.0
        return max(1.0, self.log["seconds"][name] - made)

    def _timed(self, name, part):
        start = time.monotonic()
        result = part()
        self.log["spent"][name] = self.log["spent"].get(name, 0.0) + time.monotonic() - start
        checkpoint.write_json(self.folder / "run.json", self.log)
        return result

    def _frames(self, cache):
        return FrameBatches(cache.frames, cache.split("train"), cache.split("held_out"))

    def _windows(self, cache, latents):
        space = cache.action_space
        return LatentWindows(latents, cache.actions, cache.split("train"), cache.split("held_out"), self.recipe.length,
                             yaw_channel=len(space.keys) if space.look_axes else 0,
                             columns_per_unit=space.look_limit * self.recipe.columns_per_degree)

    def _transformer(self, cache):
        channels = self.recipe.codec.model.channels
        return replace(self.recipe.transformer, in_channels=channels, out_channels=channels,
                       action_channels=cache.action_space.num_channels)

    def _export(self, cache, codec, networks):
        recipe, is_distilled = self.recipe, networks["student"] is not networks["teacher"]
        config = WorldConfig(
            name=recipe.name, env=recipe.env, action_space=cache.action_space, frame_size=cache.frame_size, fps=cache.fps,
            transformer=self._transformer(cache), codec=codec.config,
            steps=recipe.student_steps if is_distilled else 4, window=recipe.context.window, sink=recipe.context.sink,
            sink_position=recipe.context.sink_position, context_sigma=recipe.context_sigma, columns_per_degree=recipe.columns_per_degree)
        checkpoint.write_json(self.folder / "config.json", config.to_json())
        checkpoint.save_weights(self.folder / "codec.safetensors", codec.state_dict(), torch.bfloat16)
        for name, role in (("model", "student"), ("teacher", "teacher")):
            path = self.folder / f"{name}.safetensors"
            checkpoint.save_weights(path, merged_weights(networks[role]), torch.bfloat16)
        if not (self.folder / "scenes").exists():
            export_scenes(cache, self.folder / "scenes", recipe.env)

    def _base_config(self):
        path = self.init_from / "config.json"
        return WorldConfig.from_json(checkpoint.read_json(path), path)

    def _open_log(self):
        recipe = json.loads(json.dumps(asdict(self.recipe)))
        given = {"seed": self.seed, "data": self.data_from and str(self.data_from),
                 "init_from": self.init_from and str(self.init_from)}
        path = self.folder / "run.json"
        if not path.exists():
            return {"recipe": recipe, "budget": self.budget, **given, "spent": {}, "seconds": {}}
        record = checkpoint.read_json(path)
        for name, value in {**recipe, **given}.items():
            before = (record["recipe"] if name in recipe else record).get(name)
            if before != value:
                raise ValueError(f"{path} was started with {name} {before}, now it is {value}; "
                                 "go on with the same, or give another --out")
        return record


def encode_frames(codec, frames, path, device, dtype, batch=64):
    """Write latents of all frames, uint8 [N H W 3], as float16 [N c h w] to the file `path`; aside, then renamed."""
    codec = copy.deepcopy(codec).to(device, dtype)
    height, width = (size // ImageCodec.stride for size in frames.shape[1:3])
    shape = (len(frames), codec.config.channels, height, width)
    draft = path.with_name(path.name + ".tmp")
    latents = np.lib.format.open_memmap(draft, "w+", np.float16, shape)
    with torch.inference_mode():
        for i in tqdm(range(0, len(frames), batch), desc="encode", unit="batch", disable=None):
            part = torch.from_numpy(np.array(frames[i:i + batch]))
            latents[i:i + batch] = codec.encode_uint8(part.to(device)).cpu().numpy()
    latents.flush()
    draft.rename(path)


def export_scenes(cache, folder, env, num=6, num_frames=4):
    """The first frames of held-out episodes spread over the set, as scenes, those with most to see first.

    A few frames tell how the player moves; the rest of a window would only make the folder heavier.
    """
    episodes = cache.split("held_out")
    picks = episodes[np.unique(np.linspace(0, len(episodes) - 1, num).astype(int))].tolist()
    picks.sort(key=lambda pick: -np.asarray(cache.frames[pick[0]], np.float32).std())
    draft = folder.with_name(folder.name + ".tmp")
    for i, (start, _, seed) in enumerate(picks, 1):
        rows = slice(start, start + num_frames)
        save_scene(draft, Scene(
            name=f"start-{i}", frames=np.asarray(cache.frames[rows]), poses=np.asarray(cache.poses[rows]),
            actions=[cache.action_space.decode(vector) for vector in cache.actions[rows]],
            origin={"environment": env, "seed": seed}), cache.action_space)
    draft.rename(folder)
