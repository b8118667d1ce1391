"""Recorded play: rollouts, the held-out split, and the frame cache on disk that trainers read."""
import json
from dataclasses import dataclass
from itertools import count, filterfalse
from pathlib import Path

import numpy as np

from worldplay.action import ActionSpace
from worldplay.files import require_space, write_json

# every twentieth seed is kept for evaluation, in every collection; no trainer sees it
HELD_OUT_EVERY = 20
_ARRAYS = {"frames": np.uint8, "actions": np.float32, "poses": np.float32}


def is_held_out(seed):
    """Whether play with this seed belongs to evaluation and never to training."""
    return seed % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def held_out_positions(num):
    """Indices of the held-out episodes among `num` without seeds: one in 20, at least one, evenly spread."""
    num_held_out = max(1, round(num / HELD_OUT_EVERY))
    return {num * (k + 1) // num_held_out - 1 for k in range(num_held_out)}


def numbers_of_sides(sides):
    """Yield a stand-in seed for each bool in `sides`, one for which is_held_out() gives that bool."""
    numbers = {True: filter(is_held_out, count()), False: filterfalse(is_held_out, count())}
    for side in sides:
        yield next(numbers[side])


@dataclass(frozen=True, eq=False)
class Rollout:
    """One stretch of play from one reset.

    frames   uint8 [n H W 3], RGB; frames[i] is what was seen because of actions[i], frames[0] is the start
    actions  float32 [n a], encoded; actions[0] is null
    poses    float32 [n 4], x, y, z in map units and yaw in degrees to the left, of every frame; None where
             they are unknown, as in a recorded clip
    seed     of the reset and of the player; where there is none, as in a recorded clip, a number that only
             says whether it is held out
    text     description of what is seen; empty where there is none
    """
    frames: np.ndarray
    actions: np.ndarray
    poses: np.ndarray | None
    seed: int
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of a World that recorded play comes from.

    name          of the environment
    action_space  the actions it understands
    frame_size    (H, W) pixels
    fps           frames of world time per second
    """
    name: str
    action_space: ActionSpace
    frame_size: tuple[int, int]
    fps: float

    @classmethod
    def of(cls, world):
        """The Source that `world` is."""
        return cls(name=world.name, action_space=world.action_space, frame_size=tuple(world.frame_size),
                   fps=world.fps)

    def to_json(self):
        return {"env": self.name, "action_space": self.action_space.to_json(),
                "frame_size": list(self.frame_size), "fps": self.fps}

    @classmethod
    def from_json(cls, fields):
        return cls(name=fields["env"], action_space=ActionSpace.from_json(fields["action_space"]),
                   frame_size=tuple(fields["frame_size"]), fps=fields["fps"])


@dataclass(frozen=True, eq=False)
class FrameCache:
    """Frames, actions and poses of many episodes as memory-mapped arrays; read only.

    frames        uint8 [N H W 3], RGB; in an episode, frames[i] is what was seen because of actions[i]
    actions       float32 [N a], encoded; null at the first frame of every episode
    poses         float32 [N 4], x, y, z in map units and yaw in degrees to the left; None where they are
                  unknown
    episodes      int64 [e 3]: start, length, seed
    env           name of the environment it came from
    action_space  its ActionSpace
    fps           frames of world time per second
    is_lossy      whether the frames come from lossy video
    texts         description of what every episode shows; empty where there is none
    """
    frames: np.ndarray
    actions: np.ndarray
    poses: np.ndarray | None
    episodes: np.ndarray
    env: str
    action_space: ActionSpace
    fps: float
    is_lossy: bool = False
    texts: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder):
        """The frame cache in `folder`.

            Raises ValueError, which names the file, if there is none, or its files are damaged or do not
            belong together.
        """
        path = Path(folder, "index.json")
        if not path.is_file():
            raise ValueError(f"{folder}: no frame cache (index.json, written last, is missing); "
                             "build it again")
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            episodes = np.array(index["episodes"], np.int64)
            facts = {"env": index["env"], "action_space": ActionSpace.from_json(index["action_space"]),
                     "fps": index["fps"], "is_lossy": index["is_lossy"], "texts": tuple(index["texts"])}
            expected = _shapes(int(episodes[:, 1].sum()), index["frame_size"], facts["action_space"])
            names = _ARRAYS if index["has_poses"] else _ARRAYS.keys() - {"poses"}
        except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}: damaged ({what}); build the frame cache again") from None
        arrays = {name: _mapped(path.with_name(f"{name}.npy"), expected[name]) for name in names}
        return cls(**{"poses": None} | arrays, episodes=episodes, **facts)

    @property
    def frame_size(self):
        return self.frames.shape[1:3]

    def split(self, name):
        """Episodes int64 [e 3] of "train" or "held_out" (see `is_held_out`)."""
        return split_episodes(self.episodes, name)

    def text_at(self, row):
        """The text of the episode that contains that row."""
        return self.texts[np.searchsorted(self.episodes[:, 0], row, side="right") - 1]


def split_episodes(episodes, name):
    """Those of int64 [e 3], start, length and seed, that are of "train" or "held_out" (see `is_held_out`)."""
    held_out = np.array([is_held_out(int(seed)) for seed in episodes[:, 2]], bool)
    return episodes[{"train": ~held_out, "held_out": held_out}[name]]


def write_frame_cache(rollouts, folder, *, world, num_frames, has_poses=True, is_lossy=False, imported=None,
                      progress=None):
    """Write rollouts, as they come, into a frame cache, and open it.

    rollouts    iterable of Rollout, `num_frames` frames in all
    world       the World they come from, or its Source
    has_poses   whether the rollouts have poses; is_lossy: whether their frames come from lossy video
    imported    how they were read from a data set, kept in index.json for people to read
    progress    called with the number of frames of every rollout written

        Raises ValueError if the disk is too small or the rollouts hold another number of frames.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(num_frames, world.frame_size, world.action_space)
    for name in ("index.json", *(f"{name}.npy" for name in _ARRAYS)):  # of one that was never finished, too
        (folder / name).unlink(missing_ok=True)
    require_space(folder, int(np.prod(shapes["frames"])) + num_frames * 64)
    arrays = {name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shapes[name])
              for name, dtype in _ARRAYS.items() if has_poses or name != "poses"}
    episodes, texts, start = [], [], 0
    for rollout in rollouts:
        length = len(rollout.frames)
        if start + length > num_frames:
            raise ValueError(f"{folder}: the rollouts hold more than the {num_frames} frames announced")
        for name, array in arrays.items():
            array[start:start + length] = getattr(rollout, name)
        episodes.append([start, length, rollout.seed])
        texts.append(rollout.text)
        start += length
        if progress:
            progress(length)
    if start != num_frames:
        raise ValueError(f"{folder}: the rollouts hold {start} frames, not the {num_frames} announced")
    for array in arrays.values():
        array.flush()
    write_json(folder / "index.json", {**Source.of(world).to_json(), "has_poses": has_poses,
                                       "is_lossy": is_lossy, "imported": imported,
                                       "episodes": episodes, "texts": texts})
    return FrameCache.open(folder)


def _mapped(path, shape):
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: unreadable ({error}); build the frame cache again") from None
    if array.shape != shape:
        raise ValueError(f"{path}: shape {array.shape}, index.json says {shape}; build the frame cache again")
    return array


def _shapes(num_frames, frame_size, space):
    return {"frames": (num_frames, *frame_size, 3), "actions": (num_frames, space.num_channels),
            "poses": (num_frames, 4)}
