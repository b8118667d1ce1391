"""How near a world's frames come to the real ones: next frame, free play, codec, and the baselines."""
import math

import numpy as np
import torch
from einops import rearrange

from worldplay.eval.bootstrap import ratio_interval
from worldplay.eval.control import shift, shifted
from worldplay.eval.statistics import psnr

HORIZONS = (1, 4, 16, 64)
BASELINES = ("repeat_last", "shifted_last", "shuffled_actions")
_SCORES = ("psnr", "ssim", *(f"{name}_psnr" for name in BASELINES), "codec_psnr")
_WINDOW, _SPREAD = 11, 1.5  # the Gaussian of SSIM, pixels


def ssim(a, b):
    """Structural similarity of each pair of frames, mean over channels and windows inside the frame.

    a, b     uint8 or float [n H W 3], levels 0 to 255
    Returns  float64 [n], at most 1

    Source: Wang et al., Image quality assessment, IEEE TIP 2004, with its Gaussian window of 11 pixels.
    """
    rows, columns = (_blur_matrix(length) for length in a.shape[1:3])

    def blur(x):
        return rows.T @ x @ columns

    x, y = (rearrange(torch.from_numpy(np.ascontiguousarray(frames)).float(), "n H W c -> (n c) H W")
            for frames in (a, b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x ** 2, blur(y * y) - mean_y ** 2, blur(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)
                  / ((mean_x ** 2 + mean_y ** 2 + c1) * (var_x + var_y + c2)))
    return rearrange(similarity.double(), "(n c) H W -> n (c H W)", c=a.shape[-1]).mean(1).numpy()


def _blur_matrix(length):
    """float32 [length, length - _WINDOW + 1]: a line of pixels times it is blurred, where the window fits."""
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-offsets ** 2 / (2 * _SPREAD ** 2))
    matrix = torch.zeros(length, length - _WINDOW + 1, dtype=torch.float64)
    for i, weight in enumerate(window / window.sum()):
        matrix.diagonal(-i).fill_(weight)
    return matrix.float()


def next_frame(material, player):
    """{next_frame, moving}: a frame predicted from real ones, over all frames and where the player moves.

    Each holds psnr, ssim, n, repeat_last_psnr (the last real frame again), shifted_last_psnr (the last real
    frame moved sideways as the upper part of the real next frame fits best, see control.shift: a turn that
    knows its size and shows nothing new), shuffled_actions_psnr (the same context, with the action of another
    frame drawn at random) and codec_psnr (the real frame through the codec).

    interval   {psnr, over_NAME: [low, high]}, dB: of psnr, and of what it is above each baseline (BASELINES)
    by_stream  {psnr, n, episode}: psnr of each stream, the number of its frames, and its episode, which
               `compare` pairs
    """
    scores, moving = score_targets(material, player)
    episodes = material.streams[player].episodes
    return {"next_frame": _figures(scores, np.ones_like(moving), episodes),
            "moving": _figures(scores, moving, episodes)}


def rollout_psnr(material, player):
    """{rollout_psnr: {frames of free play: dB at that frame}, rollout_n: streams} and, at the same frames,
    rollout_psnr_interval ([low, high]), rollout_repeat_psnr (the last real frame of the context again) and
    rollout_by_stream.
    """
    streams, dreams = material.streams[player], material.dreams(player)
    real, at = streams.frames[:len(dreams)], horizons(streams)
    scores = {number: psnr(real[:, i], dreams[:, i]) for number, i in at.items()}
    return {"rollout_psnr": {number: float(score.mean()) for number, score in scores.items()},
            "rollout_psnr_interval": {number: ratio_interval(
                                 score, np.ones(len(score)), streams.episodes[:len(score)])
                                 for number, score in scores.items()},
            "rollout_repeat_psnr": {number: float(psnr(real[:, i], real[:, streams.context - 1]).mean())
                                    for number, i in at.items()},
            "rollout_by_stream": {number: score.tolist() for number, score in scores.items()},
            "rollout_n": len(dreams)}


def horizons(streams):
    """{number of the frame of free play, a str: its index in the streams} of HORIZONS that they reach."""
    horizon = streams.frames.shape[1] - streams.context
    return {str(number): streams.context + number - 1 for number in HORIZONS if number <= horizon}


def score_targets(material, player):
    """({score: float64 [s i]}, bool [s i] where the player moves) over the first frames after the context."""
    streams = material.streams[player]
    start, stop = streams.context, min(streams.context + material.num_targets, streams.frames.shape[1])
    frames, actions = streams.frames[:, :stop], streams.actions[:, :stop]
    targets = actions[:, start:].reshape(-1, actions.shape[-1])
    misleading = actions.copy()
    misleading[:, start:] = np.random.default_rng(0).permutation(targets).reshape(actions[:, start:].shape)
    scores = {name: np.zeros((len(frames), stop - start)) for name in _SCORES}
    for part, i, (guess, misled) in material.predict(frames, actions, [misleading], start=start):
        before, real, row = frames[part, i - 1], frames[part, i], i - start
        scores["psnr"][part, row] = psnr(guess, real)
        scores["ssim"][part, row] = ssim(guess, real)
        scores["repeat_last_psnr"][part, row] = psnr(before, real)
        scores["shifted_last_psnr"][part, row] = psnr(shifted(before, shift(before, real)), real)
        scores["shuffled_actions_psnr"][part, row] = psnr(misled, real)
        scores["codec_psnr"][part, row] = psnr(material.reconstruct(real), real)
    return scores, streams.is_moving(material.world.action_space)[:, start:stop]


def _figures(scores, chosen, episodes):
    """Means over the frames chosen, bool [s i], with their intervals over the episodes, int [s]; see
    next_frame.
    """
    counts, count = chosen.sum(1), int(chosen.sum())
    sums = {name: np.where(chosen, values, 0).sum(1) for name, values in scores.items()}
    means = {name: float(each.sum() / count) if count else math.nan for name, each in sums.items()}
    each = [float(score / n) if n else math.nan for score, n in zip(sums["psnr"], counts)]
    return {"psnr": means["psnr"], "ssim": means["ssim"], "n": count} | {
        name: value for name, value in means.items() if name not in ("psnr", "ssim")} | {
        "interval": {"psnr": ratio_interval(sums["psnr"], counts, episodes), **{
            f"over_{name}": ratio_interval(sums["psnr"] - sums[f"{name}_psnr"], counts, episodes)
            for name in BASELINES}},
        "by_stream": {"psnr": each, "n": counts.tolist(), "episode": episodes.tolist()}}
