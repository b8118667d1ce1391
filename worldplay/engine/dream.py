"""A World made of transformer, codec, KV cache and sampler: it generates a frame or more for every action."""
import logging
import time

import numpy as np
import torch
from einops import rearrange

from worldplay import runtime
from worldplay.action import Action
from worldplay.engine.batch import DreamBatch
from worldplay.engine.code_choice import code_of, uninstall
from worldplay.engine.controls import controls_of
from worldplay.engine.graphs import GraphChoice
from worldplay.engine.measure import follow, reconstruct
from worldplay.engine.networks import new_cache
from worldplay.engine.quality import PlayQuality
from worldplay.engine.sampler import ChunkSampler
from worldplay.engine.start import TEXT, checked_frames, scene_of, start_names, whole_chunks
from worldplay.engine.state import PlayState, pack_state, unpack_state
from worldplay.engine.threads import Threads
from worldplay.errors import RESTORE, WorldError
from worldplay.models.codecs.image import to_float
from worldplay.models.transformer import fuse_for_inference
from worldplay.worlds.config import ImageWorldConfig
from worldplay.worlds.weights import world_hash

log = logging.getLogger(__name__)

PATHS = ("eager", "compiled")  # how passes run


class DreamWorld:
    """The learned world (contract: worldplay.world.World).

    state  PlayState; only resets, steps and `restore` change it
    """

    def __init__(self, config, transformer, codec, *, device, dtype, dtype_reason, steps=None, seed=0,
                 folder=None, parts=None):
        """transformer, codec: networks with their weights, moved to device and dtype here and kept.
        parts: worldplay.engine.parts.Parts, which encode prompts and starts; None: prompts come with their
        rows, and a start is encoded by codec.
        """
        steps = config.steps if steps is None else steps
        if steps not in (1, 2, 4):
            raise ValueError(f"--steps {steps}: expected 1, 2 or 4 sampling steps per frame")
        self.config, self.folder, self._parts = config, folder, parts
        self.name, self.action_space = config.name, config.action_space
        self.frame_size, self.fps, self.scenes = config.frame_size, config.fps, start_names(config, folder)
        self.device, self.dtype = device, dtype
        self.transformer = fuse_for_inference(transformer.to(device, dtype).eval().requires_grad_(False))
        self.codec = codec.to(device, dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.sampler = ChunkSampler(config, self.transformer, self.codec, device=device, dtype=dtype,
                                    steps=steps)
        self.controls = controls_of(config, device)
        self.info = {"device": device.type, "device_name": runtime.device_name(device),
                     "dtype": str(dtype).removeprefix("torch."), "dtype_reason": dtype_reason, "steps": steps,
                     "window": config.window, "frames_per_chunk": config.frames_per_chunk,
                     "frames_per_latent": codec.frames_per_latent, "path": "eager", "graph": False,
                     "context_sigma": config.context_sigma, "env": config.env, "seed": seed,
                     "world_hash": world_hash(folder, config, parts.codec_file(folder)) if parts else ""}
        self.threads = Threads(device, self.info)
        self.quality = PlayQuality(config, self.sampler, self.info)
        self.graphs = GraphChoice(self)
        self._code, self._takes_over, self._chosen = None, False, "eager"
        self._is_made_again = False
        uninstall(self.transformer)  # it may be that of another world, which has compiled code
        self.state = self._new_state(seed)

    # The World contract

    @torch.inference_mode()
    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """See World.reset; of a long context the last frames that the window has room for are attended to.

        The scene "text" is what the prompt alone begins with: the first chunk generated, standing still
        unless `actions` give the action of each of its latents after the first. Frames are generated in whole
        chunks, so a context is brought to whole ones too: see worldplay.engine.start.whole_chunks.

            Raises WorldError("bad_prompt") for a transformer that reads text before it was given any.
        """
        if self.config.transformer.text_dim and self.state.text is None:
            raise WorldError("bad_prompt", f"{self.name} shows what a text says: give it one (set_prompt)")
        seed = self.state.seed if seed is None else seed
        is_from_text = frames is None and (scene or self.scenes[0]) == TEXT
        if frames is None and not is_from_text:
            start = scene_of(self.config, self.folder, self.scenes, scene or self.scenes[0], seed)
            frames, actions = start.frames, start.actions
        if not is_from_text:
            frames = checked_frames(frames, actions, self.frame_size)
        self.state = self._new_state(seed, self.state.text, self.state.prompt)
        self.info |= {"seed": seed, "note": "", "start_codec": None}
        self._take_over(is_start=True)
        if is_from_text:
            self.state.has_begun = True
            first = [Action(), *(actions or ()), *[Action()] * self.config.frames_per_chunk]
            shown = np.concatenate(list(self._generate(first[:self.config.frames_per_chunk])))
            self.graphs.update()
            return shown
        self._commit_start(*whole_chunks(frames, actions, frames_per_chunk=self.config.frames_per_chunk,
                                         frames_per_latent=self.codec.frames_per_latent))
        self.state.first_generated, self.state.has_begun = self.state.frame, True
        self.graphs.update()
        return frames

    @torch.inference_mode()
    def set_prompt(self, prompt, rows=None):
        """Give a transformer that reads text another prompt from the next chunk on; the past stays.

        rows  its text rows [l text_dim]; None encodes the prompt

            Raises WorldError("bad_prompt") for a world that reads no text, and others where it cannot be
            encoded.
        """
        if not self.config.transformer.text_dim:
            raise WorldError("bad_prompt", f"{self.name} reads no text")
        rows = self._parts.text_rows(prompt) if rows is None else rows
        self.state.text = self.transformer.encode_text(rows[None].to(self.device, self.dtype))
        self.state.prompt = self.info["prompt"] = prompt

    @torch.inference_mode()
    def step(self, action):
        """See World.step: sample, decode, yield; then write the frames' clean context to the cache.

        Each latent of a chunk gets an equal share of the turn, and all of the keys. So an action may turn by
        the look limit for every latent (ActionSpace.over).

            Raises WorldError("not_finite") where a frame is NaN or infinite; then a reset is needed to go on.
        """
        size = self.config.frames_per_chunk
        share = action.share(size)
        self.info["note"] = self.controls.note(share)
        for shown in self._generate([share] * size):
            yield from shown

    def close(self):
        """Stop the compilation of code that is under way; nothing else is held open."""
        if self._code is not None:
            self._code.close()

    # Beyond the contract

    follow, reconstruct = follow, reconstruct  # for evaluation

    def batch(self, size):
        """A DreamBatch of so many plays of this world."""
        return DreamBatch(self, size)

    @torch.inference_mode()
    def walk(self, actions):
        """Yield the frames, uint8 [H W 3], of every action; for callers that know all of them ahead.

        A latent of a chunk then has its own action, where `step` divides one among them. The last chunk is
        filled up with the last action; frames beyond it are not yielded.
        """
        for shown in self._by_action(actions):
            yield from shown

    @torch.inference_mode()
    def rollout(self, actions, scene=None, *, frames=None, past=None, seed=None):
        """Start again and yield the start, uint8 [n H W 3], then the frames of every action, as `walk`.

        frames  a context to start from instead of a scene, and past, its Actions, as for `reset`; None:
                standing still

        Of a text alone the start is the first latent only: those after it in the first chunk have the first
        actions, so n actions give the 1 + n latents that published scripts of camera motions give.
        """
        if frames is not None or (scene or self.scenes[0]) != TEXT:
            past = None if frames is None else list(past or [Action()] * len(frames))
            yield self.reset(scene, frames=frames, actions=past, seed=seed)
            yield from self._by_action(actions)
            return
        first = actions[:self.config.frames_per_chunk - 1]
        start = self.reset(scene, actions=first, seed=seed)
        yield start[:1]
        yield from rearrange(start[1:], "(t n) H W c -> t n H W c",
                             n=self.codec.frames_per_latent)[:len(first)]
        yield from self._by_action(actions[len(first):])

    def snapshot(self):
        """A PlayState; after `restore` of it the same actions give the same frames.

        Whether passes run eager or compiled is no part of it: the two round differently.
        """
        if self.state.is_mid_step:
            raise WorldError("unfinished_step", "a snapshot is taken between steps")
        return self.state.clone()

    def restore(self, state):
        """Go back to a `snapshot`, which stays valid."""
        self.state = state.clone()
        self.info["seed"] = state.seed
        if state.text is not None:
            self.info["prompt"] = state.prompt

    def pack(self):
        """What `snapshot` holds as (fields of JSON, {name: numpy array}), for a file; `unpack` takes it."""
        if self.state.is_mid_step:
            raise WorldError("unfinished_step", "a snapshot is taken between steps")
        return pack_state(self.state)

    @torch.inference_mode()
    def unpack(self, fields, arrays):
        """The PlayState, to be restored, that `pack` gave, also of this world in another process.

            Raises WorldError("bad_save") where it is damaged or another world's.
        """
        try:
            return unpack_state(fields, arrays, self._new_state(0))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise WorldError("bad_save", f"what was saved is no state of {self.name} "
                                         f"({str(error).splitlines()[0]})") from None

    def render_fully(self):
        """Decode by the full codec from the next reset on: finer frames than play has the time for.

            Raises WorldError("not_found") where there is none, or it is not here, "device" where it has no
            room.
        """
        if self._parts is None or isinstance(self.config, ImageWorldConfig):
            raise WorldError("not_found", f"{self.name} has no other codec than its own")
        self.sampler.decoder, self.info["decoder"] = self._parts.renderer(), "full"
        self.graphs.forget()

    def compile(self, *, wait=False):
        """Run passes by compiled code, from the first chunk that begins after it is ready; `wait` waits for
        it here.

        info["path"] says which of the two ran, "eager" or "compiled": their frames differ by rounding.

            Raises WorldError("device") where there can be none, with `wait`; otherwise the log says so, and
            play goes on.
        """
        self._code = code_of(self.config, self.dtype, self.device, self.transformer, gives_way=not wait)
        self._takes_over = not wait
        if wait:
            self._code.wait()
            self.take_path("compiled")
        elif self._code.loads_at_once and self._code.is_cached():
            self._code.join()  # so that the first frame has it

    def take_path(self, path):
        """Run passes "eager" or "compiled" from the next chunk on, the latter after `compile` with `wait`.

            Raises WorldError("unfinished_step") amid a chunk, which would be sampled by one and committed by
            the other.
        """
        if self.state.is_mid_step:
            raise WorldError("unfinished_step", "passes change to another path between steps only")
        self._use(path)
        self._chosen, self._takes_over = path, False

    def run_as(self, path=None, threads=None, steps=None, window=None):
        """From the next step on run passes by this path, where it can, with so many of torch's threads and
        sampling steps and from this window, as steps ran that are made again; None: as the world itself
        chooses.
        """
        self.threads.fix(threads)
        self.quality.fix(steps=steps, window=window)
        self._is_made_again = path is not None
        wanted = self._chosen if path is None else path
        if wanted != self.info["path"] and wanted in ("eager", self._chosen):
            self._use(wanted)

    # Inside

    def _use(self, path):
        if path == "compiled":
            self._code.install(self.transformer)
        else:
            uninstall(self.transformer)
        self.info["path"] = path

    def _take_over(self, *, is_start=False):
        """Change to the number of threads that is due, and to compiled code that has become ready.

        From graphs of eager passes only at a start: until graphs of the code are made, it may be slower.
        """
        self.threads.update()
        if (not self._takes_over or self._is_made_again or self.graphs.is_measuring
                or self.graphs.are_used() and not is_start):
            return
        if self._code.is_ready():
            self.take_path("compiled")
        elif self._code.problem:
            self._takes_over = False
            log.warning("play goes on without compiled code (%s)",
                        self._code.problem)

    def _new_state(self, seed, text=None, prompt=None):
        cache = new_cache(self.config, 1, self.dtype, self.device)
        return PlayState(cache, self.controls.start(1), seed, text, prompt)

    def _by_action(self, actions):
        """As `walk`, but the frames of an action, those of one latent, together: uint8 [n H W 3]."""
        size = self.config.frames_per_chunk
        for i in range(0, len(actions), size):
            chunk = actions[i:i + size]
            for j, shown in enumerate(self._generate([*chunk, *chunk[-1:] * (size - len(chunk))])):
                if j < len(chunk):
                    yield shown

    def _generate(self, actions):
        """Yield the frames of each latent of the next chunk, uint8 [n H W 3]; then commit it. One action a
        latent.

        A reset or `restore` between two frames ends the chunk: the rest of it is of another past.
        """
        state = self.state
        if state.is_mid_step:
            raise WorldError("unfinished_step", "the previous step's iterator was not run to its end")
        if not state.has_begun:
            raise WorldError("ended", "reset the world before the first step")
        begun, shown = time.perf_counter(), 0.0
        self._take_over()
        self.quality.update(state)
        chunk, controls = self._prepare([[action] for action in actions])
        state.is_mid_step, text = True, state.text
        sigmas = self.sampler.first_sigmas if state.frame == state.first_generated else self.sampler.sigmas
        player = self.graphs.player(state.cache, sigmas)
        self.info["graph"] = player is not self.sampler
        latents = player.sample(state.cache, chunk, seed=state.seed, text=text, sigmas=sigmas)
        for latent in latents[0]:
            frames = self._decode(latent, player)
            left = time.perf_counter()
            yield frames
            shown += time.perf_counter() - left
            if self.state is not state:
                return
        self._commit(latents, chunk, controls, text, player)
        state.is_mid_step = False
        if self.graphs.is_measuring:
            return
        num_frames = self.config.frames_per_chunk * self.codec.frames_per_latent
        self.quality.worked((time.perf_counter() - begun - shown) / num_frames)

    def _commit_start(self, frames, actions):
        """Write frames uint8 [n H W 3] of whole chunks to the cache; actions: a list for each of their
        latents.
        """
        pixels = runtime.upload(torch.from_numpy(frames), self.device)
        if isinstance(self.config, ImageWorldConfig):
            latents = self.codec.encode_uint8(pixels)[None]
        else:
            encoder = self._parts and self._parts.encoder(len(frames))
            self.info["start_codec"] = "full" if encoder else "small"
            latents = (encoder or self.codec).encode(to_float(pixels)[None])
            for latent in latents[0]:
                self._decode(latent, self.sampler)  # so that the codec remembers them
        size = self.config.frames_per_chunk
        for i in range(0, latents.shape[1], size):
            chunk, controls = self._prepare(actions[i:i + size])
            self._commit(latents[:, i:i + size], chunk, controls, self.state.text, self.sampler)

    def _prepare(self, actions):
        """(Chunk of the next latents, state of the controls after it); actions: a list for each latent."""
        try:
            vectors = np.array([[self.action_space.encode(action) for action in latent]
                                for latent in actions])
        except ValueError as error:
            raise WorldError("bad_action", str(error)) from None
        vectors = torch.from_numpy(vectors)[None]
        conditions, controls = self.controls.conditions(self.state.controls, vectors, self.state.frame)
        return self.sampler.prepare(self.state.cache, self.state.frame, conditions), controls

    def _commit(self, latents, chunk, controls, text, player):
        """Write the next chunk to the cache, under the text it was sampled by, and move on."""
        state = self.state
        player.commit(state.cache, latents, chunk, seed=state.seed, text=text)
        state.controls = self.controls.settle(controls, state.cache)
        state.frame += self.config.frames_per_chunk

    def _decode(self, latent, player):
        """uint8 [n H W 3]: the frames of the next latent [c h w]; WorldError("not_finite") unless both are
        finite.

        Whether they are comes with the frames in one copy, the only one that waits for the device.
        """
        frames, self.state.decoder = player.decode(latent[None], self.state.decoder)
        copied = frames.cpu().numpy()
        if copied[-1]:
            self.state.has_begun = self.state.is_mid_step = False
            raise WorldError("not_finite",
                             f"{self.name}: a frame came out as numbers that are not finite; start again, "
                             f"and if it happens again, the world is damaged: {RESTORE}")
        return copied[:-1].reshape(-1, *self.frame_size, 3)
