"""Whether a long walk melts: sharpness, brightness and colours of the frames against the real ones' means."""
import math

import numpy as np

from worldplay.eval.statistics import compare, statistics
from worldplay.eval.streams import encode_for

CURVE = (100, 300, 1_000, 3_000, 10_000)
JUDGED = 50  # frames of a walk that survival judges together
_TAIL = 0.25  # a figure at frame N is the mean over the last quarter of the way there
# how far a walk may be from the real frames of the same way: ratios between these, and the share of pixels
# that have another colour beyond what the choice of places makes
_SHARPNESS, _BRIGHTNESS, _COLOURS = (0.75, 1.33), (0.8, 1.25), 0.25


def is_whole(walk, real, codec_sharpness):
    """Whether figures of `compare` of dreamed frames are near those of the real frames of the same way.

    codec_sharpness  ratio, what the codec alone leaves of the sharpness
    """
    return (_is_within(walk["sharpness_ratio"], codec_sharpness * real["sharpness_ratio"], _SHARPNESS)
            and _is_within(walk["brightness_ratio"], real["brightness_ratio"], _BRIGHTNESS)
            and walk["histogram_distance"] <= real["histogram_distance"] + _COLOURS)


def _is_within(value, real, bounds):
    return bounds[0] * real <= value <= bounds[1] * real


def drift_score(figures):
    """How far a walk has drifted, 0 not at all: figures of `drift` at one point of its curve.

    Sharpness counts against what the codec leaves of it, which no walk can exceed for long.
    """
    def away(ratio):
        return abs(math.log(max(ratio, 1e-3)))
    sharpness = figures["sharpness_ratio"] / max(figures["codec_sharpness_ratio"], 1e-3)
    return away(sharpness) + away(figures["brightness_ratio"]) + figures["histogram_distance"]


def drift(material, player):
    """{drift: {frames: figures of `compare`, n, codec_sharpness_ratio, real}} at every point of CURVE walked.

    Walk i has as many frames as material.walks[i]; each follows the actions of a Walk of the source from its
    real frames on. The reference is the mean over all real streams of the player. `real` holds the same
    figures for the real frames of the walks: what the choice of places alone makes of them.
    """
    return {"drift": _curve(*_walked(material, player))}


def walks(material, player):
    """{drift, survival} of the same walks; see `drift` and `survival`.

    Free play counts among the walks of `survival`, as short ones.
    """
    made, real, of_streams, codec = _walked(material, player)
    context = material.streams[player].context
    dreams = [np.stack([statistics(frame) for frame in dream[context:]]) for dream in material.dreams(player)]
    return {"drift": _curve(made, real, of_streams, codec),
            "survival": survival([*made, *dreams], [*real, *of_streams[:len(dreams), context:]],
                                 of_streams.mean((0, 1)), codec)}


def survival(made, real, reference, codec):
    """How long walks stay whole (`is_whole`), judged over every JUDGED frames.

    made, real  a list of arrays, one a walk, one row of `statistics` a frame: the dream's, and the real ones
                of the same way
    reference   float64 [98], mean statistics of real frames
    codec       sharpness ratio that the codec alone leaves
    Returns     {frames, alive, walks, real_elsewhere, dream, real}, lists over time but dream and real
                frames          JUDGED, 2 JUDGED, ...: the last frame judged
                alive           share of walks that were whole until then, 0 to 1, by Kaplan and Meier's
                                estimate, so that a walk counts as long as it was walked
                walks           walks that long
                real_elsewhere  alive of the real frames of each next walk held against this one's: what the
                                choice of places alone lets die
                dream, real     {figure of `compare`: list over time}, means over the walks that long

    Source: Kaplan and Meier, Nonparametric Estimation from Incomplete Observations, JASA 1958.
    """
    dreamed, true = ([_parts(walk, reference) for walk in walks] for walks in (made, real))
    elsewhere = [next(other for other in [*true[i + 1:], *true[:i + 1]] if len(other) >= len(parts) or
                      other is parts) for i, parts in enumerate(true)]
    lives = [[is_whole(a, b, codec) for a, b in zip(*pair)] for pair in zip(dreamed, true)]
    longest = max(map(len, lives))

    def means(walks):
        return {name: [float(np.mean([parts[k][name] for parts in walks if len(parts) > k]))
                       for k in range(longest)] for name in (walks[0][0] if longest else ())}
    return {"frames": [JUDGED * (k + 1) for k in range(longest)], "alive": alive(lives),
            "walks": [sum(len(life) > k for life in lives) for k in range(longest)],
            "real_elsewhere": alive([[is_whole(a, b, 1.0) for a, b in zip(other, parts)]
                                     for other, parts in zip(elsewhere, true) if other is not parts]),
            "dream": means(dreamed), "real": means(true)}


def alive(lives):
    """[share] still alive by time, of lists of bool, one a life: whether it was whole at each time seen."""
    share, shares = 1.0, []
    for k in range(max(map(len, lives), default=0)):
        at_risk = [life[k] for life in lives if len(life) > k and all(life[:k])]
        share *= np.mean(at_risk) if at_risk else 1.0
        shares.append(float(share))
    return shares


def _parts(rows, reference):
    """[figures of `compare`] of every JUDGED frames of a walk, by its rows of statistics."""
    return [compare(rows[end - JUDGED:end], reference[None]) for end in range(JUDGED, len(rows) + 1, JUDGED)]


def _curve(made, real, of_streams, codec):
    reference, curve = of_streams.reshape(-1, of_streams.shape[-1]), {}
    for number in CURVE:
        reached = [i for i, walk in enumerate(made) if len(walk) >= number]
        if reached:
            tail = slice(number - int(_TAIL * number), number)
            of_made, of_real = (np.concatenate([walks[i][tail] for i in reached]) for walks in (made, real))
            curve[str(number)] = compare(of_made, reference) | {
                "n": len(of_made), "codec_sharpness_ratio": codec, "real": compare(of_real, reference)}
    return curve


def _walked(material, player):
    """(rows of statistics of the world's walks, of the real ones, of all real streams [s n 98], codec): one
    array a walk, one row a frame; codec is the sharpness that it alone leaves.
    """
    streams = material.streams[player]
    of_streams = np.stack([[statistics(frame) for frame in stream] for stream in streams.frames])
    through_codec = [statistics(frame) for frame in material.reconstruct(streams.frames[:, -1])]
    made, real = _walks(material, streams.context)
    return made, real, of_streams, compare(through_codec, of_streams[:, -1])["sharpness_ratio"]


def _walks(material, context):
    """(statistics of the world's frames, of the real ones): one array a walk, one row a frame."""
    source, starts, real = material.source, [], []
    for number, length in enumerate(material.walks):
        walk = source.walk(number, length, context)
        real.append(np.stack([statistics(frame) for frame in walk.real]))
        actions = encode_for(walk.actions, source.action_space, material.world.action_space)
        starts.append((walk.frames, actions))
    made = [[] for _ in starts]
    for length in dict.fromkeys(material.walks):  # those of one length in a batch
        walks = [i for i, other in enumerate(material.walks) if other == length]
        frames, actions = (np.stack(parts) for parts in zip(*(starts[i] for i in walks)))
        for part, _, (shown,) in material.predict(frames, actions, start=context, is_free=True):
            for i, frame in zip(walks[part], shown):
                made[i].append(statistics(frame))
    return list(map(np.stack, made)), real
