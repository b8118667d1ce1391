"""Many plays of one learned world at once, in a batch: what agents learn in."""
import numpy as np
import torch

from worldplay.engine.networks import new_cache
from worldplay.engine.sampler import CONTEXT_STEP
from worldplay.engine.start import scene_of
from worldplay.errors import WorldError
from worldplay.worlds.config import ImageWorldConfig


class DreamBatch:
    """Plays of a DreamWorld with an image codec, one frame a chunk; its own state of play stays as it is.

    Play i of a start with `seed` follows from its scene and its actions as the world's own `reset` and `step`
    would have it with seed + i, but for rounding. Starts of different lengths are cut to the last frames of
    the shortest.

    size  number of plays
    """

    def __init__(self, world, size):
        """Raises WorldError("not_found") for a world that makes several frames at once."""
        config = world.config
        if not isinstance(config, ImageWorldConfig) or config.frames_per_chunk > 1:
            raise WorldError("not_found", f"{world.name} makes several frames at once; batches are of worlds "
                             "that make one")
        self.world, self.size = world, size
        self._cache, self._seeds = None, self._from(world.state.seed)

    @torch.inference_mode()
    def reset(self, scenes=None, *, seed=None):
        """Start all plays; returns the newest frames, uint8 [size H W 3].

        scenes  a name for each play; None: the world's scenes in turn
        seed    of the noise of the first play; None keeps the last one

            Raises WorldError("bad_scene") for a scene that is not there, or another number of them.
        """
        world, config = self.world, self.world.config
        if scenes is not None and len(scenes) != self.size:
            raise WorldError("bad_scene", f"{len(scenes)} scenes for {self.size} plays; name one for each")
        scenes = scenes or [world.scenes[i % len(world.scenes)] for i in range(self.size)]
        starts = [scene_of(config, world.folder, world.scenes, scene, 0) for scene in scenes]
        length = min(len(start.frames) for start in starts)
        frames = np.stack([start.frames[-length:] for start in starts])
        actions = np.stack([[world.action_space.encode(action) for action in start.actions[-length:]]
                            for start in starts])
        self._seeds = self._seeds if seed is None else self._from(seed)
        self._cache = new_cache(config, self.size, world.dtype, world.device)
        self._controls, self._frame = world.controls.start(self.size), 0
        self._sigmas = world.sampler.first_sigmas
        for i in range(length):
            latents = world.codec.encode_uint8(torch.from_numpy(frames[:, i]).to(world.device))[:, None]
            chunk, controls = self._prepare(actions[:, i])
            self._commit(latents, chunk, controls)
        return frames[:, -1]

    @torch.inference_mode()
    def step(self, actions):
        """The next frames, uint8 [size H W 3], by encoded actions, float32 [size a].

            Raises WorldError("ended") before the first reset, "not_finite" where a frame is NaN or infinite.
        """
        if self._cache is None:
            raise WorldError("ended", "reset the batch before the first step")
        world = self.world
        chunk, controls = self._prepare(np.asarray(actions, np.float32))
        noises = [self._noise(step) for step in range(len(self._sigmas))]
        latents = world.sampler.sampled(noises, self._sigmas, self._cache, chunk, None)
        if not torch.isfinite(latents).all():
            raise WorldError("not_finite", "a frame is not finite; reset the batch")
        shown = world.codec.decode_uint8(latents[:, 0]).cpu().numpy()
        self._commit(latents, chunk, controls)
        self._sigmas = world.sampler.sigmas
        return shown

    def _from(self, seed):
        return range(seed, seed + self.size)

    def _prepare(self, vectors):
        world = self.world
        conditions, controls = world.controls.conditions(
            self._controls, torch.as_tensor(vectors)[:, None, None], self._frame)
        return world.sampler.prepare(self._cache, self._frame, conditions, batch=self.size), controls

    def _noise(self, step):
        """float32 [size 1 c h w], of a sampling step for the frame that is next."""
        return torch.cat([self.world.sampler.noise(seed, self._frame, step) for seed in self._seeds])

    def _commit(self, latents, chunk, controls):
        sampler = self.world.sampler
        noise = self._noise(CONTEXT_STEP) if sampler.context_sigma else None
        sampler.committed(latents, noise, self._cache, chunk, None)
        self._controls, self._frame = controls, self._frame + 1
