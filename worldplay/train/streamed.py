"""Latents and actions of a data set of whose frames a run keeps a part alone: read from its videos, once."""
import logging
import math
import time
from dataclasses import dataclass

import numpy as np

from worldplay.files import read_json, require_space, write_json
from worldplay.log import track

log = logging.getLogger(__name__)

_SAVE_EVERY = 30.0  # seconds of reading that a run which is killed has to do again
# after so many seconds the rate is known; a job that spends more than this share on reading is warned
_MEASURED_AFTER, _MUCH = 10.0, 0.5


@dataclass(frozen=True, eq=False)
class StreamedLatents:
    """Latents and actions of every rollout of a data set, in order, as memory-mapped arrays; read only.

    latents   float16 [N c h w]
    actions   float32 [N a], encoded; null at the first frame of every rollout
    episodes  int64 [e 3]: start, length, seed of every rollout
    """
    latents: np.ndarray
    actions: np.ndarray
    episodes: np.ndarray

    @staticmethod
    def are_in(folder):
        """Whether `write_streamed` has written all of them."""
        return _index(folder).get("is_finished", False)

    @classmethod
    def open(cls, folder):
        """Those in `folder`, where they `are_in` it."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "actions")}
        return cls(**arrays, episodes=np.array(_index(folder)["episodes"], np.int64))


def write_streamed(folder, opened, encode, latent_shape, deadline, seconds_left=math.inf):
    """Write what is missing of the StreamedLatents of a LeRobotFolder; a Deadline that passes ends it.

    What is there was said by index.json after it was on the disk: the next call goes on behind it, also after
    a kill.

    encode        FrameEncoder
    seconds_left  of the run's budget, for a warning where reading takes much of it

        Raises ValueError where the disk is too small, or the folder holds those of another data set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts, num_frames = opened.parts, opened.num_frames
    arrays = {"latents": (np.float16, (num_frames, *latent_shape)),
              "actions": (np.float32, (num_frames, opened.source.action_space.num_channels))}
    episodes = _index(folder).get("episodes", [])
    done = sum(length for _, length, _ in episodes)
    require_space(folder, sum(np.dtype(dtype).itemsize * int(np.prod(shape[1:]))
                              for dtype, shape in arrays.values()) * (num_frames - done))
    arrays = {name: _array(folder / f"{name}.npy", dtype, shape, is_new=not episodes)
              for name, (dtype, shape) in arrays.items()}
    if [length for _, length, _ in episodes] != [stop - start for _, start, stop in parts[:len(episodes)]]:
        raise ValueError(f"{folder}: holds latents of another data set; remove the folder, or give another "
                         "--out")

    def save():
        for array in arrays.values():
            array.flush()
        write_json(folder / "index.json", {"episodes": episodes, "is_finished": len(episodes) == len(parts)})
    began = saved = time.monotonic()
    is_judged, before = False, done
    try:
        with track(total=num_frames, initial=done, desc="encode", unit="frame") as bar:
            for rollout in opened.rollouts(parts[len(episodes):]):
                rows = slice(done, done + len(rollout.frames))
                arrays["latents"][rows], arrays["actions"][rows] = encode(rollout.frames), rollout.actions
                episodes.append([rows.start, len(rollout.frames), rollout.seed])
                done = rows.stop
                bar.update(len(rollout.frames))
                if deadline.passed(time.monotonic()):
                    break
                if not is_judged and (spent := time.monotonic() - began) >= _MEASURED_AFTER:
                    _judge(spent * (num_frames - before) / (done - before), seconds_left)
                    is_judged = True
                if time.monotonic() - saved >= _SAVE_EVERY:
                    save()
                    saved = time.monotonic()
    finally:
        save()


def _judge(expected, left):
    """Warn where all of the reading, `expected` seconds, takes much of what the budget has left."""
    if expected > _MUCH * left:
        log.warning("reading latents from the videos takes about %.1f min at this rate, and the budget has "
                    "%.1f min left for it and all that comes after; a larger --budget leaves the stages more",
                    expected / 60, max(0.0, left) / 60)


def _array(path, dtype, shape, is_new):
    if is_new:
        return np.lib.format.open_memmap(path, "w+", dtype, shape)
    array = np.lib.format.open_memmap(path, "r+")
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{path}: holds {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}; "
                         "remove its folder, or give another --out")
    return array


def _index(folder):
    path = folder / "index.json"
    return read_json(path) if path.exists() else {}
