"""Whether a long walk melts: sharpness, brightness and colours of the frames against the real ones' means."""
import math

import numpy as np

from worldplay.action import Action
from worldplay.engine.measure import through_codec
from worldplay.envs.players import PLAYERS

CURVE = (100, 300, 1_000, 3_000, 10_000)
PLAYER = "explorer"
_BINS = 32
_TAIL = 0.25  # a figure at frame N is the mean over the last quarter of the way there


def luma(frames):
    """uint8 [... 3] RGB -> float32 [...], levels 0 to 255 (ITU-R BT.601)."""
    return np.asarray(frames, np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def statistics(frame):
    """float64 [2 + 3 bins] of one frame, uint8 [H W 3].

    The mean step of the luma between neighbouring pixels (levels), its mean (levels), and the share of pixels
    in each of 32 bins of each colour.
    """
    grey = luma(frame)
    sharpness = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    bins = np.asarray(frame).reshape(-1, 3) // (256 // _BINS) + np.arange(3) * _BINS
    histogram = np.bincount(bins.ravel(), minlength=3 * _BINS) / len(bins)
    return np.concatenate([[sharpness, grey.mean()], histogram])


def compare(stats, real):
    """{sharpness_ratio, brightness_ratio, histogram_distance} of the means of two sets of `statistics` rows.

    The distance is the share of pixels (0 to 1) that would have to change bins, mean over the three colours.
    """
    stats, real = np.mean(stats, axis=0), np.mean(real, axis=0)
    return {"sharpness_ratio": float(stats[0] / real[0]), "brightness_ratio": float(stats[1] / real[1]),
            "histogram_distance": float(np.abs(stats[2:] - real[2:]).sum() / 6)}


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

    Walks follow the explorer's actions in the real environment on the streams' seeds, each from real frames; walk i is
    as long as material.walks[i]. The reference is the mean over all the explorer's real streams. `real` holds the same
    figures for the real game that was given the same actions: what the choice of places alone makes of them.
    """
    streams = material.streams[player]
    reference = [statistics(frame) for stream in streams.frames for frame in stream]
    sample = streams.frames[:, -1]
    decoded = [statistics(frame) for frame in through_codec(material.world, sample)]
    codec = compare(decoded, [statistics(frame) for frame in sample])["sharpness_ratio"]
    made, real = zip(*_walks(material, streams))
    curve = {}
    for number in CURVE:
        reached = [i for i, length in enumerate(material.walks) if length >= number]
        if reached:
            tail = slice(number - int(_TAIL * number), number)
            of_made, of_real = (np.concatenate([walks[i][tail] for i in reached]) for walks in (made, real))
            curve[str(number)] = compare(of_made, reference) | {
                "n": len(of_made), "codec_sharpness_ratio": codec, "real": compare(of_real, reference)}
    return {"drift": curve}


def _walks(material, streams):
    """Yield ([statistics of the world's frames], [statistics of the real ones]) of every walk."""
    world, real, context = material.world, material.open_real(), streams.context
    space, fit = real.action_space, world.action_space.fit  # a world of other keys is led the same way
    for number, (length, seed) in enumerate(zip(material.walks, map(int, streams.seeds)), 1):
        vectors = PLAYERS[PLAYER](space, context - 1 + length, seed)
        actions = [space.decode(vector) for vector in vectors]
        frames = [real.reset(seed=seed)[-1], *_frames(real, actions[:context - 1])]
        ahead = actions[context - 1:]
        of_real = [statistics(frame) for frame in _frames(real, ahead)]
        world.reset(frames=np.stack(frames), actions=[Action(), *map(fit, actions[:context - 1])])
        shown = material.track(world.walk(list(map(fit, ahead))), desc=f"drift walk {number}", total=length, unit="frame")
        yield [statistics(frame) for frame in shown], of_real
    real.close()


def _frames(world, actions):
    for action in actions:
        yield from world.step(action)
