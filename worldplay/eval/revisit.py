"""Whether a place is still there when the player comes back: after full turns, and walks there and back."""
import math

import numpy as np

from worldplay.eval.statistics import psnr
from worldplay.eval.streams import encode_for, stack

KNOWN = 18.0  # dB PSNR from which a place counts as the same
_TURN_SHARE = 5 / 6  # of the most that a frame can turn
_STEPS = 16  # frames forward, and as many back
_STANDING, _COMPARED = 8, 4  # frames at the end without a key; the last of them are compared
_TRIES = 2  # ways walked for each one that is used
_NEAR, _AWAY, _SAME_HEADING = 16.0, 64.0, 5.0  # back within map units, after at least so many away; degrees


def revisit(material, player):
    """{revisit: {psnr, above_18db, n, codec_psnr, elsewhere_psnr, turn, walk}}; turn and walk hold the first
    three.

    The player stands, turns once around or walks forward and backward again, and stands there again: in free
    play and in the real game, with the same actions. Compared are the last frames of both, at the real game's
    pose.

    psnr            dB, mean over n streams; above_18db: the share of streams, 0 to 1, above KNOWN
    codec_psnr      the real frames through the codec, the ceiling
    elsewhere_psnr  the real frames of other streams, the floor: places that have nothing to do with each
                    other
    """
    scores, ceilings, floors = {}, [], []
    for kind, streams in _returns(material, material.streams[player].context).items():
        actions = encode_for(streams.actions, material.source.action_space, material.world.action_space)
        made = material.play(streams.frames, actions, streams.context)[:, -_COMPARED:]
        real = streams.frames[:, -_COMPARED:]
        scores[kind] = psnr(made, real).mean(1)
        ceilings.append(psnr(material.reconstruct(real[:, -1]), real[:, -1]))
        floors.append(psnr(np.roll(real, 1, axis=0), real).mean(1) if len(real) > 1 else np.empty(0))
    if not scores:
        return {}
    return {"revisit": _figures(np.concatenate(list(scores.values()))) | {
        "codec_psnr": _mean(np.concatenate(ceilings)), "elsewhere_psnr": _mean(np.concatenate(floors)),
        **{kind: _figures(values) for kind, values in scores.items()}}}


def turn_around(space):
    """float32 [n a]: one turn to the right by 360 degrees in as many frames as it takes."""
    frames = math.ceil(360 / (_TURN_SHARE * space.look_limit))
    vectors = np.zeros((frames, space.num_channels), np.float32)
    vectors[:, len(space.keys)] = 360 / frames / space.look_limit
    return vectors


def there_and_back(space):
    """float32 [n a]: forward, and backward by as many frames."""
    vectors = np.zeros((2 * _STEPS, space.num_channels), np.float32)
    vectors[:_STEPS, space.keys.index("w")] = vectors[_STEPS:, space.keys.index("s")] = 1
    return vectors


def scripts(space):
    """{kind: encoded actions} of the ways that an ActionSpace allows."""
    kinds = {"turn": turn_around} if space.look_axes else {}
    if {"w", "s"} <= set(space.keys):
        kinds["walk"] = there_and_back
    return {kind: make(space) for kind, make in kinds.items()}


def trials(source):
    """[(frames after the context, frames that pass through the codec)] of each kind of trial."""
    return [(len(vectors) + _STANDING, 1) for vectors in scripts(source.action_space).values()]


def _returns(material, context):
    """{kind: Streams} that end where they began, by their true poses."""
    source, chosen = material.source, {}
    for kind, middle in scripts(source.action_space).items():
        if not material.num_trials:
            continue
        still = [np.zeros((length, middle.shape[1]), np.float32) for length in (context - 1, _STANDING)]
        vectors = np.concatenate([still[0], middle, still[1]])
        rollouts = source.play([(seed, vectors) for seed in source.seeds(_TRIES * material.num_trials)])
        found = [rollout for rollout in rollouts if _comes_back(rollout.poses.astype(np.float64), context,
                                                                kind)]
        if found:
            chosen[kind] = stack(found[:material.num_trials], context)
    return chosen


def _comes_back(poses, context, kind):
    distance = np.hypot(*(poses[context - 1:, :2] - poses[context - 1, :2]).T)
    heading = abs((poses[-1, 3] - poses[context - 1, 3] + 180) % 360 - 180)
    return distance[-1] <= _NEAR and heading <= _SAME_HEADING and (kind == "turn" or distance.max() >= _AWAY)


def _figures(scores):
    return {"psnr": _mean(scores), "above_18db": _mean(scores > KNOWN), "n": len(scores)}


def _mean(values):
    return float(np.mean(values)) if len(values) else math.nan
