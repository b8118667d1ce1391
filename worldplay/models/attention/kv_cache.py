"""Keys and values of past frames: a ring buffer of fixed size, so that every frame costs the same."""
import copy
from dataclasses import replace

import torch
from einops import rearrange

from worldplay.models.attention.kernels import attend
from worldplay.models.attention.positions import CachePositions
from worldplay.models.attention.rope import rotate, time_shift
from worldplay.models.configs import FrameRule


class KVCache:
    """Keys and values of past frames for every layer, as the next chunk attends to them; only `commit`
    changes that.

    Slots of one frame each: [sink frames][ring of the past][the chunk being generated]. While the ring is not
    full, the chunk's slots lie right behind the frames that it holds; so keys and values are always one
    contiguous slice. What `with_past` writes there is no part of the past until `commit`. The cache carries
    no gradients.

    Keys are held as they are attended to, rotated. For a transformer with a camera they are held as
    projected, neither rotated nor transformed, because both of its branches are made of them; the positions
    of the frames lie beside them.

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
        self._sink_keys, self._positions = None, None
        if config.has_camera:
            self._positions = CachePositions(self.rule)
        elif sink and sink_position == "before_window":
            self._sink_keys = torch.zeros_like(self._slots[:, 0, :, :, :sink * tokens_per_frame])

    @property
    def nbytes(self):
        """Bytes of its keys and values."""
        return self._slots.nbytes + (0 if self._sink_keys is None else self._sink_keys.nbytes)

    @property
    def is_full(self):
        """Whether it holds as many frames as it will: then every chunk attends to as many keys."""
        return self.num_frames >= self.rule.window - self.rule.frames_per_chunk

    def check(self, frame, num_frames):
        """Raise ValueError unless a chunk of num_frames at time position `frame` is the next one."""
        if num_frames != self.rule.frames_per_chunk:
            raise ValueError(f"a chunk of {num_frames} frames for a cache made for "
                             f"{self.rule.frames_per_chunk} at once")
        if self.first_frame is not None and frame != self.first_frame + self.num_frames:
            raise ValueError(f"frame {frame} is not the next one: the cache holds the past of frame "
                             f"{self.first_frame + self.num_frames}")

    def positions(self, rotary, cameras, branches):
        """ChunkPositions of the next chunk and its past, for a transformer with a camera branch.

        rotary [b t p 1 d/2 2]: RoPE of the chunk. cameras: its Cameras; None skips the camera branch.
        branches: the functions of both branches (prope.Branches)

            Raises ValueError where some frames have cameras and others have none.
        """
        past = self._frames(self.num_frames)
        return self._positions.of_chunk(past, self.num_frames, rotary, cameras, branches)

    def attend(self, layer, q, keys, values, positions=None):
        """Attention of queries q [b t p k d] of the next chunk to the past and to their own chunk.

        keys, values  [b t p k d]  of the chunk
        positions     by `positions`, for a transformer with a camera
        Returns       [b t p k d]; with cameras [b t p 2k d], the heads of that branch behind the others
        """
        keys, values = self.with_past(layer, keys, values)
        return attend(q, keys, values) if positions is None else positions.attend(q, keys, values)

    def with_past(self, layer, keys, values):
        """Keys and values, [b k l d] each, of the past and of the next chunk; its own are written to its
        slots.

        keys, values   [b t p k d]  of the chunk
        """
        assert not keys.requires_grad, "a cache is overwritten, so no graph may keep it: use no_grad"
        begin = self._own_slot(self.num_frames) * self.tokens_per_frame
        end = begin + self.rule.frames_per_chunk * self.tokens_per_frame
        slots = self._slots[layer]
        for cached, x in zip(slots, (keys, values)):
            cached[:, :, begin:end] = rearrange(x, "b t p k d -> b k (t p) d")
        return slots[0, :, :, :end], slots[1, :, :, :end]

    def commit(self, frame, positions=None):
        """Make the chunk at time position `frame`, whose slots `with_past` has written in all layers, part of
        the past.

        positions  of the chunk, for a transformer with a camera

        It takes the places of the oldest frames of the ring.
        """
        self._move_to_past()
        self.advance(frame, positions)

    def advance(self, frame, positions=None):
        """Count a chunk, whose keys and values have been moved to the past, as `commit` does."""
        if self.first_frame is None:
            self.first_frame = frame
        self.num_frames += self.rule.frames_per_chunk
        if self._positions is not None:
            self._positions.advance(self._frames(self.num_frames), positions)

    def rebase(self, motion):
        """Change the world coordinates: cameras given from now on have viewmats T @ motion for what was T.

        motion [4 4] or [b 4 4], rigid. A CameraRig far from its origin asks for it, where float32 loses
        precision.

            Raises ValueError where the frames have no cameras.
        """
        if self._positions is None:
            raise ValueError("a cache of a transformer without a camera has no world coordinates to change")
        self._positions.rebase(motion)

    def past(self):
        """A copy of the keys and values [layers 2 b k l d] of the past that the next chunk attends to."""
        return self._slots[:, :, :, :, :self._own_slot(self.num_frames) * self.tokens_per_frame].clone()

    def storage(self):
        """(keys and values [layers 2 b k l d] of all slots themselves, tokens of the past); behind the past
        lies the next chunk, which native code (worldplay.engine.native) writes there before `commit`.
        """
        return self._slots, self._own_slot(self.num_frames) * self.tokens_per_frame

    def resized(self, window):
        """A cache of another window that holds the latest frames of this one, as many as there is room for.

        Their past before those is forgotten: a larger window fills up again from there.

            Raises ValueError with sink frames or cameras, and for a window without room for a past.
        """
        chunk, tokens = self.rule.frames_per_chunk, self.tokens_per_frame
        if self.rule.sink or self._positions is not None:
            raise ValueError("a cache with sink frames or cameras keeps its window")
        other = copy.copy(self)
        other.rule = replace(self.rule, window=window)
        *shape, _, d = self._slots.shape
        other._slots = self._slots.new_zeros(*shape, window * tokens, d)
        held = self._frames(self.num_frames)
        kept = sorted(held)[-(window - chunk):]
        for slot, frame in enumerate(kept):
            self._frame(other._slots, slot).copy_(self._frame(self._slots, held.index(frame)))
        other.num_frames = len(kept)
        if self.first_frame is not None:
            other.first_frame = self.first_frame + self.num_frames - len(kept)
        return other

    def clone(self):
        """An independent copy."""
        other = copy.copy(self)
        other._slots = self._slots.clone()
        other._sink_keys = None if self._sink_keys is None else self._sink_keys.clone()
        other._positions = None if self._positions is None else self._positions.clone()
        return other

    def like(self, x):
        """A tensor on the device and in the number type of the cache; anything else as it is."""
        return x.to(self._slots.device, self._slots.dtype) if isinstance(x, torch.Tensor) else x

    def contents(self):
        """All that the next chunks depend on: tensors, numbers and dicts of them; `filled` takes it back."""
        held = self._slots[:, :, :, :, :self._own_slot(self.num_frames) * self.tokens_per_frame]
        return {"slots": held, "sink_keys": self._sink_keys, "first_frame": self.first_frame,
                "num_frames": self.num_frames, "window": self.rule.window,
                "positions": None if self._positions is None else self._positions.contents()}

    def filled(self, contents):
        """A cache of this one's sizes, number type and device, but of the other's window, that holds
        `contents` of another.

            Raises ValueError where they are of other sizes.
        """
        window, held = contents["window"], contents["slots"]
        other = self.clone() if window == self.rule.window else self.resized(window)
        other.first_frame, other.num_frames = contents["first_frame"], contents["num_frames"]
        target = other._slots[:, :, :, :, :other._own_slot(other.num_frames) * self.tokens_per_frame]
        sinks = [None if keys is None else keys.shape for keys in (other._sink_keys, contents["sink_keys"])]
        if target.shape != held.shape or sinks[0] != sinks[1]:
            raise ValueError(f"keys and values {list(held.shape)}: expected {list(target.shape)}")
        if (self._positions is None) != (contents["positions"] is None):
            raise ValueError("cameras of the frames: some are given where none belong, or are missing")
        target.copy_(held)
        if sinks[0] is not None:
            other._sink_keys.copy_(contents["sink_keys"])
        if self._positions is not None:
            other._positions = self._positions.filled(contents["positions"], self._slots.device)
        return other

    def _move_to_past(self):
        chunk, window, sink = self.rule.frames_per_chunk, self.rule.window, self.rule.sink
        start, ring = self.num_frames, window - sink - chunk
        keys = self._slots[:, 0]
        for frame in range(start, start + chunk):
            source = self._own_slot(start) + frame - start
            if frame < sink:
                if self._sink_keys is not None:
                    self._frame(self._sink_keys, frame).copy_(self._frame(keys, source))
            elif frame >= start + chunk - ring:
                target = sink + (frame - sink) % ring
                if target != source:
                    self._frame(self._slots, target).copy_(self._frame(self._slots, source))
        shift = self.rule.sink_shift(start + chunk)
        if self._sink_keys is not None and shift:
            by = time_shift(shift, self._slots.shape[-1], self._slots.device)
            keys[..., :sink * self.tokens_per_frame, :] = rotate(self._sink_keys, by)

    def _own_slot(self, start):
        """First slot of the chunk beginning at frame count `start`."""
        return min(start, self.rule.window - self.rule.frames_per_chunk)

    def _frames(self, start):
        """Numbers of the frames that the chunk beginning at frame count `start` attends to, in the order of
        their slots.
        """
        sink, ring = self.rule.sink, self.rule.window - self.rule.sink - self.rule.frames_per_chunk
        return [slot if slot < sink else start - 1 - (start - 1 - slot) % ring
                for slot in range(self._own_slot(start))]

    def _frame(self, slots, index):
        return slots[..., index * self.tokens_per_frame:(index + 1) * self.tokens_per_frame, :]
