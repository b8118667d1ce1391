"""Intervals over streams hold the truth as often as they say, also of few streams."""
import numpy as np
import pytest

from worldplay.eval.bootstrap import interval, percentiles, ratio_interval


@pytest.mark.parametrize("num", [6, 12, 52])
def test_an_interval_holds_the_true_mean_in_95_of_100_cases(num):
    rng = np.random.default_rng(num)
    held = 0
    for values in rng.normal(3, 2, (400, num)):
        low, high = ratio_interval(values, np.ones(num))
        held += low <= 3 <= high
    assert 0.91 <= held / 400 <= 0.99  # 0.95 with a standard error of 0.011; of 6 plain percentiles hold 0.86


def test_both_ways_of_asking_give_the_same():
    sums, counts = np.arange(8.0) ** 2, np.arange(8.0) % 3 + 1
    value, low, high = interval(lambda picks: sums[picks].sum() / counts[picks].sum(), 8)
    assert [low, high] == pytest.approx(ratio_interval(sums, counts)) and low < value < high


def test_a_stream_that_counts_nothing_changes_nothing_but_the_draws():
    assert ratio_interval([5.0, 0.0], [1, 0]) is None and ratio_interval([5.0], [1]) is None
    assert ratio_interval([5.0, 5.0, 0.0], [1, 1, 0]) == [5, 5]


def test_fewer_streams_and_a_higher_level_widen_the_interval():
    assert percentiles(1000)[0] == pytest.approx(2.5, abs=0.05)
    assert percentiles(6)[0] < percentiles(12)[0] < 2.5
    assert percentiles(12, level=99)[0] < percentiles(12)[0]
