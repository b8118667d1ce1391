"""A codec with random weights, for counting and timing."""
import torch

from worldplay.models.codecs.image import ImageCodec
from worldplay.models.codecs.taehv import TAEHV

META = torch.device("meta")


def codec_of(config, dtype=torch.float32, device=META):
    """The codec that a world's frames are decoded with, its weights not those of any file."""
    with torch.device(device):
        codec = TAEHV() if config.codec is None else ImageCodec(config.codec)
    return codec.to(dtype).eval().requires_grad_(False)
