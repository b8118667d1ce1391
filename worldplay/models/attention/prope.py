"""Projective positional encoding (PRoPE): attention by the relative pose of the cameras of two frames."""
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from einops import rearrange
from torch.nn import functional as F

from worldplay.models.attention.rope import rotate


class Cameras(NamedTuple):
    """Projection matrices of the cameras of b x t frames, computed once for all layers and tokens.

    With P of a query's frame and P' of a key's, only P P'^-1 enters; so other world coordinates for all of
    them change nothing. The principal point is not used.

    matrices  float32 [b t 4 4]  P, from the world into a frame
    inverses  float32 [b t 4 4]  P^-1

    Source: Li et al., Cameras as Relative Positional Encoding, arXiv:2507.10496.
    """
    matrices: torch.Tensor
    inverses: torch.Tensor

    @classmethod
    def of(cls, viewmats, focal):
        """Cameras at poses `viewmats`.

        viewmats  [b t 4 4]  world to camera, rigid; x right, y down, z forward
        focal     (fx, fy) over (width, height) of the picture, or one pair per frame [b t 2]

            Raises ValueError for other shapes.
        """
        if viewmats.ndim != 4 or viewmats.shape[2:] != (4, 4):
            raise ValueError(f"viewmats {list(viewmats.shape)}: expected [b t 4 4], world to camera")
        viewmats = viewmats.float()
        focal = torch.as_tensor(focal, dtype=torch.float32, device=viewmats.device)
        if focal.shape not in ((2,), (*viewmats.shape[:2], 2)):
            raise ValueError(f"focal lengths {list(focal.shape)}: expected (fx, fy), or [b t 2] for viewmats "
                             f"{list(viewmats.shape)}")
        scale = F.pad(focal, (0, 2), value=1.0)
        return cls(scale[..., None] * viewmats, rigid_inverse(viewmats) / scale[..., None, :])

    def twice(self):
        """The same frames a second time behind the first."""
        return Cameras(*(torch.cat([x, x], dim=1) for x in self))


def rigid_inverse(motion):
    """Inverse of rigid motions [... 4 4], in closed form."""
    turn = motion[..., :3, :3].mT
    shift = -turn @ motion[..., :3, 3:]
    return torch.cat([torch.cat([turn, shift], dim=-1), motion[..., 3:, :]], dim=-2)


def transform(matrices, x):
    """x [b t p k d] with every 4 neighbouring channels multiplied by its frame's matrix [b t 4 4], in
    float32.
    """
    if torch.compiler.is_compiling():  # the compiler fuses sums with their neighbours, and no matrix product
        groups = rearrange(x.float(), "b t p k (g c) -> b t p k g 1 c", c=4)
        out = (groups * rearrange(matrices, "b t i j -> b t 1 1 1 i j")).sum(dim=-1)
        return out.flatten(-2).to(x.dtype)
    groups = rearrange(x.float(), "b t p k (g c) -> b t (p k g) c", c=4)
    out = groups @ matrices.mT
    return rearrange(out, "b t (p k g) c -> b t p k (g c)", p=x.shape[2], k=x.shape[3]).to(x.dtype)


def branch_queries(q, rotary, matrices):
    """Queries [b t p k d] of the rotary and of the camera branch; arguments as in Cameras and `rotate`."""
    return rotate(q, rotary), transform(matrices.mT, q)


def branch_keys_values(keys, values, rotary, inverses):
    """Keys of the rotary branch, and keys and values of the camera branch, [b k l d] each, of those in a
    cache.

    rotary [b 1 l d/2 2]; inverses [b t 4 4] of the t frames whose tokens the l are
    """
    def by_camera(x):
        frames = rearrange(x, "b k (t p) d -> b t p k d", t=inverses.shape[1])
        return rearrange(transform(inverses, frames), "b t p k d -> b k (t p) d")
    return rotate(keys, rotary), by_camera(keys), by_camera(values)


class Branches(NamedTuple):
    """Functions that prepare queries, keys and values of the rotary and the camera branch, and the latter's
    output.

    worldplay.engine.compiled puts compiled code in their place.
    """
    queries: Callable = branch_queries
    keys_values: Callable = branch_keys_values
    output: Callable = transform


def causal_branches(causal, rule, halves, rotary, cameras):
    """Attention of whole sequences by rotary position and, in as many heads behind those, by camera.

    causal   a function of CAUSAL_ATTENTION; rule, halves: as it takes them
    rotary   of the frames of all halves; cameras: their Cameras, None leaves their heads out
    Returns  a function of q, k, v [b t p k d], neither rotated nor transformed -> [b t p k|2k d]
    """
    absolute = replace(rule, sink_position="absolute")  # shifts in time concern rotary positions alone

    def attention(q, k, v):
        by_rotary = causal(rotate(q, rotary), rotate(k, rotary), v, rule, halves)
        if cameras is None:
            return by_rotary
        keys, values = (transform(cameras.inverses, x) for x in (k, v))
        by_camera = causal(transform(cameras.matrices.mT, q), keys, values, absolute, halves)
        # from the world into each frame
        return torch.cat([by_rotary, transform(cameras.matrices, by_camera)], dim=3)
    return attention
