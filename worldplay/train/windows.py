"""Batches of frames, latent windows or trajectories, drawn as a function of the step's draws alone."""
import mmap
import time

import numpy as np
import torch

from worldplay.log import track
from worldplay.models.conditioning import yaw_columns


class FrameBatches:
    """Single frames for the codec, from the episodes that are not held out."""

    def __init__(self, frames, train, held_out):
        """frames: uint8 [N H W 3], any array; train, held_out: int [e 3] start, length, seed."""
        self.frames = _read_anywhere(frames)
        self.rows = {False: _rows(train), True: _rows(held_out)}

    def batch(self, draws, held_out=False):
        rows = self.rows[held_out]
        picks = rows[draws.integers("frame", len(rows)).numpy()]
        return {"frames": torch.from_numpy(np.stack([self.frames[row] for row in picks]))}

    def spread(self, number):
        """About so many training frames (all where there are fewer), evenly over all: uint8 [n H W 3]."""
        rows = self.rows[False]
        return torch.from_numpy(np.stack([self.frames[row] for row in rows[::max(1, len(rows) // number)]]))


class LatentWindows:
    """Windows of consecutive latents of one episode, with their actions and camera columns."""

    def __init__(self, latents, actions, train, held_out, length, space, columns_per_degree):
        """latents [N c h w], actions [N a], any arrays; length: frames of a window.
        space: the ActionSpace of the actions; columns_per_degree: as for `yaw_columns`.
        """
        self.latents, self.actions, self.length = _read_anywhere(latents), actions, length
        self.space, self.columns_per_degree = space, columns_per_degree
        self.starts = {False: _starts(train, length), True: _starts(held_out, length)}
        for held, starts in self.starts.items():
            if not len(starts):
                raise ValueError(f"no {'held-out' if held else 'training'} episode is {length} frames long; "
                                 "record or collect longer ones")

    @property
    def size(self):
        """(h, w) of a latent."""
        return self.latents.shape[-2:]

    def batch(self, draws, held_out=False):
        starts = self.starts[held_out]
        return self.at(starts[draws.integers("window", len(starts)).numpy()])

    def at(self, starts):
        """The windows whose first frames are the rows `starts`."""
        latents = np.stack([self.latents[i:i + self.length] for i in starts]).astype(np.float32)
        actions = torch.from_numpy(np.stack([self.actions[i:i + self.length] for i in starts]))
        return {"latents": torch.from_numpy(latents), "actions": actions,
                "columns": yaw_columns(actions, self.space, self.columns_per_degree)}


class TrajectoryWindows:
    """Windows that have a teacher's trajectories beside their latents and actions."""

    def __init__(self, windows, train, held_out):
        """windows: LatentWindows; train, held_out: worldplay.train.window_store.WindowStore."""
        self.windows, self.stores = windows, {False: train, True: held_out}

    def batch(self, draws, held_out=False):
        store = self.stores[held_out]
        picks = draws.integers("window", len(store.starts)).numpy()
        return self.windows.at(store.starts[picks]) | {"trajectories": torch.from_numpy(store.read(picks))}


def write_missing(store, make, processes, deadline, what):
    """Make what a WindowStore misses until a Deadline passes; returns whether all is there.

    Each process makes its part.

    make  (number of a file, starts of its windows) -> its values [b ...]
    what  is made, for the progress line
    """
    missing = store.missing()
    processes.wait()  # until everybody has seen what is missing
    for number, starts in track(missing[processes.rank::processes.size], desc=what, unit="batch",
                                **({} if processes.is_first else {"disable": True})):
        if deadline.passed(time.monotonic()):
            break
        store.write(number, make(number, starts))
    processes.wait()
    return not processes.ranks(bool(store.missing()))


def _read_anywhere(array):
    """The array; where it is a file in memory, the system is told that small pieces anywhere are read.

    It else reads far around each: of a disk that reads 8 MiB ahead, a frame came in 50 ms, and so in 1. The
    file is mapped anew for that: whoever reads `array` from one end to the other wants it read ahead.
    """
    if not (isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM")):
        return array
    own = np.memmap(array.filename, array.dtype, "r", array.offset, array.shape)
    own.base.madvise(mmap.MADV_RANDOM)
    return own


def _rows(episodes):
    return np.concatenate([np.arange(start, start + length) for start, length, _ in episodes])


def _starts(episodes, length):
    return np.array([i for start, size, _ in episodes for i in range(start, start + size - length + 1)],
                    np.int64)
