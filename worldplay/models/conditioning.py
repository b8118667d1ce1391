"""What a frame is told besides its pixels: noise level and action, as vectors that modulate every block."""
import torch
from torch import nn

from worldplay.models.attention.rope import BASE


def timestep_sinusoid(sigma, width):
    """Cosines, then sines of 1000 * sigma at width / 2 frequencies.

    sigma    [...]        noise level in [0, 1]
    Returns  [... width]  float64
    """
    half = width // 2
    frequencies = BASE ** -(torch.arange(half, dtype=torch.float64, device=sigma.device) / half)
    angles = 1000.0 * sigma.double()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def two_layers(width_in, width, activation):
    """Linear, activation, Linear; parameters are named 0 and 2 as in the published weights."""
    return nn.Sequential(nn.Linear(width_in, width), activation, nn.Linear(width, width))


def action_vectors(embedding, null, actions, known, shape):
    """What the actions of a sequence add to the time embedding of their frames.

    embedding  network [a] -> [e];  null [e] stands for an action that is not known
    actions    [b t a], or None: no frame's action is known
    known      bool [b t], or None: all given actions are known
    shape      (b, t)
    Returns    [b t e]
    """
    if actions is None:
        return null.expand(*shape, -1)
    vectors = embedding(actions.to(null.dtype))
    return vectors if known is None else torch.where(known[..., None], vectors, null)
