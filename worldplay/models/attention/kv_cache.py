"""Keys and values of the frames already made: a ring of fixed size that costs the same at every frame."""
import copy

import torch
from einops import rearrange

from worldplay.models.attention.kernels import attend
from worldplay.models.attention.positions import FramePlaces
from worldplay.models.attention.rope import rotate, time_shift
from worldplay.models.configs import FrameRule


class KVCache:
    """What the next chunk sees of the past, for every layer; only a commit changes it. It carries no gradients.

    Slots of one frame each: [sink frames][ring of the past][room for the chunk being made]. While the ring is
    not full, the room is right behind the frames it holds; so keys and values are always one contiguous
    slice. A chunk's own keys live in its room, which is no part of what is remembered, until `keep` and
    `advance`.

    Keys are held as they are attended to. For a transformer with a camera they are held as projected, neither turned
    nor transformed, because both of its branches are made of them; each frame's place is beside them.

    rule          FrameRule: window, sink and chunk size in frames
    first_frame   time position of the first frame committed, None while empty
    num_frames    frames committed so far, also those no longer held
    """

    def __init__(self, config, *, batch, num_frames, tokens_per_frame, frames_per_chunk=1, sink=0,
                 sink_position="absolute", dtype=torch.float32, device="cpu"):
        """config: TransformerConfig. num_frames: the window; sink + past + the chunk being made.

            Raises ValueError when the window has no room for sink and chunk.
        """
        self.rule = FrameRule(frames_per_chunk=frames_per_chunk, window=num_frames, sink=sink,
                              sink_position=sink_position)
        self.tokens_per_frame = tokens_per_frame
        self.first_frame, self.num_frames = None, 0
        shape = (config.num_heads, num_frames * tokens_per_frame, config.head_dim)
        self._slots = torch.zeros(config.num_layers, 2, batch, *shape, dtype=dtype, device=device)
        self._sink_keys, self._places = None, None
        if config.has_camera:
            self._places = FramePlaces(self.rule)
        elif sink and sink_position == "before_window":
            self._sink_keys = torch.zeros_like(self._slots[:, 0, :, :, :sink * tokens_per_frame])

    @property
    def nbytes(self):
        """Bytes of its keys and values."""
        return self._slots.nbytes + (0 if self._sink_keys is None else self._sink_keys.nbytes)

    def check(self, frame, num_frames):
        """Raise ValueError unless a chunk of num_frames at time position `frame` is the next one."""
        if num_frames != self.rule.frames_per_chunk:
            raise ValueError(f"a chunk of {num_frames} frames for a cache made for "
                             f"{self.rule.frames_per_chunk} at once")
        if self.first_frame is not None and frame != self.first_frame + self.num_frames:
            raise ValueError(f"frame {frame} is not the next one: the cache holds the past of frame "
                             f"{self.first_frame + self.num_frames}")

    def see(self, rotary, cameras, branches):
        """The Sight of the next chunk, or of the next two, by where their frames are; for a transformer with a camera.

        rotary [b t p 1 d/2 2]; cameras: Cameras, or None, which leaves their branch away; branches: Branches

            Raises ValueError where some frames have cameras and others have none.
        """
        starts = range(self.num_frames, self.num_frames + rotary.shape[1], self.rule.frames_per_chunk)
        return self._places.see([self._frames(start) for start in starts], self.num_frames, rotary, cameras, branches)

    def attend(self, layer, q, keys, values, sight=None, chunks_ahead=0):
        """What queries q [b t p k d] of a chunk get from the past and from their own chunk; the rest as for `extend`.

        sight    by `see`, for a transformer with a camera
        Returns  [b t p k d]; with cameras [b t p 2k d], the heads of that branch behind the others
        """
        seen = self.extend(layer, keys, values, chunks_ahead)
        return attend(q, *seen) if sight is None else sight.attend(q, *seen, chunks_ahead)

    def extend(self, layer, keys, values, chunks_ahead=0):
        """Keys and values, [b k l d] each, that a chunk sees: the past and its own, put into its room.

        keys, values   [b t p k d]  of the chunk
        chunks_ahead   1 for the chunk after the one that `keep` has just put away in this layer
        """
        assert not keys.requires_grad, "a cache is written over, which no graph survives: call it under no_grad"
        size = self.rule.frames_per_chunk
        begin = self._room(self.num_frames + chunks_ahead * size) * self.tokens_per_frame
        end = begin + size * self.tokens_per_frame
        slots = self._slots[layer]
        for remembered, x in zip(slots, (keys, values)):
            remembered[:, :, begin:end] = rearrange(x, "b t p k d -> b k (t p) d")
        return slots[0, :, :, :end], slots[1, :, :, :end]

    def keep(self, layer=slice(None)):
        """Move the chunk in the room of this layer, or of all, among the remembered frames, over the oldest ones."""
        chunk, window, sink = self.rule.frames_per_chunk, self.rule.window, self.rule.sink
        start, ring, slots = self.num_frames, window - sink - chunk, self._slots[layer]
        keys = slots[..., 0, :, :, :, :]
        for frame in range(start, start + chunk):
            source = self._room(start) + frame - start
            if frame < sink:
                if self._sink_keys is not None:
                    self._frame(self._sink_keys[layer], frame).copy_(self._frame(keys, source))
            elif frame >= start + chunk - ring:
                target = sink + (frame - sink) % ring
                if target != source:
                    self._frame(slots, target).copy_(self._frame(slots, source))
        shift = self.rule.sink_shift(start + chunk)
        if self._sink_keys is not None and shift:
            turn = time_shift(shift, self._slots.shape[-1], self._slots.device)
            keys[..., :sink * self.tokens_per_frame, :] = rotate(self._sink_keys[layer], turn)

    def advance(self, frame, sight=None):
        """Count the chunk at time position `frame`, with its `sight`, as committed, after `keep` in every layer."""
        if self.first_frame is None:
            self.first_frame = frame
        self.num_frames += self.rule.frames_per_chunk
        if self._places is not None:
            self._places.advance(self._frames(self.num_frames), sight)

    def reanchor(self, motion):
        """Go over to another world frame: cameras given from now on have viewmats T @ motion for what was T.

        motion [4 4] or [b 4 4], rigid. Source: the caller's CameraRig, before float32 feels the way from its anchor.

            Raises ValueError where the frames have no cameras.
        """
        if self._places is None:
            raise ValueError("a cache of a transformer without a camera has no anchor to move")
        self._places.reanchor(motion)

    def remembered(self):
        """A copy of what the next chunk will see of the past: keys and values [layers 2 b k l d]."""
        return self._slots[:, :, :, :, :self._room(self.num_frames) * self.tokens_per_frame].clone()

    def clone(self):
        """An independent copy: a snapshot of the past."""
        other = copy.copy(self)
        other._slots = self._slots.clone()
        other._sink_keys = None if self._sink_keys is None else self._sink_keys.clone()
        other._places = None if self._places is None else self._places.clone()
        return other

    def _room(self, start):
        """Slot where the room of the chunk beginning at frame count `start` begins."""
        return min(start, self.rule.window - self.rule.frames_per_chunk)

    def _frames(self, start):
        """Numbers of the frames that the chunk beginning at frame count `start` finds, in the order of their slots."""
        sink, ring = self.rule.sink, self.rule.window - self.rule.sink - self.rule.frames_per_chunk
        return [slot if slot < sink else start - 1 - (start - 1 - slot) % ring for slot in range(self._room(start))]

    def _frame(self, slots, index):
        return slots[..., index * self.tokens_per_frame:(index + 1) * self.tokens_per_frame, :]
