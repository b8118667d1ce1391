"""Whether walls hold the player: the picture must stand still where the real player cannot go on."""
import math

import numpy as np

from worldplay.data.frame_cache import Rollout
from worldplay.eval.statistics import motion
from worldplay.eval.streams import encode_for, stack

MOVE_KEYS = ("w", "s", "a", "d")
_HELD = 96  # frames that a key is held in the real game: most ways end at a wall by then
_TRIES = 3  # ways walked for each one that is used
_BEFORE, _AFTER = 4, 12  # frames of free play before the real player stops, and after
_STANDS, _WALKS = 0.1, 2.0  # map units a frame, at most and at least
_STILL = 0.25  # of the median change of the picture while the real player walks


def blocked(material, player):
    """{blocked: {dream, real, codec, n, walking, walking_real, walking_n, still_below}}, shares of frames, 0
    to 1.

    In the real game one key is held until a wall stops the player; from real frames that end shortly before,
    the world is played with the same key. `dream`, `real` and `codec` are the shares of frames that stand
    still where the real player does: in free play, in the real game, and in the real frames through the
    codec. `walking` is the share of frames that stand still where the real player still walks, which a world
    that shows one picture would have high. A frame stands still if its luma changes by less than still_below
    levels in the mean.
    """
    keys = _keys(material.source.action_space)
    if not keys or not material.num_trials:
        return {}
    runs = _runs_against_walls(material, keys, material.streams[player].context)
    if runs is None:
        return {"blocked": {"dream": math.nan, "real": math.nan, "codec": math.nan, "n": 0}}
    actions = encode_for(runs.actions, material.source.action_space, material.world.action_space)
    made = material.play(runs.frames, actions, runs.context)[:, runs.context - 1:]
    real = runs.frames[:, runs.context - 1:]
    codec = material.reconstruct(real.reshape(-1, *real.shape[2:])).reshape(real.shape)
    made, real, codec = motion(made), motion(real), motion(codec)
    limit = _STILL * float(np.median(real[:, :_BEFORE]))
    walking, stopped = slice(None, _BEFORE), slice(_BEFORE, None)

    def share(changes, part):
        return float((changes[:, part] < limit).mean())
    return {"blocked": {"dream": share(made, stopped), "real": share(real, stopped),
                        "codec": share(codec, stopped), "n": real[:, stopped].size,
                        "walking": share(made, walking),
                        "walking_real": share(real, walking), "walking_n": real[:, walking].size,
                        "still_below": limit}}


def trials(source):
    """[(frames after the context, frames that pass through the codec)] of each kind of trial: one kind, or
    none without keys to walk by.
    """
    return [(_BEFORE + _AFTER, _BEFORE + _AFTER + 1)] if _keys(source.action_space) else []


def _keys(space):
    return [key for key in MOVE_KEYS if key in space.keys]


def _runs_against_walls(material, keys, context):
    """Streams that walk for _BEFORE frames after the context and then stand against a wall, or None."""
    source, scripts = material.source, []
    for number, seed in enumerate(source.seeds(_TRIES * material.num_trials)):
        vectors = np.zeros((context + _HELD, source.action_space.num_channels), np.float32)
        vectors[:, source.action_space.keys.index(keys[number % len(keys)])] = 1
        scripts.append((seed, vectors))
    found = [cut for rollout in source.play(scripts) if (cut := _cut(rollout, context)) is not None]
    return stack(found[:material.num_trials], context) if found else None


def _cut(rollout, context):
    """The part of a rollout around the place where it stops for good, or None."""
    # speed[i]: from frame i to i + 1
    speed = np.hypot(*np.diff(rollout.poses[:, :2].astype(np.float64), axis=0).T)
    moving = np.flatnonzero(speed > _STANDS)
    stop = moving[-1] + 2 if len(moving) else 0  # the first frame that shows the same place as the one before
    start = stop - _BEFORE - context
    if start < 0 or stop + _AFTER > len(rollout.frames):
        return None
    if (speed[stop - 1 - _BEFORE:stop - 1] < _WALKS).any():
        return None
    part = slice(start, stop + _AFTER)
    return Rollout(rollout.frames[part], rollout.actions[part], rollout.poses[part], rollout.seed)
