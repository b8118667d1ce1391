"""Rotary positions in closed form: one for time, rows and columns, without a table and without an end."""
import torch
from einops import rearrange, repeat

BASE = 10000.0


def axis_angles(positions, num_pairs):
    """Angles by which the channel pairs of one axis turn.

    positions  [...]            any real numbers
    Returns    [... num_pairs]  float64, position * 10000^(-j / num_pairs) for pair j
    """
    exponents = torch.arange(num_pairs, dtype=torch.float64, device=positions.device) / num_pairs
    return positions.double()[..., None] * BASE ** -exponents


def pairs_per_axis(head_dim):
    """How many channel pairs of a head belong to (time, rows, columns); they lie in this order."""
    pairs = head_dim // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def frame_rotary(times, grid, head_dim, columns=None):
    """The turn of every token of frames at the given times.

    times    [t]       time position of each frame; any integers or real numbers
    grid     (rows, columns) of tokens of a frame
    columns  [b t]     added to the column positions of all tokens of that frame; None adds nothing
    Returns  [b t p 1 d/2 2] float32 cosines and sines (b = 1 without columns), of angles formed in float64
    """
    rows, cols = grid
    num_time, num_rows, num_cols = pairs_per_axis(head_dim)
    device = times.device
    if columns is None:
        columns = torch.zeros(1, len(times), device=device)
    col = columns.double()[..., None] + torch.arange(cols, device=device)
    angles = torch.cat([
        repeat(axis_angles(times, num_time), "t r -> b t h w r", b=len(columns), h=rows, w=cols),
        repeat(axis_angles(torch.arange(rows, device=device), num_rows), "h r -> b t h w r", b=len(columns),
               t=len(times), w=cols),
        repeat(axis_angles(col, num_cols), "b t w r -> b t h w r", h=rows)], dim=-1)
    return _turn(rearrange(angles, "b t h w r -> b t (h w) 1 r"))


def time_rotary(frames, head_dim):
    """The turn that moves keys by `frames` [t] in time and leaves rows and columns alone: [t 1 1 d/2 2]."""
    num_time, num_rows, num_cols = pairs_per_axis(head_dim)
    angles = torch.nn.functional.pad(axis_angles(frames, num_time), (0, num_rows + num_cols))
    return _turn(rearrange(angles, "t r -> t 1 1 r"))


def time_shift(num_frames, head_dim, device):
    """`time_rotary` of one number of frames: [1 1 1 d/2 2]."""
    # created on the device: a copy from the host would synchronise
    return time_rotary(torch.full((1,), num_frames, device=device), head_dim)


def rotate(x, rotary):
    """Turn neighbouring channels of x [... d] by rotary [... d/2 2], in float32; the dtype of x is kept."""
    pairs = rearrange(x.float(), "... (r two) -> ... r two", two=2)
    if torch.compiler.is_compiling():  # real numbers are fused with what stands around, complex ones are not
        (a, b), (cos, sin) = pairs.unbind(dim=-1), rotary.unbind(dim=-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    else:  # one complex product is several times faster than its parts one by one
        turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.view_as_complex(rotary))
    return turned.flatten(-2).to(x.dtype)


def _turn(angles):
    return torch.stack([angles.cos().float(), angles.sin().float()], dim=-1)
