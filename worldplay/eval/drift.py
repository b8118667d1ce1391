"""Whether a long walk melts: sharpness, brightness and colours of the frames against the real ones' means."""
import math

import numpy as np

from worldplay.eval.statistics import compare, edges, statistics
from worldplay.eval.streams import encode_for

CURVE = (100, 300, 1_000, 3_000, 10_000)
_TAIL = 0.25  # a figure at frame N is the mean over the last quarter of the way there
# how far a walk may be from the real frames of the same way: ratios between these, and the share of pixels
# that have another colour beyond what the choice of places makes
_SHARPNESS, _BRIGHTNESS, _COLOURS = (0.75, 1.33), (0.8, 1.25), 0.25
MIN_EDGES = 0.5  # part of the real frames' edges that has to be there, whatever the codec leaves of them


def is_whole(walk, real, codec_sharpness):
    """Whether figures of `compare` of dreamed frames are near those of the real frames of the same way.

    codec_sharpness  ratio, what the codec alone leaves of the sharpness
    """
    return (_is_within(walk["sharpness_ratio"], codec_sharpness * real["sharpness_ratio"], _SHARPNESS)
            and _is_within(walk["brightness_ratio"], real["brightness_ratio"], _BRIGHTNESS)
            and walk["histogram_distance"] <= real["histogram_distance"] + _COLOURS)


def has_edges(walk, real):
    """Whether figures of `drift` of dreamed frames have the edges of the real frames of the same way: an
    object that has become a blot on a plain ground, or nothing, changes little else."""
    return walk["edge_ratio"] >= MIN_EDGES * real["edge_ratio"]


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
    """{drift: {frames: figures of `compare`, edge_ratio, n, codec_sharpness_ratio, codec_edge_ratio, real}}
    at every point of CURVE walked.

    edge_ratio compares the roots of the mean squares of steps between neighbours (statistics.edges).

    Walk i has as many frames as material.walks[i]; each follows the actions of a Walk of the source from its
    real frames on. The reference is the mean over all real streams of the player. `real` holds the same
    figures for the real frames of the walks: what the choice of places alone makes of them.
    """
    return {"drift": curve(*walked(material, player))}


def walked(material, player):
    """(made, real, of_streams, codec): the walks of a Material by their statistics.

    made, real  a list of arrays [n 99], one a walk, one `row` a frame: the world's, and the real ones of the
                same way
    of_streams  float64 [s n 99], of all real streams
    codec       figures of `compare_rows` of real frames through the codec
    """
    streams = material.streams[player]
    of_streams = np.stack([[row(frame) for frame in stream] for stream in streams.frames])
    through_codec = [row(frame) for frame in material.reconstruct(streams.frames[:, -1])]
    made, real = _walks(material, streams.context)
    return made, real, of_streams, compare_rows(through_codec, of_streams[:, -1])


def curve(made, real, of_streams, codec):
    """{frames: figures} of what `walked` gives, at every point of CURVE; see `drift`."""
    reference, points = of_streams.reshape(-1, of_streams.shape[-1]), {}
    for number in CURVE:
        reached = [i for i, walk in enumerate(made) if len(walk) >= number]
        if reached:
            tail = slice(number - int(_TAIL * number), number)
            of_made, of_real = (np.concatenate([walks[i][tail] for i in reached]) for walks in (made, real))
            points[str(number)] = compare_rows(of_made, reference) | {
                "n": len(of_made), "real": compare_rows(of_real, reference),
                **{f"codec_{name}": codec[name] for name in ("sharpness_ratio", "edge_ratio")}}
    return points


def row(frame):
    """float64 [99] of one frame, uint8 [H W 3]: its `statistics` and its `edges`."""
    return np.append(statistics(frame), edges(frame))


def compare_rows(rows, real):
    """Figures of `compare`, and edge_ratio, of the means of two sets of rows [n 99]."""
    rows, real = np.asarray(rows), np.asarray(real)
    of_rows, of_real = rows[:, -1].mean(), real[:, -1].mean()
    return compare(rows[:, :-1], real[:, :-1]) | {
        "edge_ratio": math.sqrt(of_rows / of_real) if of_real else math.nan}


def _walks(material, context):
    """(`row`s of the world's frames, of the real ones): one array a walk, one row a frame."""
    source, starts, real = material.source, [], []
    for number, length in enumerate(material.walks):
        walk = source.walk(number, length, context)
        real.append(np.stack([row(frame) for frame in walk.real]))
        actions = encode_for(walk.actions, source.action_space, material.world.action_space)
        starts.append((walk.frames, actions))
    made = [[] for _ in starts]
    for length in dict.fromkeys(material.walks):  # those of one length in a batch
        walks = [i for i, other in enumerate(material.walks) if other == length]
        frames, actions = (np.stack(parts) for parts in zip(*(starts[i] for i in walks)))
        for part, _, (shown,) in material.predict(frames, actions, start=context, is_free=True):
            for i, frame in zip(walks[part], shown):
                made[i].append(row(frame))
    return list(map(np.stack, made)), real
