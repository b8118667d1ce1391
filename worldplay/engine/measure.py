"""Methods of a DreamWorld for evaluation, which leave its state alone: batched prediction, its codec."""
import numpy as np
import torch
from einops import rearrange

from worldplay.engine.networks import new_cache


@torch.inference_mode()
def follow(world, frames, actions, others=(), *, start, is_free=False, seed=None):
    """Predict frame `start` and all later ones of real sequences, each chunk from the real frames before it.

    world    DreamWorld with an image codec; its state of play stays as it is
    frames   uint8 [b n H W 3]; of free play those before `start` are enough
    actions  float32 [b n a], encoded; actions[:, i] caused frames[:, i], actions[:, 0] is ignored
    others   list of more such arrays, for predictions by other actions from the same past
    is_free  free play: each chunk follows from the chunks predicted before it, as by `reset` and `walk`, in a
             batch
    seed     of the noise; None is that of the world's own play
    start    at least frames_per_chunk; a chunk begins there, and frames before the first whole chunk are left
             out
    Yields   [uint8 [b H W 3], ...], one for `actions` and each of `others`, n - start times
    """
    (b, n), size = actions.shape[:2], world.config.frames_per_chunk
    sampler, text = world.sampler, world.state.text
    seed = world.state.seed if seed is None else seed
    skipped = start % size
    actions, *others = (torch.as_tensor(vectors) for vectors in (actions, *others))
    cache, controls = new_cache(world.config, b, world.dtype, world.device), world.controls.start(b)
    for i in range(skipped, n, size):
        chunk = np.arange(i, i + size).clip(max=n - 1)  # the last one is filled up with its last frame
        each = [world.controls.conditions(controls, given[:, chunk, None],
                                          i - skipped) for given in (actions, *others)]
        prepared = [sampler.prepare(cache, i - skipped, conditions, batch=b) for conditions, _ in each]
        if i >= start:
            sigmas = sampler.first_sigmas if is_free and i == start else sampler.sigmas
            predicted = [sampler.sample(cache, one, seed=seed, text=text, sigmas=sigmas,
                                        batch=b) for one in prepared]
            for j in range(min(size, n - i)):
                yield [world.codec.decode_uint8(latents[:, j]).cpu().numpy() for latents in predicted]
        if is_free and i >= start:
            latents = predicted[0]
        else:
            pixels = torch.from_numpy(rearrange(frames[:, chunk],
                                                "b t H W c -> (b t) H W c")).to(world.device)
            latents = rearrange(world.codec.encode_uint8(pixels), "(b t) c h w -> b t c h w", b=b)
        sampler.commit(cache, latents, prepared[0], seed=seed, text=text)
        controls = each[0][1]


@torch.inference_mode()
def reconstruct(world, frames):
    """Frames uint8 [b H W 3] after encoding and decoding by the image codec of a DreamWorld, same shape.

    No prediction in its latents can be more faithful: this is the upper bound of every fidelity figure.
    """
    latents = world.codec.encode_uint8(torch.from_numpy(np.ascontiguousarray(frames)).to(world.device))
    return world.codec.decode_uint8(latents).cpu().numpy()
