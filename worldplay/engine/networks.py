"""The codec and the KV cache of a WorldConfig, of the sizes that its config.json gives."""
import torch

from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.codecs.taehv import TAEHV
from worldplay.worlds.config import ImageWorldConfig

META = torch.device("meta")  # of networks without values, for counting


def codec_of(config, dtype=torch.float32, device=META):
    """The codec that the frames of a world are decoded with, its weights not those of any file."""
    with torch.device(device):
        codec = ImageCodec(config.codec) if isinstance(config, ImageWorldConfig) else TAEHV()
    return codec.to(dtype).eval().requires_grad_(False)


def new_cache(config, batch, dtype, device):
    """An empty KVCache for the transformer and the window of a world."""
    return KVCache(config.transformer, batch=batch, num_frames=config.window,
                   tokens_per_frame=config.transformer.num_tokens(*config.latent_shape[1:]), sink=config.sink,
                   frames_per_chunk=config.frames_per_chunk, sink_position=config.sink_position, dtype=dtype,
                   device=device)
