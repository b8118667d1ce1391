"""Latents of single frames, by an image codec that the run trains or takes from the world it goes on from."""
import copy
import logging
import math
from dataclasses import asdict

import numpy as np
import torch

from worldplay.data.frame_cache import HELD_OUT_EVERY, is_held_out, split_episodes
from worldplay.envs import open_env
from worldplay.envs.collect import plan_episodes
from worldplay.files import replacing
from worldplay.log import track
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.transformer import Transformer
from worldplay.train.finetune import base_world, check_sizes, log_match, match_actions
from worldplay.train.processes import full_state
from worldplay.train.streamed import StreamedLatents, write_streamed
from worldplay.train.windows import LatentWindows
from worldplay.worlds.config import ImageWorldConfig
from worldplay.worlds.scene import export_scenes
from worldplay.worlds.weights import load_into, load_weights, save_weights

log = logging.getLogger(__name__)


class ImageLatents:
    """What a run of an ImageRecipe has of its own: its codec, its windows, and how its world is written.

    folder, world  the folder and the ImageWorldConfig of the world it goes on from, which has a
                   teacher.safetensors; None for a run that begins with nothing
    lossy_codec    whether the codec has learnt from lossy clips
    """
    can_stream = True  # latents of frames that are not kept

    def __init__(self, recipe, folder, device):
        """Raises ValueError where the world in `folder` is not one that the recipe goes on from."""
        self.recipe, self.folder, self.device, self.world = recipe, folder, device, None
        if folder:
            self.world = base_world(folder)
            check_sizes(recipe.network(self.world.action_space), self.world, folder)
        self.lossy_codec = self.world is not None and self.world.lossy_codec

    @property
    def context_walk(self):
        """Frames of the walks that choose the context sigma at the end; 0 leaves it as the recipe has it."""
        return self.recipe.context_walk

    def no_compile(self):
        """Why blocks cannot be compiled, None where they can."""

    def check_data(self, data, where):
        """Raise ValueError for a LeRobotFolder at `where` that it cannot learn; warn of lossy clips."""
        recipe = self.recipe
        if recipe.env and data.source.name != recipe.env:
            raise ValueError(f"--data {where}: recorded in {data.source.name!r}, this recipe is for "
                             f"{recipe.env!r}; --env {data.source.name} takes it")
        self._check_frame_size(data.source.frame_size, f"--data {where}")
        self._check_episodes([(episode["length"], episode["seed"]) for episode in data.episodes],
                             f"--data {where}")
        if not data.is_lossy:
            return
        if self.world is None and data.is_others:
            log.warning("%s holds another program's pictures: the codec learns their compression too, "
                        "so a world of it is for you to play and not to ship", where)
            return
        if self.world is None:
            raise ValueError(f"--data {where}: recorded clips are lossy, and no codec is trained on them: go "
                             "on from a world, whose codec stays (--init-from WORLD), or collect")
        if recipe.decoder_loop.share:
            log.warning("%s holds lossy clips: the codec's decoder learns their colours and their flaws, for "
                        "you to play and not to ship; a decoder share of 0 keeps the world's codec", where)

    def check_collection(self, seed):
        """Raise ValueError if a collection of the recipe's size from this seed on gives too little."""
        recipe = self.recipe
        if not recipe.env:
            raise ValueError(f"{recipe.name} has no game to collect in: give --data DIR, a LeRobot folder of "
                             "your own (docs/data.md)")
        world = open_env(recipe.env, trusted=True)
        self._check_frame_size(world.frame_size, f"--env {recipe.env}")
        self._check_episodes(plan_episodes(recipe.num_frames, recipe.rollout_frames, seed),
                             f"--num-frames {recipe.num_frames} --rollout-frames {recipe.rollout_frames}")

    def _check_frame_size(self, frame_size, where):
        """A latent is `stride` pixels high and wide, a token a patch of latents: frames hold whole tokens."""
        steps = [ImageCodec.stride * patch for patch in self.recipe.transformer.patch_size[1:]]
        if any(length % step for length, step in zip(frame_size, steps)):
            height, width = (-(-length // step) * step for length, step in zip(frame_size, steps))
            raise ValueError(f"{where}: frames are {frame_size[1]}x{frame_size[0]} pixels (width x height), "
                             f"this recipe wants multiples of {steps[1]} and {steps[0]}; --fit \"pad "
                             f"{width}x{height}\" adds a black border, crop and resize do what they say")

    def _check_episodes(self, episodes, where):
        """episodes: (length in frames, seed) of each."""
        needed = self.recipe.length
        for split, held_out in (("training", False), ("held-out", True)):
            lengths = [length for length, seed in episodes if is_held_out(seed) == held_out]
            if not lengths:
                raise ValueError(f"{where}: no {split} episode among {len(episodes)}; one of "
                                 f"{HELD_OUT_EVERY} is held out, by its seed: {HELD_OUT_EVERY} episodes have "
                                 "both, so record more or shorter ones")
            if max(lengths) < needed:
                raise ValueError(f"{where}: the longest {split} episode has {max(lengths)} frames, and a "
                                 f"training sequence {needed} (--length, at least two windows of "
                                 f"--context.window {self.recipe.context.window}); record longer ones")
            short = sum(length < needed for length in lengths)
            if short:
                log.warning("%s: %d of %d %s episodes are shorter than a training sequence of %d frames "
                            "(--length): the codec alone uses them",
                            where, short, len(lengths), split, needed)

    # What the stages take

    def codec(self):
        """The ImageCodec of the world to go on from; None without one: stage codec makes it."""
        if self.world is None:
            return None
        codec = ImageCodec(self.world.codec)
        path = self.folder / "codec.safetensors"
        load_into(codec, load_weights(path), path)
        return self._frozen(codec)

    def finished_codec(self, trained):
        """The ImageCodec that stage codec has trained, whole on every process."""
        codec = ImageCodec(self.recipe.codec.model)
        codec.load_state_dict(full_state(trained))
        return self._frozen(codec)

    def bytes_per_frame(self, source):
        """Bytes of the latents of a frame of a Source."""
        return 2 * math.prod(self._latent_shape(source.frame_size))

    def windows(self, cache, codec, run):
        """LatentWindows of a FrameCache, encoded once; where it has a part of the frames alone, of its whole
        data set: None where the call's time ended before all was read.

        run: the Chain, for its folders and processes
        """
        if run.gameplay.keep_frames is not None:
            streamed = self._streamed(cache, codec, run)
            return streamed and self._windows(streamed.latents, streamed.actions, streamed.episodes, cache)
        path = run.place("latents.npy")
        run.processes.first_makes(path, lambda: encode_frames(codec, cache, path, self.device, run.dtype))
        return self._windows(np.load(path, mmap_mode="r"), cache.actions, cache.episodes, cache)

    def _streamed(self, cache, codec, run):
        """The StreamedLatents of the run's data set; None where the call's time ended before."""
        folder, processes = run.place("streamed"), run.processes
        with processes.turn(folder):
            if processes.is_first and not StreamedLatents.are_in(folder):
                write_streamed(folder, run.gameplay.opened(), FrameEncoder(codec, self.device, run.dtype),
                               self._latent_shape(cache.frame_size), run.deadline, run.log.seconds_left)
            is_done = processes.agree(processes.is_first and StreamedLatents.are_in(folder))
        return StreamedLatents.open(folder) if is_done else None

    def _windows(self, latents, actions, episodes, cache):
        train, held_out = (split_episodes(episodes, name) for name in ("train", "held_out"))
        return LatentWindows(latents, actions, train, held_out, self.recipe.length, cache.action_space,
                             self.recipe.columns_per_degree)

    def _latent_shape(self, frame_size):
        """(c, h, w) of the latent of a frame of (H, W) pixels."""
        return self.recipe.codec.model.channels, *(length // ImageCodec.stride for length in frame_size)

    def networks(self, space):
        """As `teacher_and_student`, of the world to go on from, for clips whose actions are in `space`."""
        if self.world is None:
            return {}
        log_match(space, self.world.action_space)

        def network(file):
            model, path = Transformer(self.recipe.network(space)), self.folder / file
            load_into(model, match_actions(load_weights(path), space, self.world.action_space), path)
            return model
        return teacher_and_student(self.recipe, self.folder, self.world, network)

    # What the run becomes

    def config(self, cache, steps):
        """ImageWorldConfig of the run's world, played in so many sampling steps."""
        recipe = self.recipe
        return ImageWorldConfig(
            name=recipe.name, env=cache.env, action_space=cache.action_space, frame_size=cache.frame_size,
            fps=cache.fps, transformer=recipe.network(cache.action_space), codec=recipe.codec.model,
            steps=steps, **asdict(recipe.context.rule), context_sigma=recipe.context_sigma,
            columns_per_degree=recipe.columns_per_degree if cache.action_space.look_axes else 0.0,
            lossy_codec=self.lossy_codec)

    def save_codec(self, codec, cache, folder, is_first):
        """Write the codec and the scenes to start from into `folder`; all processes call it together."""
        weights = full_state(codec)
        if is_first:
            save_weights(folder / "codec.safetensors", weights, torch.bfloat16)
            if not (folder / "scenes").exists():
                export_scenes(cache, folder / "scenes", cache.env)

    def _frozen(self, codec):
        return codec.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)


class FrameEncoder:
    """Function of the frames of a rollout, uint8 [n H W 3], that gives their latents, float16 [n c h w].

    A rollout is encoded in batches of its own, so that its latents depend on no other frames: in another
    batch the last bit of some would differ.
    """

    def __init__(self, codec, device, dtype, batch=64):
        self.codec, self.device, self.batch = copy.deepcopy(codec).to(device, dtype), device, batch

    @torch.inference_mode()
    def __call__(self, frames):
        parts = [torch.from_numpy(np.array(frames[i:i + self.batch]))
                 for i in range(0, len(frames), self.batch)]
        return np.concatenate([self.codec.encode_uint8(part.to(self.device)).cpu().numpy() for part in parts],
                              dtype=np.float16)


def encode_frames(codec, cache, path, device, dtype):
    """Write latents of all frames of a FrameCache, as float16 [N c h w], to the file `path`."""
    encode, shape = FrameEncoder(codec, device, dtype), None
    with replacing(path) as temporary, track(total=len(cache.frames), desc="encode", unit="frame") as bar:
        for start, length, _ in cache.episodes.tolist():
            made = encode(cache.frames[start:start + length])
            if shape is None:
                shape = (len(cache.frames), *made.shape[1:])
                latents = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            latents[start:start + length] = made
            bar.update(length)
        latents.flush()


def teacher_and_student(recipe, folder, world, network):
    """{"teacher", "student": Transformer} of a world in `folder` that has both files.

    network  function of a file name: its Transformer

    The world's student is taken where no stage begins one and it plays in the recipe's number of steps;
    otherwise the AR teacher stands in for it.
    """
    teacher = student = network("teacher.safetensors")
    if not recipe.begins_student:
        if world.steps == recipe.student_steps:
            student = network("model.safetensors")
        else:
            log.warning("%s plays in %d steps, not in %d: its AR teacher takes its student's place", folder,
                        world.steps, recipe.student_steps)
    return {"teacher": teacher, "student": student}
