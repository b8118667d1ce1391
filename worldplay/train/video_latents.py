"""Runs on latents of the Wan VAE: check clips, encode windows, load initial weights, write the world."""
import logging
import math
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import torch
from PIL import Image

from worldplay import runtime
from worldplay.camera import CAMERA_SPACE, TRAINING_INTRINSICS, moves_camera
from worldplay.data.frame_cache import is_held_out
from worldplay.data.lerobot import text_of
from worldplay.engine.parts import Parts
from worldplay.files import read_json
from worldplay.models.codecs.image import to_float, to_uint8
from worldplay.models.text import check_packages
from worldplay.models.transformer import Transformer
from worldplay.models.weights import fingerprint
from worldplay.train.finetune import check_sizes, has_teacher
from worldplay.train.image_latents import teacher_and_student
from worldplay.train.video_windows import PER_LATENT, Cut, TextRows, VideoWindows
from worldplay.train.window_store import WindowStore
from worldplay.train.windows import write_missing
from worldplay.worlds import catalog
from worldplay.worlds.config import ImageWorldConfig, WorldConfig
from worldplay.worlds.scene import fit
from worldplay.worlds.weights import load_into, load_weights

log = logging.getLogger(__name__)


class VideoLatents:
    """A published world, or a run that went on from one: its parts are shared, its networks begin the run's.

    A folder with teacher.safetensors has an AR teacher and a student. Otherwise its one network is what the
    catalog says: bidirectional, an AR teacher, or a few-step student; a world that the catalog does not know
    has a student.

    world  its VideoWorldConfig
    """
    context_walk = 0  # there is no real game to walk in beside such latents
    can_stream = False

    def __init__(self, recipe, folder, device):
        """Raises ValueError where the world in `folder` is not one that the recipe goes on from, WorldError
        where a part that it shares is missing.
        """
        path = folder / "config.json"
        self.folder, self.recipe = folder, recipe
        self.world = WorldConfig.from_json(read_json(path), path)
        if isinstance(self.world, ImageWorldConfig):
            raise ValueError(f"--init-from {folder}: this world has a codec of its own, {recipe.name} goes "
                             "on from one of the Wan latents (python -m worldplay worlds lists them); or "
                             "take finetune")
        sizes, had_camera = recipe.transformer, self.world.transformer.has_camera
        if had_camera and not sizes.has_camera:
            raise ValueError(f"--init-from {folder}: it moves a camera, {recipe.name} does not; take "
                             "wan-chunk")
        check_sizes(replace(sizes, has_camera=had_camera), self.world, folder)
        if tuple(recipe.latents) != self.world.latent_shape:
            raise ValueError(f"--init-from {folder}: its latents are {self.world.latent_shape}, this "
                             f"recipe's {tuple(recipe.latents)} (--latents)")
        self.role = self._role()
        self._check_role()
        self.parts, self.device = Parts(self.world, device), device
        for role in ("codec", "vae", "text"):
            self.parts.part(role)  # which says what is missing before anything is written
        if self.role is not None:
            log.info("%s has one network, %s: stages begin from it", folder.name, _ROLES[self.role])

    def no_compile(self):
        """As in ImageLatents."""
        fails = self.device.type == "cpu"
        return "for blocks with text PyTorch 2.13 writes C++ that does not compile" if fails else None

    # What clips are to it

    def check_data(self, data, where):
        """Raise ValueError for clips, a LeRobotFolder at `where`, that it cannot learn, before anything is
        written.

            Raises WorldError where a package is missing that their texts need.
        """
        check_packages()
        source, cut = data.source, self._cut(data.source.fps)
        if cut.ratio < 1:
            raise ValueError(f"--data {where}: {source.fps:g} frames/s, but {self.world.name} plays "
                             f"{self.world.fps:g}; whole frames can be left out, none can be made: record at "
                             "that rate or a higher one")
        if self.recipe.transformer.has_camera and not moves_camera(source.action_space):
            raise ValueError(f"--data {where}: none of its actions (keys "
                             f"{' '.join(source.action_space.keys) or 'none'}) moves a camera; record with w "
                             "a s d or the mouse, or train wan-frame, which has no camera")
        if not self.recipe.text and not all(text_of(episode) for episode in data.episodes):
            raise ValueError(f"--data {where}: episodes without a task text, and {self.world.name} reads "
                             "what it shows; say it for all of them (--text \"...\")")
        for split, held_out in (("training", False), ("held-out", True)):
            lengths = [episode["length"] for episode in data.episodes
                       if is_held_out(episode["seed"]) == held_out]
            if max(lengths, default=0) < cut.num_rows:
                raise ValueError(f"--data {where}: no {split} episode has {cut.num_rows} frames, "
                                 f"{cut.num_rows / source.fps:.1f} s, for the {self.recipe.length} latents "
                                 "of a window (--length); record longer ones")
        if cut.ratio > 1:
            log.info("%g frames/s of the clips are taken as %g by leaving out whole frames", source.fps,
                     self.world.fps)

    def bytes_per_frame(self, source):
        """Bytes of the latents of a frame of a Source, on the average."""
        return 2 * math.prod(self.recipe.latents) * self.recipe.length / self._cut(source.fps).num_rows

    def windows(self, cache, codec, run):
        """VideoWindows of a FrameCache, made once; None where the call's time ended before.

        run: the Chain, for its folders and processes
        """
        place, processes = run.place, run.processes
        cut = self._cut(cache.fps)
        starts = {held_out: cut.starts(cache.split(name))
                  for held_out, name in ((False, "train"), (True, "held_out"))}
        texts = TextRows(place("texts"), self._texts(cache), self.world.transformer)
        if processes.is_first:
            texts.make(self.parts)
        processes.wait()
        store = self._store(place("latents"), np.concatenate(list(starts.values())), processes)
        is_missing = processes.agree(bool(store.missing()))
        if is_missing and not self._encode(store, cache, cut, processes, run.deadline):
            return None
        return VideoWindows(store, starts, cache, cut, texts, self._text(cache), self._intrinsics())

    def _store(self, folder, rows, processes):
        """The WindowStore of the latents of windows that begin at `rows`, a file each."""
        made_by = {"codec": fingerprint(self.parts.part("vae") / "model.safetensors"), "fps": self.world.fps,
                   "frame_size": list(self.world.frame_size), "latents": self.recipe.length}
        if processes.is_first:
            WindowStore(folder, rows, batch=1, made_by=made_by)
        processes.wait()
        return WindowStore(folder, rows, batch=1, made_by=made_by)

    def _encode(self, store, cache, cut, processes, deadline):
        """Whether all latents are there; each window is encoded as a video of its own, as published."""
        vae = self.parts.vae(torch.float32)

        def make(number, starts):
            frames = np.stack([fit(Image.fromarray(cache.frames[row]), self.world.frame_size)
                               for row in cut.rows(starts[0])])
            with torch.inference_mode():
                return vae.encode(to_float(torch.from_numpy(frames).to(self.device))[None]).cpu().numpy()
        is_done = write_missing(store, make, processes, deadline, "encode")
        vae.to("cpu")
        runtime.release_memory(self.device)
        return is_done

    def _cut(self, fps):
        return Cut(fps / self.world.fps, self.recipe.length)

    def _text(self, cache):
        """Function of a row of the cache: what is seen there, in words."""
        return (lambda row: self.recipe.text) if self.recipe.text else cache.text_at

    def _texts(self, cache):
        return sorted({self._text(cache)(row) for row in cache.episodes[:, 0]})

    def _intrinsics(self):
        """(fx, fy) of the camera; of a network that gets one now, those of the published ones."""
        return (self.world.intrinsics or TRAINING_INTRINSICS) if self.recipe.transformer.has_camera else None

    # What it gives to the stages

    def codec(self):
        """What decodes latents for contact sheets."""
        return Pictures(self.parts.codec(self.folder).to(self.device).eval().requires_grad_(False))

    def networks(self, space):
        """{role: Transformer} of the world to go on from: bidirectional, teacher, student.

        A stage begins from the network of its role; a stage that is left out leaves it as it is. A world with
        a teacher alone gives it as student too, the same object. space: as ImageLatents.networks takes it.
        """
        if self.role is None:
            return teacher_and_student(self.recipe, self.folder, self.world, self._network)
        network = self._network("model.safetensors")
        return {self.role: network} | ({"student": network} if self.role == "teacher" else {})

    def _network(self, file):
        """A camera that it did not have begins without effect, as in minWM's first stage."""
        model = Transformer(self.recipe.transformer)
        weights = load_weights(self.folder / file)
        if model.config.has_camera and not self.world.transformer.has_camera:
            weights |= {name: torch.zeros_like(x) for name, x in model.state_dict().items()
                        if ".prope_o." in name}
        load_into(model, weights, self.folder / file)
        return model

    def _role(self):
        """Of its one network; None where it has a teacher and a student."""
        if has_teacher(self.folder):
            return None
        known = catalog.WORLDS.get(self.world.name)
        if known is None or known.few_steps:
            return "student"
        return "bidirectional" if known.bidirectional else "teacher"

    def _check_role(self):
        """Raise ValueError where a stage without a share leaves a role to a network that cannot play it."""
        recipe, has = self.recipe, f"--init-from {self.folder}: its one network is {_ROLES.get(self.role)}"
        lacks = recipe.lacks_bidirectional
        if lacks and self.role != "bidirectional":
            raise ValueError(f"--init-from {self.folder}: it has no bidirectional network, and stage {lacks} "
                             "needs one: give stage bidirectional a share (--bidirectional-loop.share), or "
                             "go on from wan-base or a world whose name ends in -bidirectional")
        if self.role in (None, "teacher") or recipe.teacher_forcing_loop.share:
            return
        is_causal_ode = recipe.causal_ode_loop.share and recipe.causal_ode.teacher == "causal"
        if recipe.causal_cd_loop.share or is_causal_ode:
            raise ValueError(f"{has}, and a student is distilled from an AR teacher: give stage "
                             "teacher_forcing a share, or go on from a world whose name ends in "
                             "-ar-diffusion")
        if self.role == "student" and not recipe.begins_student and self.world.steps != recipe.student_steps:
            raise ValueError(f"{has} of {self.world.steps} steps: --student-steps {self.world.steps}")
        if self.role == "bidirectional" and not recipe.begins_student:
            raise ValueError(f"{has}, and no stage makes a student of it: give stage teacher_forcing a share")

    # What it becomes

    def config(self, cache, steps):
        """VideoWorldConfig of the run's world: this one's parts and frames, the recipe's network and window,
        the clips' text.
        """
        recipe = self.recipe
        text, _ = Counter(map(self._text(cache), cache.split("train")[:, 0])).most_common(1)[0]
        gets_camera = recipe.transformer.has_camera and not self.world.transformer.has_camera
        space = CAMERA_SPACE if gets_camera else self.world.action_space
        return replace(self.world, name=recipe.name, transformer=recipe.transformer, steps=steps,
                       action_space=space, first_steps=recipe.dmd.first_steps,
                       context_sigma=recipe.context_sigma, prompt=text, intrinsics=self._intrinsics(),
                       **_play_rule(recipe))


    def save_codec(self, codec, cache, folder, is_first):
        """Nothing: the run's world shares the codec of the world it went on from."""


_ROLES = {"student": "a few-step student", "teacher": "an AR teacher", "bidirectional": "bidirectional"}


def _play_rule(recipe):
    """Fields of the window in play. Where training never rolled it, the first chunk stays, as published
    worlds play.
    """
    rule, chunk = asdict(recipe.context.rule), recipe.context.frames_per_chunk
    if recipe.length > recipe.context.window or recipe.context.window == chunk:
        return rule
    return rule | {"sink": chunk, "sink_position": "before_window"}


class Pictures:
    """A VideoCodec for contact sheets: latents become one picture each."""

    def __init__(self, codec):
        self.codec = codec

    @torch.no_grad()
    def decode_uint8(self, latents):
        """latents [n c h w], taken for the beginning of a video -> the last frame of each, uint8 [n H W
        3].
        """
        frames = self.codec.decode(latents[None].to(self.codec.dtype))
        return to_uint8(frames[0, ::PER_LATENT])
