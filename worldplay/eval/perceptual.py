"""How alike free play and real play look to networks that the user has put on the disk: LPIPS and FVD."""
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from worldplay.eval.bootstrap import ratio_interval
from worldplay.eval.fidelity import horizons

I3D = "i3d_torchscript.pt"
CLIP = 16  # frames of a clip
FEWEST = 48  # clips of which FVD is said
_SMALLEST = 31  # pixels of a side that AlexNet's strides leave something of
# what torch says of a damaged file
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError)


class Missing(Exception):
    """A figure cannot be made here; str() says which one, and what it needs. Nothing is ever downloaded."""


def lpips(material, player):
    """{lpips: {frames of free play: distance at that frame}} and, at the same frames, lpips_interval ([low,
    high]) and lpips_repeat (the last real frame of the context again); 0 is equal.

        Raises Missing without torchmetrics, torchvision or the weights of its AlexNet.

    Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
    arXiv:1801.03924.
    """
    network = _once(material, "lpips", _open_lpips)
    streams, dreams = material.streams[player], material.dreams(player)
    real = streams.frames[:len(dreams)]
    if min(real.shape[2:4]) < _SMALLEST:
        raise Missing(f"lpips, whose network needs frames of {_SMALLEST} x {_SMALLEST} pixels or more")

    def distance(others, i):
        with torch.inference_mode():
            return np.array([float(network(_picture(a), _picture(b))) for a, b in zip(others, real[:, i])])
    scores = {number: distance(dreams[:, i], i) for number, i in horizons(streams).items()}
    return {"lpips": {number: float(score.mean()) for number, score in scores.items()},
            "lpips_interval": {number: ratio_interval(score, np.ones(len(score)),
                                                      streams.episodes[:len(score)])
                               for number, score in scores.items()},
            "lpips_repeat": {number: float(distance(real[:, streams.context - 1], i).mean())
                             for number, i in horizons(streams).items()}}


def fvd(material, player):
    """{fvd: {dream, n, halves: {dream, real, n}}}: Frechet distance of free play to the real frames of the
    same streams, over all `n` clips of CLIP frames of each that do not overlap.

    halves  the same between play of different episodes, `n` clips of each: real play of one half of them
            against free play of the other (`dream`, both ways round) and against real play of the other
            (`real`, the floor); not there for a single episode

    Of few clips the distance is too large, the more so the fewer: their covariance is mostly chance.

        Raises Missing without I3D, and for fewer than FEWEST clips.

    Source: Unterthiner et al., Towards Accurate Generative Models of Video, arXiv:1812.01717.
    """
    network = _once(material, "fvd", _open_i3d)
    streams, dreams = material.streams[player], material.dreams(player)
    real, made = (_clips(frames[:, streams.context:]) for frames in (streams.frames[:len(dreams)], dreams))
    per_stream = len(real) // len(dreams)
    if len(real) < FEWEST:
        raise Missing(f"fvd, of fewer than {FEWEST} clips of {CLIP} frames, here {len(real)}, it says "
                      "nothing")
    try:
        real, made = _features(network, real), _features(network, made)
    except RuntimeError as problem:  # TorchScript's only one
        raise Missing(f"fvd, whose network fails ({_shown(checkpoints() / I3D)}): "
                      f"{_last_line(problem)}") from None
    figures = {"dream": frechet(real, made), "n": len(real)}
    _, episodes = np.unique(streams.episodes[:len(dreams)], return_inverse=True)
    halves = [np.flatnonzero(np.repeat(episodes, per_stream) % 2 == half) for half in (0, 1)]
    if n := min(map(len, halves)):
        a, b = (half[:n] for half in halves)
        figures["halves"] = {"dream": (frechet(real[a], made[b]) + frechet(real[b], made[a])) / 2,
                             "real": frechet(real[a], real[b]), "n": n}
    return {"fvd": figures}


def frechet(a, b):
    """Squared Frechet distance of two Gaussians, by samples of them: float [n d] and [m d].

    |mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) with covariances A = X'X and B = Y'Y, X and Y being the
    samples less their mean, over (n - 1)^(1/2). What of A B is not 0 among its eigenvalues are those of
    (X Y')(X Y')', so the trace of its root is the sum of the singular values of X Y': exact, also of fewer
    samples than dimensions.

    Source: Dowson and Landau, The Frechet distance between multivariate normal distributions, 1982.
    """
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    x, y = ((each - each.mean(0)) / max(1, len(each) - 1) ** 0.5 for each in (a, b))
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.square(x).sum() + np.square(y).sum() - 2 * shared)


def checkpoints():
    """The folder of torch's hub in which weights are looked for (TORCH_HOME moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def _once(material, name, opened):
    if name not in material.kept:
        material.kept[name] = opened()
    return material.kept[name]


def _open_lpips():
    """torchmetrics' LPIPS by AlexNet: function of two float [1 3 H W] of 0 to 1."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights
    except (ImportError, RuntimeError) as problem:  # RuntimeError: a torchvision made for another torch
        raise Missing("lpips, which needs torchmetrics and torchvision (pip install torchmetrics torchvision"
                      f"): {_first_sentence(problem)}") from None
    weights = checkpoints() / Path(AlexNet_Weights.DEFAULT.url).name
    _check(weights, "lpips", "torchvision's AlexNet")
    try:
        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    except _UNREADABLE as problem:
        raise Missing(f"lpips, whose weights {_shown(weights)} cannot be read: "
                      f"{_first_sentence(problem)}") from None


def _open_i3d():
    """I3D of TorchScript, as the field measures FVD with it."""
    weights = checkpoints() / I3D
    _check(weights, "fvd", "I3D as TorchScript")
    try:
        return torch.jit.load(weights, map_location="cpu").eval()
    except _UNREADABLE as problem:
        raise Missing(f"fvd, whose network {_shown(weights)} cannot be read: "
                      f"{_first_sentence(problem)}") from None


def _check(weights, figure, network):
    if not weights.is_file():
        raise Missing(f"{figure}, which needs {weights.name} ({network}) in {_shown(weights.parent)}, where "
                      "there is none")


def _shown(path):
    """The path with the home folder as ~: a report is sent to others."""
    home = Path(os.path.expanduser("~"))
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def _first_sentence(problem):
    return (str(problem) or type(problem).__name__).splitlines()[0].partition(". ")[0].rstrip(".")


def _last_line(problem):
    """TorchScript's errors end with what happened, after where."""
    return str(problem).strip().splitlines()[-1]


def _picture(frame):
    """float32 [1 3 H W], 0 to 1, of uint8 [H W 3]."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(frame)).float() / 255, "H W c -> 1 c H W")


def _clips(frames):
    """uint8 [s * k, CLIP, H, W, 3]: the first k whole clips of each stream, of uint8 [s n H W 3]."""
    whole = frames.shape[1] - frames.shape[1] % CLIP
    return rearrange(frames[:, :whole], "s (k t) H W c -> (s k) t H W c", t=CLIP)


def _features(network, clips):
    """float64 [n d] of uint8 [n t H W 3], one clip at a time: a batch of them fills gigabytes."""
    with torch.inference_mode():
        return np.concatenate([network(
            rearrange(torch.from_numpy(clip).float(), "t H W c -> 1 c t H W"),
            rescale=True, resize=True, return_features=True).double().numpy() for clip in clips])
