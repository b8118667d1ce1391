"""Intervals over streams hold the truth as often as they say, also of few streams."""
import numpy as np
import pytest

from worldplay.eval.bootstrap import interval, ratio_interval, student


@pytest.mark.parametrize("num", [4, 6, 12, 52])
@pytest.mark.parametrize("level", [95, 98.75])
def test_an_interval_holds_the_true_mean_as_often_as_it_says(num, level):
    cases, missed = 300, 0
    for values in np.random.default_rng(num).normal(3, 2, (cases, num)):
        low, high = ratio_interval(values, np.ones(num), np.arange(num), level)
        missed += not low <= 3 <= high
    expected = cases * (1 - level / 100)
    assert abs(missed - expected) <= 3 * np.sqrt(expected) + 1


@pytest.mark.parametrize("episodes", [np.arange(8), np.array([4, 1, 4, 1, 1, 0, 9, 0])])
def test_both_ways_of_asking_give_the_same(episodes):
    sums, counts = np.arange(8.0) ** 2, np.arange(8.0) % 3 + 1
    value, low, high = interval(lambda picks: sums[picks].sum() / counts[picks].sum(), episodes)
    assert [low, high] == pytest.approx(ratio_interval(sums, counts, episodes)) and low < value < high


def test_a_stream_that_counts_nothing_changes_nothing_but_the_draws():
    assert ratio_interval([5.0, 0.0], [1, 0], [0, 1]) is None and ratio_interval([5.0], [1], [0]) is None
    assert ratio_interval([5.0, 5.0, 0.0], [1, 1, 0], [0, 1, 2]) == pytest.approx([5, 5])


def test_streams_cut_from_one_episode_say_no_more_than_the_episode():
    sums, once = np.array([1.0, 4.0, 6.0]), [0, 1, 2]
    wide = ratio_interval(sums, np.ones(3), once)
    assert ratio_interval(sums.repeat(10), np.ones(30), np.repeat(once, 10)) == pytest.approx(wide)
    assert ratio_interval(np.arange(9.0), np.ones(9), [7] * 9) is None, "one episode"


@pytest.mark.parametrize("level, free, quantile", [  # of printed tables
    (95, 1, 12.706), (95, 2, 4.303), (95, 3, 3.182), (95, 5, 2.571), (95, 11, 2.201), (99, 5, 4.032),
    (99, 30, 2.750)])
def test_quantiles_of_student(level, free, quantile):
    assert student(level, free) == pytest.approx(quantile, rel=0.02)
