"""A full KV cache on tensors that stay where they are, for passes that are recorded once and run again."""
import weakref

import torch

from worldplay import runtime
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.attention.rope import rotate, time_shift


class StaticCache(KVCache):
    """Keys and values of the KVCache that it holds at present, one of a kind: full, and of one size.

    Where a chunk goes is said by tensors, not by numbers of the host, so the same work on the same tensors
    serves every chunk: it attends to all slots, `commit` leaves them alone, and `move` puts its keys and
    values into the ring.
    """

    def __init__(self, like):
        """like: a KVCache of the sizes."""
        self.rule, self.tokens_per_frame, self._positions = like.rule, like.tokens_per_frame, None
        self.first_frame, self.num_frames = None, self.rule.window  # full, whatever it holds
        self._slots = torch.empty_like(like._slots)
        self._sink_keys = None if like._sink_keys is None else torch.empty_like(like._sink_keys)
        device, (*_, d) = self._slots.device, self._slots.shape
        ring = self.rule.window - self.rule.sink - self.rule.frames_per_chunk
        self._kept = min(self.rule.frames_per_chunk, ring)  # frames of a chunk that the ring has room for
        self._places = torch.zeros(self._kept * self.tokens_per_frame, dtype=torch.int64, device=device)
        self._turn, self._holds = time_shift(0, d, device), None

    def takes(self, cache):
        """Whether it can hold a KVCache."""
        return cache.is_full and cache.rule == self.rule and cache._slots.shape == self._slots.shape

    def hold(self, cache):
        """Make the keys and values of a KVCache these, which it writes to from now on. The cache held before
        gets a copy of its own.
        """
        if cache._slots is not self._slots:
            before = self._holds and self._holds()
            if before is not None and before._slots is self._slots:
                before._slots, before._sink_keys = self._slots.clone(), _copy(self._sink_keys)
            self._slots.copy_(cache._slots)
            cache._slots = self._slots
            if self._sink_keys is not None:
                self._sink_keys.copy_(cache._sink_keys)
                cache._sink_keys = self._sink_keys
            self._holds = weakref.ref(cache)

    def place(self, cache):
        """Say where the next chunk of the KVCache that is held goes; `move` reads it."""
        sink, ring = self.rule.sink, self.rule.window - self.rule.sink - self.rule.frames_per_chunk
        after = cache.num_frames + self.rule.frames_per_chunk
        slots = [sink + (frame - sink) % ring for frame in range(after - self._kept, after)]
        tokens = torch.arange(self.tokens_per_frame)
        places = torch.cat([slot * self.tokens_per_frame + tokens for slot in slots] or [tokens[:0]])
        self._places.copy_(runtime.upload(places, self._slots.device))
        if self._sink_keys is not None:
            shift = self.rule.sink_shift(after)
            self._turn.copy_(time_shift(shift, self._slots.shape[-1], self._slots.device))

    def check(self, frame, num_frames):
        """Nothing: the cache that is held is asked, once a chunk."""

    def commit(self, frame, positions=None):
        """Nothing: `move` does it, which is recorded apart, so that a pass run twice changes nothing."""

    def move(self):
        """What KVCache.commit does with keys and values: those of the chunk take their places."""
        end = self._slots.shape[4]
        self._slots.index_copy_(4, self._places, self._slots[:, :, :, :, end - len(self._places):])
        if self._sink_keys is not None:
            self._slots[:, 0, :, :, :self._sink_keys.shape[3]] = rotate(self._sink_keys, self._turn)


def _copy(x):
    return None if x is None else x.clone()
