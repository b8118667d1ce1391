"""The packed list of actions: it reads as a list of the same actions, in little memory."""
import tracemalloc

import numpy as np
import pytest

from worldplay.action import KEYS, Action
from worldplay.data.action_log import ActionLog


def random_actions(num):
    rng = np.random.default_rng(0)
    return [Action(rng.choice(KEYS, rng.integers(0, 5)), rng.normal(0, 9, 2)) for _ in range(num)]


def test_it_reads_as_the_list_of_its_actions():
    actions = [Action(KEYS, (-0.1, 1e9)), *random_actions(50)]
    packed = ActionLog(actions)
    assert list(packed) == actions and len(packed) == 51
    assert packed[-1] == actions[-1] and packed[7] == actions[7]
    for part in (slice(None), slice(3, 9), slice(-5, None), slice(None, None, -2)):
        assert packed[part] == actions[part]
    for index in (51, -52):
        with pytest.raises(IndexError):
            packed[index]
    with pytest.raises(KeyError):
        packed.append(Action({"no key"}))
    assert len(ActionLog()) == 0


def test_reading_it_through_builds_no_set_of_keys_twice():
    packed = ActionLog([Action({"w", "a"}, (i, 0)) for i in range(100)])
    assert len({id(action.keys) for action in packed}) == 1  # F9 late in a long sitting must not be felt


def test_an_action_takes_24_bytes():
    actions = random_actions(100)
    tracemalloc.start()
    packed = ActionLog()
    for i in range(50_000):
        packed.append(actions[i % 100])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 50_000 * 32, f"{used / 50_000} bytes an action"
