"""The worker thread: the world is closed however it ends."""
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
