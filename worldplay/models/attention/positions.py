"""Positions of cached frames in time and by camera, applied to keys and values when they are read."""
from typing import NamedTuple

import torch
from einops import rearrange

from worldplay import runtime
from worldplay.models.attention.kernels import attend
from worldplay.models.attention.prope import Branches, Cameras, rigid_inverse
from worldplay.models.attention.rope import rotate, time_shift


class CachePositions:
    """Position of every frame that a KVCache holds, by frame number; only `advance` and `rebase` change it.

    rule  FrameRule of the cache
    """

    def __init__(self, rule):
        self.rule, self._held = rule, {}

    def of_chunk(self, past, start, rotary, cameras, branches):
        """ChunkPositions of the chunk beginning at frame `start`.

        past      numbers of the cached frames that it attends to, in order
        rotary    [b t p 1 d/2 2] of its own frames; cameras: their Cameras, None leaves the camera branch out
        branches  Branches that prepare queries, keys and values

            Raises ValueError where cached frames have cameras and these have none, or the reverse.
        """
        if self._held and (cameras is None) != (next(iter(self._held.values())).inverse is None):
            raise ValueError("cameras must be given for all frames of a cache, or for none of them")
        own = {start + i: _Position(each, None if cameras is None else cameras.inverses[:, i].double())
               for i, each in enumerate(rotary.unbind(dim=1))}
        frames = [self._shifted(self._held[frame], frame, start) for frame in past] + [*own.values()]
        key_rotary = rearrange(torch.stack([each.rotary for each in frames], dim=1),
                               "b t p 1 r two -> b 1 (t p) r two")
        inverses = None if cameras is None else torch.stack([each.inverse for each in frames], dim=1).float()
        return ChunkPositions(own, rotary, cameras, key_rotary, inverses, branches)

    def advance(self, held, chunk):
        """Hold the frames numbered `held`, old ones and those of a ChunkPositions, and no others."""
        known = self._held | chunk.own
        self._held = {frame: known[frame] for frame in held}

    def rebase(self, motion):
        """Change the world coordinates: viewmats T become T @ motion; motion [4 4] or [b 4 4], rigid."""
        self._held = {frame: _Position(each.rotary, _rebased(each.inverse, motion))
                      for frame, each in self._held.items()}

    def clone(self):
        """An independent copy; a position itself never changes."""
        other = CachePositions(self.rule)
        other._held = dict(self._held)
        return other

    def contents(self):
        """{frame: (rotary, inverse or None)} of the frames held."""
        return {frame: tuple(each) for frame, each in self._held.items()}

    def filled(self, contents, device):
        """Positions by the rule of these, of the frames in `contents` of others."""
        other = CachePositions(self.rule)
        other._held = {frame: _Position(*(x if x is None else x.to(device) for x in each))
                       for frame, each in contents.items()}
        return other

    def _shifted(self, position, frame, start):
        """The position of a frame for the chunk at `start`: sink frames may be shifted in time."""
        shift = self.rule.sink_shift(start) if frame < self.rule.sink else 0
        if not shift:
            return position
        by = time_shift(shift, 2 * position.rotary.shape[-2], position.rotary.device)
        return position._replace(rotary=rotate(position.rotary.flatten(-2), by[0]).unflatten(-1, (-1, 2)))


class ChunkPositions(NamedTuple):
    """Positions of a chunk and of all keys that it attends to, the same in every layer and every pass.

    own           frame number -> _Position of the chunk's frames
    rotary        [b t p 1 d/2 2] of its queries; cameras: Cameras of its frames, None without the camera
                  branch
    key_rotary    [b 1 l d/2 2] of all keys, its own last; key_inverses: [b t 4 4] of their frames, or None
    branches      Branches that prepare queries, keys and values
    """
    own: dict
    rotary: torch.Tensor
    cameras: Cameras | None
    key_rotary: torch.Tensor
    key_inverses: torch.Tensor | None
    branches: Branches

    def attend(self, q, keys, values):
        """Attention by rotary position and, in as many heads behind those, by camera.

        q             [b t p k d]  of the chunk; keys and values [b k l d]: the past and its own, as projected
        Returns       [b t p k|2k d]
        """
        if self.cameras is None:
            return attend(rotate(q, self.rotary), rotate(keys, self.key_rotary), values)
        rotary_q, camera_q = self.branches.queries(q, self.rotary, self.cameras.matrices)
        rotary_k, *camera_kv = self.branches.keys_values(keys, values, self.key_rotary, self.key_inverses)
        by_camera = self.branches.output(self.cameras.matrices, attend(camera_q, *camera_kv))
        return torch.cat([attend(rotary_q, rotary_k, values), by_camera], dim=3)


class _Position(NamedTuple):
    """rotary float32 [b p 1 d/2 2]; inverse float64 [b 4 4], because it may be rebased any number of
    times.
    """
    rotary: torch.Tensor
    inverse: torch.Tensor | None


def _rebased(inverse, motion):
    if inverse is None:
        raise ValueError("a cache whose frames have no cameras has no world coordinates to change")
    motion = runtime.upload(torch.as_tensor(motion, dtype=torch.float64), inverse.device)
    return rigid_inverse(motion) @ inverse
