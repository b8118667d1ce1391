"""Latents and actions of a data set of whose frames a run keeps a part alone: read from its videos, once."""
import time
from dataclasses import dataclass

import numpy as np

from worldplay.files import read_json, require_space, write_json
from worldplay.log import track

_SAVE_EVERY = 30.0  # seconds of reading that a run which is killed has to do again


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


def write_streamed(folder, opened, encode, latent_shape, deadline):
    """Write what is missing of the StreamedLatents of a LeRobotFolder; a Deadline that passes ends it.

    What is there was said by index.json after it was on the disk: the next call goes on behind it, also after
    a kill. encode: FrameEncoder

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
    saved = time.monotonic()
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
                if time.monotonic() - saved >= _SAVE_EVERY:
                    save()
                    saved = time.monotonic()
    finally:
        save()


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
