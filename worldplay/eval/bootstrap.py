"""Bootstrap over streams: where a figure might lie had other streams been drawn."""
import math
from statistics import NormalDist

import numpy as np

RESAMPLES = 1_000
LEVEL = 95.0  # per cent


def resampled(num_streams, seed=0):
    """int64 [RESAMPLES num_streams]: as many streams, drawn with replacement."""
    return np.random.default_rng(seed).integers(0, num_streams, (RESAMPLES, num_streams))


def percentiles(num_streams, level=LEVEL):
    """(low, high), per cent: the percentiles of resampled figures between which an interval of `level` lies.

    Resampling few streams gives intervals that are too narrow, by sqrt((n - 1) / n) and by what Student's t
    is wider than the normal distribution; the percentiles are moved outwards by as much.

    Source: Hesterberg, What Teachers Should Know about the Bootstrap, arXiv:1411.5279, "expanded percentile";
    the quantile of t by its expansion in 1/(n - 1), which for n = 2 is too small: there the interval
    becomes the range of the resampled figures.
    """
    normal, free = NormalDist(), num_streams - 1
    z = normal.inv_cdf(0.5 + level / 200)
    t = z + (z ** 3 + z) / (4 * free) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * free ** 2) + (
        3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * free ** 3)
    outside = 100 * normal.cdf(-t * math.sqrt(num_streams / free))
    return outside, 100 - outside


def interval(value, num_streams, level=LEVEL, seed=0):
    """(figure, low, high): a figure over all streams and its interval by resampling the streams.

    value  function of an int array of streams -> float; a difference of two worlds' figures is one too,
           paired
    """
    draws = [value(picks) for picks in resampled(num_streams, seed)]
    return (float(value(np.arange(num_streams))),
            *map(float, np.percentile(draws, percentiles(num_streams, level))))


def ratio_interval(sums, counts, level=LEVEL, seed=0):
    """[low, high] of sum(sums) / sum(counts) over streams, by resampling them; a mean over frames is one.

    sums, counts  float [s], of each stream
    Returns       None where fewer than two streams count anything: nothing is known of others then
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    if np.count_nonzero(counts) < 2:
        return None
    picks = resampled(len(counts), seed)
    above, below = sums[picks].sum(1), counts[picks].sum(1)
    draws = above[below > 0] / below[below > 0]
    return np.percentile(draws, percentiles(np.count_nonzero(counts), level)).tolist()
