"""Several worlds on the same real streams: figures by stream, to be compared by bootstrap."""
from dataclasses import dataclass
from typing import Callable

import numpy as np

from worldplay.eval.control import follows_turn, turn_commands
from worldplay.eval.drift import drift_score
from worldplay.eval.fidelity import score_targets
from worldplay.eval.statistics import compare, psnr, statistics

_FREE = 16  # frames of free play that free_psnr looks at
_TAIL = 0.25  # last part of free play, where drift shows


def measure(material, player, every):
    """What a world makes of each of s streams, a dict of float arrays whose rows are streams.

    every  only each so many-th of the predicted next frames counts, beginning with the first: of a chunk-wise
           world those that are made right after a real frame, so that worlds of all kinds are asked for the
           same frames
    """
    streams, dreams = material.streams[player], material.dreams(player)
    real = streams.frames[:len(dreams)]
    after = slice(streams.context, None)
    yaw, _, steady = turn_commands(material, player)
    tail = -int(_TAIL * dreams[:, after].shape[1])
    reference = np.stack([_mean_statistics(frames) for frames in real])
    codec = np.stack([_mean_statistics(material.reconstruct(frames[::8])) for frames in real])
    return {
        "next_psnr": score_targets(material, player)[0]["psnr"][:, ::every].mean(axis=1),
        "free_psnr": psnr(dreams[:, after], real[:, after])[:, :_FREE].mean(axis=1),
        "turns_obeyed": _count_obeyed(dreams, streams.context, yaw, steady),
        "real_turns_obeyed": _count_obeyed(real, streams.context, yaw, steady),
        "turns": steady.sum(axis=1).astype(float),
        "motion": _motion(dreams[:, after]), "real_motion": _motion(real[:, after]),
        "statistics": np.stack([_mean_statistics(frames[tail:]) for frames in dreams]),
        "real_statistics": reference, "codec_statistics": codec}


@dataclass(frozen=True)
class Figure:
    """A figure by which worlds are compared.

    title      its name with the unit
    value      function (result of `measure`, int array of the streams to include) -> float
    direction  1 where more is better, -1 where less is, 0 where it has no better and worse
    margin     the largest difference that does not matter to a player, in the figure's unit
    """
    title: str
    value: Callable
    direction: int
    margin: float = 0.0


def _drift(part):
    def value(rows, picks):
        real = rows["real_statistics"][picks]
        figures = compare(rows["statistics"][picks], real)
        figures["codec_sharpness_ratio"] = compare(rows["codec_statistics"][picks], real)["sharpness_ratio"]
        return drift_score(figures) if part is None else figures[part]
    return value


def _share(above, below):
    return lambda rows, picks: float(rows[above][picks].sum() / max(rows[below][picks].sum(), 1e-9))


def _mean(name):
    return lambda rows, picks: float(rows[name][picks].mean())


FIGURES = {
    "next_psnr": Figure("next frame, dB", _mean("next_psnr"), 1, 0.1),
    "free_psnr": Figure(f"free play, first {_FREE} frames, dB", _mean("free_psnr"), 1, 0.1),
    "turn_sign": Figure("turns obeyed, share", _share("turns_obeyed", "turns"), 1, 0.02),
    "drift": Figure("drift score, 0 none", _drift(None), -1, 0.02),
    "motion": Figure("motion, of the real", _share("motion", "real_motion"), 0),
    "sharpness": Figure("sharpness, of the real", _drift("sharpness_ratio"), 0),
    "brightness": Figure("brightness, of the real", _drift("brightness_ratio"), 0),
    "colour": Figure("colour distance", _drift("histogram_distance"), 0)}


def _mean_statistics(frames):
    return np.mean([statistics(frame) for frame in frames], axis=0)


def _motion(frames):
    """Mean step of a pixel between neighbouring frames, levels: [s] of uint8 [s n H W 3]."""
    return np.array([np.abs(np.diff(stream.astype(np.int16), axis=0)).mean() for stream in frames])


def _count_obeyed(frames, context, yaw, chosen):
    """float [s]: turns that each stream obeys, of those chosen, bool [s n] over free play."""
    counts = np.zeros(len(frames))
    s, i = np.nonzero(chosen)
    if len(s):
        obeyed = follows_turn(frames[s, context + i - 1], frames[s, context + i], yaw[chosen])
        np.add.at(counts, s, obeyed)
    return counts
