"""The KV cache that a world plays with, of the sizes that its config.json gives."""
from worldplay.models.attention.kv_cache import KVCache


def new_cache(config, batch, dtype, device):
    """An empty KVCache for the transformer and the window of a WorldConfig."""
    return KVCache(config.transformer, batch=batch, num_frames=config.window,
                   tokens_per_frame=config.transformer.num_tokens(*config.latent_shape[1:]), sink=config.sink,
                   frames_per_chunk=config.frames_per_chunk, sink_position=config.sink_position, dtype=dtype,
                   device=device)
