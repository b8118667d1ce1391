"""The worker thread: the world is closed however it ends."""
import queue
import threading

import pytest

from tests.client.fake_worlds import FakeWorld
from worldplay.action import Action
from worldplay.client import worker


class Ending(FakeWorld):
    """A world that ends its thread in its first step, as SystemExit does."""
    is_closed = False

    def step(self, action):
        raise SystemExit
        yield

    def close(self):
        self.is_closed = True


@pytest.mark.parametrize("request_", [worker.Step(Action()), None])
def test_the_world_is_closed_however_the_thread_ends(request_):
    world = Ending()
    thread = worker.Worker(lambda: world)
    assert isinstance(thread.replies.get(timeout=60), worker.Opened)
    thread.ask(request_)
    thread._thread.join(60)
    assert world.is_closed
    if request_:
        assert isinstance(thread.replies.get(timeout=60).error, SystemExit)


def test_a_wait_for_a_reply_ends_however_short_it_is():
    """One whose time was over before it began never did, and the window stood still: 1 in some thousands."""
    replies, num_ended = worker.Worker(FakeWorld).replies, []
    replies.get(timeout=60)

    def wait():
        for _ in range(8000):
            replies.put(None)  # as after a reply that was there already
            replies.get()
            try:
                replies.get(timeout=1e-6)
            except queue.Empty:
                num_ended.append(1)
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(120)
    assert len(num_ended) == 8000
