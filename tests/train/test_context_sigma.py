"""Which noise level of the past is chosen."""
import pytest

from worldplay.train.context_sigma import least_drift


@pytest.mark.parametrize("scores, chosen", [
    ({0.0: 0.4, 0.1: 0.5, 0.2: 0.3}, 0.2), ({0.0: 1.2441, 0.1: 1.2443, 0.2: 1.2440}, 0.1),
    ({0.05: 0.7, 0.3: 0.7, 0.2: 0.9}, 0.05)])
def test_the_least_drift_counts_and_a_tie_keeps_the_level_of_the_recipe(scores, chosen):
    assert least_drift(scores, default=0.1) == chosen
