"""Times of a session: percentiles, rates, and what is kept of them."""
import json

import pytest

from worldplay.client.timing import Timing, summary_ms


def test_percentiles_and_rates():
    assert summary_ms([]) is None
    assert summary_ms([0.001 * i for i in range(101)], (50, 95)) == {"p50": 50.0, "p95": 95.0, "max": 100.0}
    timing = Timing()
    for i in range(11):
        timing.flipped(i - 0.03 if i % 2 else None, float(i))
    assert timing.fps(10.0, over=5.5) == pytest.approx(1.0) and len(timing.key_flip) == 5
    assert json.dumps(timing.to_json())
