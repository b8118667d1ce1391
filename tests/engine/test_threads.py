"""Threads of torch: play adapts their number, other work chooses it at its start, a clip records it."""
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train_world
from tests.client.tape import Tape
from tests.engine.test_dream import folder  # noqa: F401
from tests.train.test_trainer import ToyStage
from tests.train.test_trainer import run as toy_run
from worldplay import cores, runtime
from worldplay.action import Action
from worldplay.cli import play
from worldplay.cli.measure_commands import Eval
from worldplay.client.recorder import frame_record
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.engine import threads as engine_threads
from worldplay.engine.loading import load_world
from worldplay.engine.threads import Threads, choose_threads
from worldplay.eval import report
from worldplay.eval.replay import run_replay
from worldplay.train import trainer


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


# Work that has to be repeatable


@pytest.fixture
def others(monkeypatch):
    """What other programs use of two cores, a list whose last value stays: here one core."""
    used = [1.0]
    monkeypatch.setattr(cores, "_affinity", lambda: {0, 1})
    monkeypatch.setattr(engine_threads, "MOST", 2)
    monkeypatch.setattr(cores.OtherPrograms, "cores", lambda self: used.pop(0) if len(used) > 1 else used[0])
    return used


def test_other_work_takes_the_cores_that_are_left(others, caplog):
    with caplog.at_level("INFO", "worldplay"):
        assert choose_threads(torch.device("cpu")) == torch.get_num_threads() == 1
        assert choose_threads(torch.device("cpu")) == 1
    assert caplog.messages == ["1 of 2 threads from here on: other programs use 1.0 cores"]
    others[0] = 0.2
    assert choose_threads(torch.device("cpu")) == torch.get_num_threads() == 2


def test_other_work_leaves_a_number_that_the_user_has_set_and_the_threads_beside_a_gpu(others, monkeypatch):
    assert choose_threads(torch.device("meta")) == 2
    monkeypatch.setattr(cores, "THREADS_ARE_GIVEN", True)
    assert choose_threads(torch.device("cpu")) == torch.get_num_threads() == 2


def test_a_script_chooses_at_its_start_and_its_clip_says_so(others, folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    others[:] = [1.0, 0.0]  # quiet from then on
    assert play.main([str(folder), "--headless", "--script", "w*3", "--out", str(tmp_path / "clip.mp4"),
                      "--device", "cpu"]) == 0
    assert read_clip(tmp_path / "clip").threads == {0: 1}


def test_eval_chooses_at_its_start_and_its_report_says_so(others, folder, tmp_path, monkeypatch):  # noqa: F811
    seen = []
    monkeypatch.setattr(report, "run_eval", lambda *_, **__: seen.append(torch.get_num_threads()) or {})
    Eval(world=str(folder), device="cpu", json=True).run()
    assert seen == [1] and "threads" in report._INFO


def test_training_chooses_at_its_start(others, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert train_world.main(["own-data", "--steps", "1", "--data", str(tmp_path / "none"), "--device", "cpu",
                             "--out", str(tmp_path / "run")]) != 0
    assert torch.get_num_threads() == 1


def test_training_changes_the_number_at_saves_alone(others, tmp_path):
    others[:] = [1.0, 1.0, 0.0]
    stage, seen = ToyStage(), []
    loss = stage.loss
    stage.loss = lambda *args: seen.append(torch.get_num_threads()) or loss(*args)
    clock = iter(range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "time", SimpleNamespace(monotonic=clock.__next__))
        toy_run(tmp_path, 12, stage, save_every=2.5)  # three steps by a clock of a second a step
    training = seen[:12]
    assert training == [2, 2, 2, 1, 1, 1, 1, 1, 1, 2, 2, 2]


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
