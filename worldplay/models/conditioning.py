"""Conditioning of the transformer on noise level, actions and cameras, alike in play and in training."""
import torch
from torch import nn

from worldplay.models.attention.prope import Cameras
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


def yaw_columns(actions, space, columns_per_degree, *, frame=0, before=None):
    """How far the camera has turned since the first frame of each sequence, in token columns.

    actions             float32 [b t a] of consecutive frames, encoded by the ActionSpace `space`
    columns_per_degree  token columns by which the picture moves per degree of yaw; 0: the camera is not
                        modelled
    frame               index in the sequence of the first of these frames; no action led to frame 0
    before              float64 [b 1], the columns of the frame before these; None: 0
    Returns             float64 [b t], growing to the right

    The sum runs from frame to frame, so that a sequence gives the same bits in one call and chunk by chunk.
    """
    columns = torch.zeros(actions.shape[:2], dtype=torch.float64, device=actions.device)
    if space.look_axes and columns_per_degree:
        columns += actions[..., len(space.keys)].double() * (space.look_limit * columns_per_degree)
    if frame == 0:
        columns[:, 0] = 0
    if before is not None:
        columns = torch.cat([before, columns], dim=1)
    return columns.cumsum(dim=1)[:, -actions.shape[1]:]


def frame_conditions(inputs, *, frame=0, known=None):
    """What conditions consecutive frames besides a text: keyword arguments of Transformer.forward and
    .prepare.

    inputs   actions [b t a] with columns [b t] (`yaw_columns`), where there are actions; viewmats [b t 4 4]
             with focal lengths [b t 2] (`Cameras.of`), where there are cameras; anything else in it is passed
             over
    frame    index in the sequence of the first of these frames; the action of frame 0 is always hidden,
             because none led to it
    known    bool [b t], False where an action is hidden; None: all others are known
    Returns  a dict of some of actions, action_mask, columns, cameras
    """
    given = {}
    if "actions" in inputs:
        actions = inputs["actions"]
        if frame == 0:
            is_later = torch.arange(actions.shape[1], device=actions.device) > 0
            known = is_later.expand(actions.shape[:2]) if known is None else known & is_later
        given |= {"actions": actions, "action_mask": known, "columns": inputs["columns"]}
    if "viewmats" in inputs:
        given["cameras"] = Cameras.of(inputs["viewmats"], inputs["focal"])
    return given
