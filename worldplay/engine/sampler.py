"""Sampling and committing chunks of latents with a transformer and its KV cache."""
import torch

from worldplay import runtime
from worldplay.diffusion import add_noise, frame_noise, sample_frame, warped_sigmas

CONTEXT_STEP = 1000  # the sampling step under which frame_noise draws the noise of a committed context frame


class ChunkSampler:
    """Prepares, samples and commits a chunk a call, by passes of a transformer; the caches are the caller's.

    sigmas, first_sigmas  noise levels of the sampling steps of a chunk, and of the first one generated, for
                          the caller to hand to `sample`; `set_steps` changes them
    """

    def __init__(self, config, transformer, *, device, dtype, steps):
        """config: WorldConfig of the Transformer, which is on the device in dtype; steps: 1, 2 or 4 sampling
        steps.
        """
        self.config, self.transformer, self.device, self.dtype = config, transformer, device, dtype
        self.set_steps(steps)

    def set_steps(self, steps):
        """Sample the chunks to come in so many steps."""
        self.sigmas = warped_sigmas(steps)
        self.first_sigmas = warped_sigmas(max(steps, self.config.first_steps))

    def prepare(self, cache, frame, conditions, *, batch=1):
        """The Chunk (worldplay.models.transformer) at `frame` of a cache; conditions: arguments of
        Transformer.prepare.
        """
        shape = batch, self.config.frames_per_chunk, *self.config.latent_shape
        return self.transformer.prepare(cache, shape, frame=frame, **conditions)

    def sample(self, cache, chunk, *, seed, text, sigmas, batch=1):
        """Latents [b t c h w], float32, of a Chunk, sampled at the noise levels `sigmas`; the cache stays as
        it is. The noise follows from `seed` and is the same for all sequences of the batch.
        """
        def velocity(x, sigma):
            return self.transformer.denoise(x.to(self.dtype), sigma, cache, chunk, text)

        def noise(step):
            return self.noise(seed, chunk.frame, step).expand(batch, -1, -1, -1, -1)
        return sample_frame(velocity, noise, sigmas)

    def commit(self, cache, latents, chunk, *, seed, text):
        """Write the keys and values of a Chunk's latents [b t c h w] to the cache, at noise level
        context_sigma.
        """
        sigma = self.config.context_sigma
        if sigma:
            latents = add_noise(latents.float(), self.noise(seed, chunk.frame, CONTEXT_STEP), sigma)
        self.transformer.commit(latents.to(self.dtype), sigma, cache, chunk, text)

    def noise(self, seed, frame, step):
        """Gaussian noise float32 [1 t c h w] of a sampling step for the chunk that begins at `frame`.

        A frame gets the same noise whatever the size of its chunk.
        """
        shape = (1, 1, *self.config.latent_shape)
        noise = torch.cat([frame_noise(seed, frame + i, step,
                                       shape) for i in range(self.config.frames_per_chunk)], dim=1)
        return runtime.upload(noise, self.device)
