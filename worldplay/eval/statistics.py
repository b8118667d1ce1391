"""Sharpness, brightness and colours of frames, and how near they are to real ones; without torch."""
import numpy as np

PSNR_CAP = 60.0  # dB of equal frames, so that means stay finite
_BINS = 32
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def psnr(a, b):
    """Peak signal-to-noise ratio of each pair of frames.

    a, b     uint8 or float [... H W 3], levels 0 to 255
    Returns  float64 [...], dB; equal frames count PSNR_CAP
    """
    difference = np.asarray(a, np.float32) - np.asarray(b, np.float32)
    error = np.mean(difference ** 2, axis=(-3, -2, -1), dtype=np.float64)
    floor = 255 ** 2 / 10 ** (PSNR_CAP / 10)
    return 10 * np.log10(255 ** 2 / np.maximum(error, floor))


def luma(frames):
    """uint8 [... 3] RGB -> float32 [...], levels 0 to 255 (ITU-R BT.601)."""
    return np.asarray(frames, np.float32) @ np.array(_LUMA, np.float32)


def motion(frames):
    """float32 [s n - 1]: mean change of the luma between neighbouring frames of uint8 [s n H W 3]."""
    return np.stack([np.abs(np.diff(luma(stream), axis=0)).mean((1, 2)) for stream in frames])


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


def edges(frame):
    """Mean square of the steps of the luma between neighbouring pixels of a frame, uint8 [H W 3].

    Great steps decide it and noise of a level or two does not, which on a plain ground is most of what the
    sharpness of `statistics` sees: a blot where an object was has none of them.
    """
    grey = luma(frame)
    return float(np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean())
