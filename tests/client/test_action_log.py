"""The log of a branch's actions: what goes in comes out, in few bytes."""
import tracemalloc

from worldplay.action import Action
from worldplay.client.action_log import ActionLog


def test_actions_come_out_as_they_went_in():
    actions = [Action(), Action({"w", "a"}, (0.1 + 0.2, -1e-9)), Action({"a", "w"}), Action({"space"})]
    log = ActionLog()
    for action in actions:
        log.append(action)
    assert list(log) == actions and len(log) == 4 and log[1] == actions[1]


def test_an_hour_takes_little_memory():
    log = ActionLog()
    tracemalloc.start()
    for i in range(63_000):
        log.append(Action(frozenset("wasd"[:i % 5]), (i / 7, -i / 3)))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 2_000_000
