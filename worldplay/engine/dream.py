"""A World made of transformer, codec, KV cache and sampler: it dreams a frame or more for every action."""
import logging

import numpy as np
import torch
from einops import rearrange

from worldplay import runtime
from worldplay.action import Action
from worldplay.diffusion import add_noise, frame_noise, sample_frame, warped_sigmas
from worldplay.engine.cache import new_cache
from worldplay.engine.compiled import CompiledCode, Passes, uninstall
from worldplay.engine.controls import controls_of
from worldplay.errors import RESTORE, WorldError
from worldplay.models.codecs.image import to_float, to_uint8
from worldplay.models.transformer import fuse_for_inference
from worldplay.worlds.scene import Scene, load_scene, scene_names
from worldplay.worlds.weights import world_hash

log = logging.getLogger(__name__)

TEXT = "text"  # the scene of a world that begins from its prompt alone
CONTEXT_STEP = 1000  # the sampling step that names the noise of a committed context frame in frame_noise


class DreamWorld:
    """The learned world (contract: worldplay.world.World).

    It holds the KV cache, the index of the next frame, what actions and decoded latents have added up to, and the
    seed; `snapshot` gives them all.
    """

    def __init__(self, config, transformer, codec, *, device, dtype, dtype_reason, steps=None, seed=0, folder=None,
                 parts=None):
        """transformer, codec: networks with their weights, moved to device and dtype here and kept.
        parts: worldplay.engine.parts.Parts, which encode prompts and starts; None: prompts come with their rows, and a
        start is encoded by codec.
        """
        self.config, self._parts = config, parts
        self.name, self.action_space = config.name, config.action_space
        self.frame_size, self.fps = config.frame_size, config.fps
        self.device, self.dtype, self.seed = device, dtype, seed
        self.transformer = fuse_for_inference(transformer.to(device, dtype).eval().requires_grad_(False))
        self.codec = codec.to(device, dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
        self._decoder = self.codec
        self.folder = folder
        self.scenes = scene_names(folder / "scenes") if folder else ()
        if config.transformer.text_dim:
            self.scenes += (TEXT,)
        self.scenes = self.scenes or ("random",)
        steps = config.steps if steps is None else steps
        if steps not in (1, 2, 4):
            raise ValueError(f"--steps {steps}: expected 1, 2 or 4 sampling steps per frame")
        self.sigmas, self.first_sigmas = warped_sigmas(steps), warped_sigmas(max(steps, config.first_steps))
        self.info = {"device": device.type, "device_name": runtime.device_name(device),
                     "dtype": str(dtype).removeprefix("torch."), "dtype_reason": dtype_reason, "steps": steps,
                     "window": config.window, "frames_per_chunk": config.frames_per_chunk, "path": "eager",
                     "context_sigma": config.context_sigma, "env": config.env, "seed": seed,
                     "world_hash": world_hash(folder, config, parts.codec_file(folder)) if parts else ""}
        self.controls, self.text = controls_of(config, dtype, device), None
        self._code, self._takes_over = None, False
        uninstall(self.transformer)  # it may be that of another world, which has compiled code
        self._begin()

    # The World contract

    @torch.inference_mode()
    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """See World.reset; of a long context the last frames that the window has room for are attended to.

        The scene "text" is what the prompt alone begins with: the first chunk made, standing still unless `actions`
        say what leads to its latents after the first one. Frames are made in whole chunks of latents, so a context is
        brought to whole ones too: it loses its oldest frames, or, when it is shorter than a chunk (an image), begins
        with copies of its first frame, standing still.

            Raises WorldError("bad_prompt") for a transformer that reads text before it was given any.
        """
        if self.config.transformer.text_dim and self.text is None:
            raise WorldError("bad_prompt", f"{self.name} shows what a text says: give it one (set_prompt)")
        seed = self.seed if seed is None else seed
        is_from_text = frames is None and (scene or self.scenes[0]) == TEXT
        if frames is None and not is_from_text:
            start = self._scene(scene, seed)
            frames, actions = start.frames, start.actions
        if not is_from_text:
            frames = self._check_context(frames, actions)
        self.seed = self.info["seed"] = seed
        self.info |= {"note": "", "start_codec": None}
        self._begin()
        self._take_over()
        self.has_begun = True
        if is_from_text:
            first = [Action(), *(actions or ()), *[Action()] * self.config.frames_per_chunk]
            return np.concatenate(list(self._make(first[:self.config.frames_per_chunk])))
        self._remember(*self._whole_chunks(frames, actions))
        self.first_made = self.frame
        return frames

    @torch.inference_mode()
    def set_prompt(self, prompt, rows=None):
        """What the frames show from the next chunk on, for a transformer that reads text; the past stays.

        rows  its text rows [l text_dim]; None encodes the prompt

            Raises WorldError("bad_prompt") for a world that reads no text, and others where it cannot be encoded.
        """
        if not self.config.transformer.text_dim:
            raise WorldError("bad_prompt", f"{self.name} reads no text")
        rows = self._parts.text_rows(prompt) if rows is None else rows
        self.text, self.info["prompt"] = self.transformer.encode_text(rows[None].to(self.device, self.dtype)), prompt

    @torch.inference_mode()
    def step(self, action):
        """See World.step: sample, decode, yield; then write the frames' clean context to the cache.

        Each latent of a chunk has the action's share: what a hand turns while one is made is no more for being made
        into several. So an action may turn by the look limit for every latent (ActionSpace.over).
        """
        size = self.config.frames_per_chunk
        share = action.share(size)
        self.info["note"] = self.controls.note(share)
        for shown in self._make([share] * size):
            yield from shown

    def close(self):
        """Code that is still being compiled is given up; nothing else is held open."""
        if self._code is not None:
            self._code.close()

    # Beyond the contract

    def compile(self, *, wait=False):
        """Run passes by compiled code: from the chunk on before which it is there, or, with `wait`, from the next one.

        info["path"] says which of the two ran, "eager" or "compiled": their frames differ by rounding.

            Raises WorldError("device") where it cannot be had, with `wait`; otherwise the log says so, and play goes on.
        """
        h, w = self.config.latent_shape[1:]
        self._code = CompiledCode(Passes(
            config=self.config.transformer, num_frames=self.config.frames_per_chunk, window=self.config.window,
            num_tokens=self.config.transformer.num_tokens(h, w), dtype=self.info["dtype"], device=self.device.type))
        self._takes_over = not wait
        if wait:
            self._code.wait()
            self.take_path("compiled")

    def render_fully(self):
        """Decode by the full codec from the next reset on: finer frames than play has the time for.

            Raises WorldError("not_found") where this world has none or it is not here, "device" where it has no room.
        """
        if self._parts is None or self.config.codec is not None:
            raise WorldError("not_found", f"{self.name} has no other codec than its own")
        self._decoder, self.info["decoder"] = self._parts.renderer(), "full"

    def take_path(self, path):
        """Run passes "eager" or "compiled" from the next chunk on, the latter after `compile` with `wait`.

            Raises WorldError("unfinished_step") amid a chunk, which would be made by the one and committed by the other.
        """
        if self.is_mid_step:
            raise WorldError("unfinished_step", "passes go over to another path between steps")
        if path == "compiled":
            self._code.install(self.transformer)
        else:
            uninstall(self.transformer)
        self.info["path"], self._takes_over = path, False

    @torch.inference_mode()
    def walk(self, actions):
        """Yield the frames, uint8 [H W 3], of every action; for those who know them ahead, as an evaluation.

        A frame of a chunk then has its own action, where `step` divides one among them. The last chunk is
        filled up with the last action; frames beyond it are not shown.
        """
        for shown in self._walk(actions):
            yield from shown

    @torch.inference_mode()
    def rollout(self, actions, scene=None, *, frames=None, seed=None):
        """Start again and yield what is shown, uint8 [n H W 3]: the start, then the frames of every action, as `walk`.

        frames  a context to start from instead of a scene; as for `reset`

        What a prompt begins with is here its first latent alone: those after it in the first chunk have the first
        actions, so n actions make the 1 + n latents that published scripts of camera motions make.
        """
        if frames is not None or (scene or self.scenes[0]) != TEXT:
            still = None if frames is None else [Action()] * len(frames)
            yield self.reset(scene, frames=frames, actions=still, seed=seed)
            yield from self._walk(actions)
            return
        first = actions[:self.config.frames_per_chunk - 1]
        start = self.reset(scene, actions=first, seed=seed)
        yield start[:1]
        yield from rearrange(start[1:], "(t n) H W c -> t n H W c", n=self.codec.frames_per_latent)[:len(first)]
        yield from self._walk(actions[len(first):])

    def snapshot(self):
        """Everything that decides the frames to come; the same actions after `restore` give the same frames.

        Whether passes run eager or compiled is no part of it: the two round differently.
        """
        if self.is_mid_step:
            raise WorldError("unfinished_step", "a snapshot is taken between steps")
        return {"cache": self.cache.clone(), "frame": self.frame, "first_made": self.first_made,
                "told": self.told, "decoded": self.decoded, "seed": self.seed, "text": self.text,
                "prompt": self.info.get("prompt")}

    def restore(self, state):
        """Go back to a `snapshot`, which stays valid."""
        self.cache, self.is_mid_step = state["cache"].clone(), False
        self.frame, self.first_made = state["frame"], state["first_made"]
        self.told, self.decoded, self.text = state["told"], state["decoded"], state["text"]
        self.has_begun = True
        if self.text is not None:
            self.info["prompt"] = state["prompt"]
        self.seed = self.info["seed"] = state["seed"]

    @torch.inference_mode()
    def follow(self, frames, actions, others=(), *, start, is_free=False):
        """Frame `start` and all later ones of real sequences, each chunk made from the real frames before it.

        frames   uint8 [b n H W 3]; of free play those before `start` are enough
        actions  float32 [b n a], encoded; actions[:, i] caused frames[:, i], actions[:, 0] is ignored
        others   list of more such arrays: what another action makes of the same past
        is_free  free play: each chunk is made from the chunks made before it, as by `reset` and `walk`, in a batch
        start    at least frames_per_chunk; a chunk begins there, and what is no whole one before it is left out
        Yields   [uint8 [b H W 3], ...], one for `actions` and each of `others`, n - start times
        """
        (b, n), size = actions.shape[:2], self.config.frames_per_chunk
        skipped = start % size
        actions, *others = (torch.as_tensor(vectors) for vectors in (actions, *others))
        cache, told = self._new_cache(b), self.controls.start(b)
        for i in range(skipped, n, size):
            chunk = np.arange(i, i + size).clip(max=n - 1)  # the last one is filled up with its last frame
            if i >= start:
                each = [self.controls.conditions(told, given[:, chunk], i - skipped)[0] for given in (actions, *others)]
                sigmas = self.first_sigmas if is_free and i == start else self.sigmas
                made = [self._sample(cache, self._place(cache, b, i - skipped, conditions), b, sigmas)
                        for conditions in each]
                for j in range(min(size, n - i)):
                    yield [self.codec.decode_uint8(x0[:, j]).cpu().numpy() for x0 in made]
            vectors = actions[:, chunk]
            if i == skipped:
                vectors[:, 0] = 0
            conditions, told = self.controls.conditions(told, vectors, i - skipped)
            if is_free and i >= start:
                latents = made[0]
            else:
                pixels = torch.from_numpy(rearrange(frames[:, chunk], "b t H W c -> (b t) H W c")).to(self.device)
                latents = rearrange(self.codec.encode_uint8(pixels), "(b t) c h w -> b t c h w", b=b)
            self._write(cache, latents, self._place(cache, b, i - skipped, conditions))

    @torch.inference_mode()
    def reconstruct(self, frames):
        """frames uint8 [b H W 3] through the codec and back: the ceiling of every prediction."""
        latents = self.codec.encode_uint8(torch.from_numpy(np.ascontiguousarray(frames)).to(self.device))
        return self.codec.decode_uint8(latents).cpu().numpy()

    # Inside

    def _take_over(self):
        """Let compiled code that has become ready run from here on."""
        if not self._takes_over:
            return
        if self._code.is_ready():
            self.take_path("compiled")
        elif self._code.problem:
            self._takes_over = False
            log.warning("play goes on without compiled code, which is not to be had here (%s)", self._code.problem)

    def _walk(self, actions):
        """Yield the frames of every action, uint8 [n H W 3], each of a latent of its own."""
        size = self.config.frames_per_chunk
        for i in range(0, len(actions), size):
            chunk = actions[i:i + size]
            for j, shown in enumerate(self._make([*chunk, *chunk[-1:] * (size - len(chunk))])):
                if j < len(chunk):
                    yield shown

    def _begin(self):
        """Nothing made, nothing told."""
        self.cache, self.told, self.decoded = self._new_cache(1), self.controls.start(1), None
        self.frame, self.first_made, self.has_begun, self.is_mid_step = 0, 0, False, False

    def _make(self, actions):
        """Yield the frames of each latent of the next chunk, uint8 [n H W 3]; then commit it. One action a latent."""
        if self.is_mid_step:
            raise WorldError("unfinished_step", "the previous step's iterator was not run to its end")
        if not self.has_begun:
            raise WorldError("ended", "reset the world before the first step")
        self._take_over()
        conditions, told = self.controls.conditions(self.told, self._vectors(actions), self.frame)
        self.is_mid_step = True
        placed = self._place(self.cache, 1, self.frame, conditions)
        x0 = self._sample(self.cache, placed, 1,
                          self.first_sigmas if self.frame == self.first_made else self.sigmas)
        for latent in x0[0]:
            yield self._decode(latent)
        self._commit(x0, placed, told)
        self.is_mid_step = False

    def _remember(self, frames, actions):
        """Write frames uint8 [n H W 3] that make whole chunks to the cache; one action for each of their latents."""
        pixels = runtime.upload(torch.from_numpy(frames), self.device)
        if self.codec.frames_per_latent == 1:
            latents = self.codec.encode_uint8(pixels)[None]
        else:
            encoder = self._parts and self._parts.encoder(len(frames))
            self.info["start_codec"] = "full" if encoder else "small"
            latents = (encoder or self.codec).encode(to_float(pixels)[None])
            for latent in latents[0]:
                self._decode(latent)  # what a video codec remembers of them
        vectors = self._vectors(actions)
        for i in range(0, latents.shape[1], self.config.frames_per_chunk):
            chunk = slice(i, i + self.config.frames_per_chunk)
            conditions, told = self.controls.conditions(self.told, vectors[:, chunk], self.frame)
            self._commit(latents[:, chunk], self._place(self.cache, 1, self.frame, conditions), told)

    def _decode(self, latent):
        """uint8 [n H W 3]: the frames of the next latent [c h w]."""
        frames, self.decoded = self._decoder.decode_next(latent[None], self.decoded)
        return to_uint8(frames)[0].cpu().numpy()

    def _place(self, cache, batch, frame, conditions):
        """The Chunk at `frame`, for all passes over it."""
        shape = batch, self.config.frames_per_chunk, *self.config.latent_shape
        return self.transformer.place(cache, shape, frame=frame, **conditions)

    def _sample(self, cache, placed, batch, sigmas):
        """x0 [b t c h w] of a Chunk."""
        def velocity(x, sigma):
            return self.transformer.denoise(x.to(self.dtype), sigma, cache, placed, self.text)

        def noise(step):
            return self._noise(placed.frame, step).expand(batch, -1, -1, -1, -1)
        return sample_frame(velocity, noise, sigmas)

    def _commit(self, x0, placed, told):
        """Write the chunk at self.frame to the cache and move on to the next one."""
        self._write(self.cache, x0, placed)
        self.told = self.controls.settle(told, self.cache)
        self.frame += self.config.frames_per_chunk

    def _write(self, cache, x0, placed):
        sigma = self.config.context_sigma
        context = add_noise(x0.float(), self._noise(placed.frame, CONTEXT_STEP), sigma) if sigma else x0
        self.transformer.commit(context.to(self.dtype), sigma, cache, placed, self.text)

    def _noise(self, frame, step):
        """[1 t c h w] of the chunk at `frame`; every frame's is its own, whatever the chunk."""
        shape = (1, 1, *self.config.latent_shape)
        noise = torch.cat([frame_noise(self.seed, frame + i, step, shape)
                           for i in range(self.config.frames_per_chunk)], dim=1)
        return runtime.upload(noise, self.device)

    def _vectors(self, actions):
        """Encoded actions, float32 [1 t a] on the CPU."""
        try:
            vectors = np.stack([self.action_space.encode(action) for action in actions])
        except ValueError as error:
            raise WorldError("bad_action", str(error)) from None
        return torch.from_numpy(vectors)[None]

    def _whole_chunks(self, frames, actions):
        """(frames, an action for each of their latents) of whole chunks, as `reset` says."""
        size, per_latent = self.config.frames_per_chunk, self.codec.frames_per_latent
        latents = 1 + (len(frames) - 1) // per_latent
        wanted = 1 + per_latent * (max(size, latents - latents % size) - 1)
        missing = max(0, wanted - len(frames))
        frames = np.concatenate([frames[:1].repeat(missing, axis=0), frames])[-wanted:]
        actions = ([Action()] * (missing + 1) + list(actions[1:]))[-wanted::per_latent]
        return frames, [Action(), *actions[1:]]

    def _new_cache(self, batch):
        return new_cache(self.config, batch, self.dtype, self.device)

    def _scene(self, name, seed):
        if self.folder is None:
            rng = np.random.default_rng(seed)
            return Scene(name="random", frames=rng.integers(0, 256, (1, *self.frame_size, 3), np.uint8),
                         actions=[Action()], poses=None, origin={})
        scenes, name = self.folder / "scenes", name or self.scenes[0]
        if TEXT not in self.scenes and not scene_names(scenes):
            raise WorldError("bad_scene", f"{self.name} has no scenes: {scenes} is missing or empty; "
                             f"{RESTORE}, or begin from a picture with --image")
        if name not in self.scenes:
            raise WorldError("bad_scene", f"{self.name} has no scene {name!r}; it has {', '.join(self.scenes)}")
        return load_scene(scenes / f"{name}.safetensors", self.frame_size)

    def _check_context(self, frames, actions):
        frames = np.ascontiguousarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*self.frame_size, 3) or not len(frames):
            raise WorldError("bad_scene", f"context frames are {frames.dtype} {frames.shape}, expected uint8 "
                             f"[n {self.frame_size[0]} {self.frame_size[1]} 3]")
        if actions is None or len(actions) != len(frames):
            raise WorldError("bad_scene", f"{len(frames)} context frames need as many actions")
        return frames
