"""Sampling, decoding and committing chunks of latents with a transformer, its KV cache and a codec."""
import torch

from worldplay import runtime
from worldplay.diffusion import add_noise, frame_noise, sample_frame, warped_sigmas
from worldplay.models.codecs.image import to_uint8

CONTEXT_STEP = 1000  # the sampling step under which frame_noise draws the noise of a committed context frame


class ChunkSampler:
    """Prepares, samples and commits a chunk a call, by passes of a transformer; the caches are the caller's.

    decoder  codec that latents are decoded by; the caller may change it
    context_sigma  noise level at which chunks are committed, the config's; the caller may change it
    sigmas, first_sigmas  noise levels of the sampling steps of a chunk, and of the first one generated, for
                          the caller to hand to `sample`; `set_steps` changes them
    """

    def __init__(self, config, transformer, decoder, *, device, dtype, steps):
        """config: WorldConfig of the Transformer, which is on the device in dtype; steps: 1, 2 or 4 sampling
        steps.
        """
        self.config, self.transformer, self.device, self.dtype = config, transformer, device, dtype
        self.decoder, self.context_sigma = decoder, config.context_sigma
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
        return self.sampled(self.noises(seed, chunk.frame, len(sigmas), batch), sigmas, cache, chunk, text)

    def commit(self, cache, latents, chunk, *, seed, text):
        """Write the keys and values of a Chunk's latents [b t c h w] to the cache, at noise level
        context_sigma.
        """
        self.committed(latents, self.context_noise(seed, chunk.frame), cache, chunk, text)

    # Both in two parts: noise, which is drawn on the host, and what a device makes of it by itself, without
    # another look at the host. worldplay.engine.graphs records the latter.

    def noises(self, seed, frame, steps, batch=1):
        """A list of the noise [b t c h w] of each sampling step of the chunk that begins at `frame`."""
        return [self.noise(seed, frame, step).expand(batch, -1, -1, -1, -1) for step in range(steps)]

    def context_noise(self, seed, frame):
        """Noise [1 t c h w] of the chunk that begins at `frame` when it is committed; None for clean ones."""
        return self.noise(seed, frame, CONTEXT_STEP) if self.context_sigma else None

    def sampled(self, noises, sigmas, cache, chunk, text):
        """As `sample`, by the `noises`."""
        def velocity(x, sigma):
            return self.transformer.denoise(x.to(self.dtype), sigma, cache, chunk, text)
        return sample_frame(velocity, noises.__getitem__, sigmas)

    def decode(self, latent, state):
        """(uint8 [n H W 3 + 1], state of the codec) of the next latent [1 c h w]: its frames and, behind them
        in the same copy to the host, 1 where they or the latent are not finite.
        """
        frames, state = self.decoder.decode_next(latent, state)
        is_broken = ~torch.isfinite(latent.sum() + frames.sum(dtype=torch.float32))
        return torch.cat([to_uint8(frames).flatten(), is_broken.to(torch.uint8)[None]]), state

    def committed(self, latents, noise, cache, chunk, text):
        """As `commit`, by the `context_noise`."""
        sigma = self.context_sigma
        if noise is not None:
            latents = add_noise(latents.float(), noise, sigma)
        self.transformer.commit(latents.to(self.dtype), sigma, cache, chunk, text)

    def noise(self, seed, frame, step):
        """Gaussian noise float32 [1 t c h w] of a sampling step for the chunk that begins at `frame`.

        A frame gets the same noise whatever the size of its chunk.
        """
        shape = (1, 1, *self.config.latent_shape)
        noise = torch.cat([frame_noise(seed, frame + i, step,
                                       shape) for i in range(self.config.frames_per_chunk)], dim=1)
        return runtime.upload(noise, self.device)
