"""Sharpness by scale: the detail of pictures at each size, without patterns that are fixed to the screen."""
import math

import numpy as np
import torch
from torch.nn import functional as F

from worldplay.eval.statistics import luma

SCALES = (1, 2, 4, 8)  # pixels of the finest detail of each band
EVERY = 4  # frames of free play from one that is looked at to the next


def bands(frames):
    """The Laplacian pyramid of the luma of frames: float32 [n H W], [n H/2 W/2], ..., one for each of SCALES.

    frames  uint8 [n H W 3]

    Source: Burt and Adelson, The Laplacian Pyramid as a Compact Image Code, IEEE Transactions on
    Communications 1983; here with means over 2 x 2 pixels, and linear interpolation back.
    """
    grey, found = torch.from_numpy(luma(frames))[:, None], []
    for _ in SCALES:
        smaller = F.avg_pool2d(grey, 2, ceil_mode=True)
        found.append((grey - F.interpolate(smaller, size=grey.shape[2:], mode="bilinear"))[:, 0].numpy())
        grey = smaller
    return found


def energies(frames):
    """float64 [len(SCALES)]: mean square of each band over the frames of one stream, uint8 [n H W 3].

    The mean over the frames at each place of the screen is taken out first: in play the details of the world
    move across the screen, so what stays in place through all frames is a pattern that the model adds.
    """
    return np.array([np.square(band - band.mean(0)).mean(dtype=np.float64) for band in bands(frames)])


def sharpness(material, player):
    """{sharpness: {scale: {dream, codec}}}: ratios of the amplitude of each band to that of the real frames,
    1 is equal.

    scale  pixels of the finest detail in the band, of SCALES
    dream  in free play; codec: the real frames of the same streams through the codec

    Noise that changes from frame to frame counts as detail.
    """
    streams, dreams = material.streams[player], material.dreams(player)
    chosen = slice(streams.context, None, EVERY)
    real, dreams = streams.frames[:len(dreams), chosen], dreams[:, chosen]
    if real.shape[1] < 2:
        return {}
    codec = material.reconstruct(real.reshape(-1, *real.shape[2:])).reshape(real.shape)
    of_real, of_dream, of_codec = (np.mean([energies(frames) for frames in each], axis=0)
                                   for each in (real, dreams, codec))

    def ratio(energy, i):
        return math.sqrt(energy[i] / of_real[i]) if of_real[i] else math.nan
    return {"sharpness": {str(scale): {"dream": ratio(of_dream, i), "codec": ratio(of_codec, i)}
                          for i, scale in enumerate(SCALES)}}
