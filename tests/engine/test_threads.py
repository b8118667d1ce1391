"""Threads of torch: play adapts their number, other work keeps it, a clip records it and replays by it."""
import threading

import numpy as np
import pytest
import torch

from tests.client.tape import Tape
from tests.engine.test_dream import folder  # noqa: F401
from worldplay import cores, runtime
from worldplay.action import Action
from worldplay.client.recorder import frame_record
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.engine.loading import load_world
from worldplay.engine.threads import Threads
from worldplay.eval.replay import run_replay


@pytest.fixture(autouse=True)
def _number(monkeypatch):
    """Two threads at the beginning, which the user has not chosen; afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(cores, "THREADS_ARE_GIVEN", False)
    yield
    torch.set_num_threads(before)


class Choice:
    """A choice that the test makes."""
    made, others = [], 0.0

    def __init__(self, most):
        self.made.append(self)
        self.number = most

    def look(self):
        return self.number


@pytest.fixture
def choice(monkeypatch):
    monkeypatch.setattr(cores, "ThreadChoice", Choice)
    monkeypatch.setattr(Choice, "made", [])
    return Choice.made


def test_play_takes_the_number_that_is_chosen(choice):
    info = {}
    threads = Threads(torch.device("cpu"), info)
    assert info == {"threads": 2, "max_threads": 2}
    threads.adapt()
    choice[0].number = 1
    threads.update()
    assert torch.get_num_threads() == info["threads"] == 1 and info["max_threads"] == 2
    choice[0].number = 2
    threads.update()
    assert torch.get_num_threads() == info["threads"] == 2


def test_the_number_is_that_of_the_thread_that_computes(choice):
    info, seen = {}, []
    threads = Threads(torch.device("cpu"), info)
    threads.adapt()
    choice[0].number = 1

    def compute():
        threads.update()
        seen.append(torch.get_num_threads())
    for _ in range(2):  # the second one finds the number in info, but not in its own torch
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
    assert seen == [1, 1]


def test_without_adapting_nothing_is_changed(choice):
    threads = Threads(torch.device("cpu"), {})
    threads.update()
    assert torch.get_num_threads() == 2 and not choice


def test_a_number_that_the_user_has_set_stays(choice, monkeypatch):
    monkeypatch.setattr(cores, "THREADS_ARE_GIVEN", True)
    Threads(torch.device("cpu"), {}).adapt()
    assert not choice


def test_a_gpu_has_no_threads_of_this_kind(choice):
    info = {}
    threads = Threads(torch.device("meta"), info)
    threads.adapt()
    threads.fix(1)
    threads.update()
    assert not choice and info == {} and torch.get_num_threads() == 2


@pytest.mark.parametrize("begin", [1, 5])  # before the change, and after it
def test_a_clip_knows_the_threads_of_every_step_and_replays_by_them(begin, folder, choice,  # noqa: F811
                                                                    tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.float32, "test"))
    world, request = load_world(folder, device="cpu"), Reset("a-first")
    world.threads.adapt()
    recorder = Tape(world)
    recorder.begin(request, world.reset("a-first"))
    for step in range(1, 8):
        choice[0].number = 1 if step in (3, 4) else 2
        if step == begin:
            recorder.start(tmp_path / "clip")
        recorder.step(Action({"w"}))
        for frame in world.step(Action({"w"})):
            recorder.frame(frame, frame_record(world, 0.0, polled=0.0, ready=0.0))
    recorder.close()
    clip = read_clip(tmp_path / "clip")
    assert clip.threads == {0: 2, 3: 1, 5: 2}

    used, update = [], Threads.update

    def updated(self):
        update(self)
        used.append(torch.get_num_threads())
    monkeypatch.setattr(Threads, "update", updated)
    torch.set_num_threads(1)
    assert run_replay(tmp_path / "clip", world=folder, device="cpu", out=tmp_path / "again.mp4")["is_equal"]
    assert used == [2, 2, 2, 1, 1, 2, 2, 2], "the reset, then seven steps"
    assert read_clip(tmp_path / "again").threads == clip.threads


def test_a_step_and_a_reset_take_the_number_over(folder, choice):  # noqa: F811
    world = load_world(folder, device="cpu")
    world.threads.fix(1)
    frames = world.reset("a-first", seed=1)
    assert torch.get_num_threads() == 1
    world.threads.fix(2)
    made = [frame for _ in range(3) for frame in world.step(Action({"w"}))]
    assert torch.get_num_threads() == world.info["threads"] == 2
    assert np.stack(made).shape[1:] == frames.shape[1:]
