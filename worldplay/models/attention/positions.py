"""Where the frames of a KV cache are, in time and by camera: what its keys and values get as they are read."""
from typing import NamedTuple

import torch
from einops import rearrange

from worldplay import runtime
from worldplay.models.attention.kernels import attend
from worldplay.models.attention.prope import Branches, Cameras, rigid_inverse
from worldplay.models.attention.rope import rotate, time_shift


class FramePlaces:
    """Place of every frame that a cache remembers, by its number; only `advance` and `reanchor` change them.

    rule  FrameRule of the cache
    """

    def __init__(self, rule):
        self.rule, self._held = rule, {}

    def see(self, before, start, rotary, cameras, branches):
        """The Sight of the chunk beginning at frame `start`, or of more than one.

        before    numbers of the frames that each chunk finds in the cache, in order: a list per chunk
        rotary    [b t p 1 d/2 2] of all their frames; cameras: Cameras of them, None leaves that branch away
        branches  Branches by which both are made

            Raises ValueError where remembered frames have cameras and these have none, or the reverse.
        """
        if self._held and (cameras is None) != (next(iter(self._held.values())).inverse is None):
            raise ValueError("cameras must be given for all frames of a cache, or for none of them")
        made = {start + i: _Place(turn, None if cameras is None else cameras.inverses[:, i].double())
                for i, turn in enumerate(rotary.unbind(dim=1))}
        size, places, views = self.rule.frames_per_chunk, self._held | made, []
        for i, remembered in enumerate(before):
            own = slice(i * size, (i + 1) * size)
            begin = start + own.start
            frames = [self._moved(places[frame], frame, begin) for frame in remembered]
            frames += [places[frame] for frame in range(begin, begin + size)]
            views.append(_View(rotary=rotary[:, own], cameras=cameras and cameras.of_frames(own), **_stacked(frames)))
        return Sight(made, views, branches)

    def advance(self, remembered, sight):
        """Remember these frames, old ones and the first chunk of a Sight, and no others."""
        places = self._held | sight.made
        self._held = {frame: places[frame] for frame in remembered}

    def reanchor(self, motion):
        """Go over to viewmats T @ motion for what were viewmats T; motion [4 4] or [b 4 4], rigid."""
        self._held = {frame: _Place(place.turn, _reanchored(place.inverse, motion))
                      for frame, place in self._held.items()}

    def clone(self):
        """An independent copy; a place itself never changes."""
        other = FramePlaces(self.rule)
        other._held = dict(self._held)
        return other

    def _moved(self, place, frame, start):
        """The place of a frame as the chunk at `start` sees it: sink frames may move along in time."""
        shift = self.rule.sink_shift(start) if frame < self.rule.sink else 0
        if not shift:
            return place
        turn = time_shift(shift, 2 * place.turn.shape[-2], place.turn.device)
        return place._replace(turn=rotate(place.turn.flatten(-2), turn[0]).unflatten(-1, (-1, 2)))


class Sight(NamedTuple):
    """What a chunk, or more than one, sees of a cache, the same in all layers and passes.

    made      frame number -> _Place of the chunks' own frames
    views     a _View per chunk; branches: Branches by which both branches are made
    """
    made: dict
    views: list
    branches: Branches

    def attend(self, q, keys, values, chunks_ahead=0):
        """Attention by rotary position and, in as many heads behind those, by camera.

        q             [b t p k d]  of the chunk; keys and values [b k l d] of all it sees, its own last
        chunks_ahead  1 for the second chunk
        Returns       [b t p k|2k d]
        """
        view = self.views[chunks_ahead]
        if view.cameras is None:
            return attend(rotate(q, view.rotary), rotate(keys, view.key_rotary), values)
        turned, asking = self.branches.queries(q, view.rotary, view.cameras.matrices)
        turned_keys, *past = self.branches.pasts(keys, values, view.key_rotary, view.inverses)
        seen = self.branches.found(view.cameras.matrices, attend(asking, *past))
        return torch.cat([attend(turned, turned_keys, values), seen], dim=3)


class _Place(NamedTuple):
    """turn float32 [b p 1 d/2 2]; inverse float64 [b 4 4], because it may be reanchored any number of times."""
    turn: torch.Tensor
    inverse: torch.Tensor | None


class _View(NamedTuple):
    """What a chunk sees: its own rotary and Cameras; turns [b 1 l d/2 2] and inverses [b t 4 4] of all it sees."""
    rotary: torch.Tensor
    cameras: Cameras | None
    key_rotary: torch.Tensor
    inverses: torch.Tensor | None


def _stacked(places):
    turns = torch.stack([place.turn for place in places], dim=1)
    inverses = None
    if places[0].inverse is not None:
        inverses = torch.stack([place.inverse for place in places], dim=1).float()
    return {"key_rotary": rearrange(turns, "b t p 1 r two -> b 1 (t p) r two"), "inverses": inverses}


def _reanchored(inverse, motion):
    if inverse is None:
        raise ValueError("a cache whose frames have no cameras has no anchor to move")
    motion = runtime.upload(torch.as_tensor(motion, dtype=torch.float64), inverse.device)
    return rigid_inverse(motion) @ inverse
