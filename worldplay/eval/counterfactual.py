"""What one change of the input changes: the same past and noise with no key, with one key, with a turn."""
import math

import numpy as np

from worldplay.eval import probe
from worldplay.eval.statistics import luma, motion
from worldplay.eval.streams import encode_for

_FRAMES = 8  # after the change
_TURN_SHARE = 0.5  # of the most that a frame can turn
_LEAST = 0.5  # levels: a smaller difference is rounding
_OTHER_SEED = 12_345  # of the noise


def counterfactual(material, player):
    """{counterfactual: {starts, frames, idle, KEY: {...}, turn: {...}}}: how soon and how rightly a change
    shows.

    From the same real past and with the same noise the world is played with no key, with each key held, and
    with a turn (to the right and to the left by turns). Of a game the player stands before, and the real game
    is played with the same actions; of recordings the past is that of the streams.

    frames      mean number of the first frame that answers: that differs from the frame without a key by more
                than two such frames of other noise do, levels of luma in the mean; 1 is the first
    answered    share of the starts with such a frame among the first _FRAMES
    read        share of frames in which the probe reads the key, or the turn the right way;
                read_idle of a key: the same without it
    real_...    the same of the real game, held against the same differences; left out of recordings
    idle        {dream, real}: change from frame to frame without a key, over that of the real frames in which
                the player moves; a world that stands still has 0
    """
    space, names = material.source.action_space, _names(material)
    numbers, pasts, changes, real = (_game if material.source.is_game else _recorded)(material, names)
    if not numbers:
        return {}
    context = pasts.shape[1]
    given = encode_for(changes, space, material.world.action_space)
    starts = np.tile(pasts, (len(given), 1, 1, 1, 1))
    made = material.play(starts, given.reshape(-1, *given.shape[2:]), context)
    made = made.reshape(*given.shape[:2], *made.shape[1:])[:, :, context - 1:]
    other = material.play(pasts, given[0], context, seed=_OTHER_SEED)[:, context - 1:]
    limit = np.maximum(_difference(made[0], other), _LEAST)
    streams = material.streams[player]
    moving = motion(streams.frames)[streams.is_moving(material.world.action_space)[:, 1:]]
    usual = float(moving.mean()) if moving.size else math.nan
    worlds = {"": made, **({"real_": real} if real is not None else {})}
    figures = {name: {} for name in names}
    for prefix, frames in worlds.items():
        reads = _reads(material, names, frames, numbers)
        for name, changed in zip(names, frames[1:]):
            found = _answers(changed, frames[0], limit) | reads.get(name, {})
            figures[name] |= {prefix + key: value for key, value in found.items()}
    idle = {"real" if prefix else "dream": float(motion(frames[0]).mean()) / usual
            for prefix, frames in worlds.items()}
    return {"counterfactual": {"starts": len(numbers), "frames": _FRAMES, "idle": idle, **figures}}


def num_starts(material):
    """How many pasts are gone on from."""
    streams = next(iter(material.streams.values()))
    wanted = max(2, material.num_trials // 2) if material.source.is_game else material.num_dreams // 2
    return min(len(streams.frames), wanted)


def planned_work(material):
    """What `counterfactual` costs, in the unit of Material.work; it is less where the game ends before."""
    context = next(iter(material.streams.values())).context
    return material.work((2 + len(_names(material))) * num_starts(material), context + _FRAMES, context,
                         is_free=True)


def _names(material):
    """The keys that world and source have, and "turn" where both look."""
    ours, theirs = material.world.action_space, material.source.action_space
    return [*(key for key in theirs.keys if key in ours.keys),
            *(["turn"] if ours.look_axes and theirs.look_axes else [])]


def _changes(space, names, num):
    """float32 [c s n a]: nothing, each key held and a turn, over _FRAMES, for each start."""
    vectors = np.zeros((1 + len(names), num, _FRAMES, space.num_channels), np.float32)
    for each, name in zip(vectors[1:], names):
        if name == "turn":
            each[..., len(space.keys)] = _TURN_SHARE * _signs(range(num))[:, None]
        else:
            each[..., space.keys.index(name)] = 1
    return vectors


def _signs(numbers):
    """int [s]: 1 where a start of that number turns to the right, -1 to the left."""
    return np.where(np.asarray(numbers) % 2, -1, 1)


def _game(material, names):
    """The starts from which the game plays all changes to their end: (numbers, pasts, actions, frames).

    pasts    uint8 [s context H W 3]
    actions  float32 [c s n a], from the beginning of the pasts on
    frames   uint8 [c s 1+n H W 3] of the real game, from the last of the past on
    """
    source, context = material.source, next(iter(material.streams.values())).context
    changes = _changes(source.action_space, names, num_starts(material))
    count, num = changes.shape[:2]
    still = np.zeros((count, num, context - 1, changes.shape[-1]), np.float32)
    vectors = np.concatenate([still, changes], axis=2)
    played = source.play([(seed, vectors[i, j]) for j, seed in enumerate(source.seeds(num))
                          for i in range(count)])
    ways = [played[j * count:(j + 1) * count] for j in range(num)]
    whole = [j for j, way in enumerate(ways) if all(len(each.frames) == context + _FRAMES for each in way)]
    if not whole:
        return [], None, None, None
    real = np.stack([np.stack([each.frames for each in ways[j]]) for j in whole], axis=1)
    actions = np.concatenate([still[:, :, :1], vectors], axis=2)[:, whole]
    return whole, real[0][:, :context], actions, real[:, :, context - 1:]


def _recorded(material, names):
    """The same of the first streams of a data set, without real frames."""
    streams, space = next(iter(material.streams.values())), material.source.action_space
    changes = _changes(space, names, num_starts(material))
    past = streams.actions[:changes.shape[1], :streams.context]
    past = encode_for(past, material.world.action_space, space)
    past = np.broadcast_to(past, (len(changes), *past.shape))
    numbers = list(range(changes.shape[1]))
    return numbers, streams.frames[numbers, :streams.context], np.concatenate([past, changes], axis=2), None


def _difference(frames, others):
    """float [s n]: mean difference of the luma, levels, after the first frame of uint8 [s 1+n H W 3]."""
    return np.stack([np.abs(luma(a[1:]) - luma(b[1:])).mean((1, 2)) for a, b in zip(frames, others)])


def _answers(frames, idle, limit):
    differs = _difference(frames, idle) > limit
    answered = differs.any(1)
    first = differs.argmax(1)[answered] + 1
    return {"frames": float(first.mean()) if len(first) else math.nan, "answered": float(answered.mean())}


def _reads(material, names, frames, numbers):
    """{name: {read, read_idle of a key}} of uint8 [c s n H W 3]; without what the probe cannot tell."""
    reader, space = probe.fitted(material), material.world.action_space
    if reader is None:
        return {}
    keys = [space.keys[i] for i in reader.keys]
    read = [reader.read_frames(each, numbers) for each in frames]
    found = {name: {"read": float(held[..., keys.index(name)].mean()),
                    "read_idle": float(read[0][0][..., keys.index(name)].mean())}
             for name, (held, _) in zip(names, read[1:]) if name in keys}
    if "turn" in names:
        found["turn"] = {"read": float((np.sign(read[-1][1][..., 0]) == _signs(numbers)[:, None]).mean())}
    return found
