"""Statistics of the fields of a data set, in the layout of LeRobot's meta/stats.json."""
import numpy as np

MAX_FRAMES = 32  # of an episode whose colours are counted, spread over it


def field_stats(values):
    """{min, max, mean, std, count} of an array [n] or [n c], as lists of length c."""
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    return _stats(values, len(values), lambda numbers: numbers.tolist())


def frame_stats(frames):
    """The same of the colours, 0 to 1, of frames, uint8 [n H W 3]; each figure is a list [3 1 1]."""
    picks = np.unique(np.linspace(0, len(frames) - 1, MAX_FRAMES).astype(int))
    pixels = np.asarray(frames[picks], np.float64).reshape(-1, 3) / 255
    return _stats(pixels, len(picks), lambda numbers: numbers.reshape(3, 1, 1).tolist())


def merge_stats(parts):
    """The stats of a whole from those of its parts, by the law of total variance."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    least, greatest, means, deviations = (np.array([part[name] for part in parts], np.float64)
                                          for name in ("min", "max", "mean", "std"))
    weights = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    mean = (weights * means).sum(0)
    variance = (weights * (deviations ** 2 + (means - mean) ** 2)).sum(0)
    return {"min": least.min(0).tolist(), "max": greatest.max(0).tolist(), "mean": mean.tolist(),
            "std": np.sqrt(variance).tolist(), "count": [int(counts.sum())]}


def _stats(values, count, shaped):
    return {**{name: shaped(getattr(values, name)(axis=0)) for name in ("min", "max", "mean", "std")},
            "count": [count]}
