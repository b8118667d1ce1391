"""All actions since a reset, packed into 24 bytes each: a sitting of hours takes a few MiB."""
from array import array
from functools import lru_cache

import numpy as np

from worldplay.action import KEYS, Action

_BITS = {key: 1 << i for i, key in enumerate(KEYS)}


class ActionLog:
    """A list of Actions that only grows; items and slices are read as from a list."""

    def __init__(self, actions=()):
        self._keys, self._look = array("Q"), array("d")  # a bit for each of KEYS; yaw and pitch in turn
        for action in actions:
            self.append(action)

    @classmethod
    def of_arrays(cls, keys, look):
        """The log that `to_arrays` gave."""
        made = cls()
        made._keys, made._look = array("Q", keys.tobytes()), array("d", look.tobytes())
        return made

    def to_arrays(self):
        """(keys uint64 [n], a bit for each of KEYS; look float64 [n 2] in degrees)."""
        return (np.array(self._keys, np.uint64), np.array(self._look, np.float64).reshape(-1, 2))

    def append(self, action):
        self._keys.append(sum(_BITS[key] for key in action.keys))
        self._look.extend(action.look)

    def __len__(self):
        return len(self._keys)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        bits, at = self._keys[index], index % len(self)
        return Action(_keys_of(bits), tuple(self._look[2 * at:2 * at + 2]))

    def __iter__(self):
        for i, bits in enumerate(self._keys):
            yield Action(_keys_of(bits), (self._look[2 * i], self._look[2 * i + 1]))


@lru_cache(maxsize=1024)
def _keys_of(bits):
    """The keys of a packed action; cached, because a long clip repeats a few combinations of them."""
    return frozenset(key for key, bit in _BITS.items() if bits & bit)
