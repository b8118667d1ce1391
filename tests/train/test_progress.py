"""The progress line: what it counts, and that counting leaves training alone."""
import logging
import math
import re

import pytest
import torch

from tests.train.stages.test_stages import STAGES, data
from tests.train.test_trainer import ToyData, ToyStage
from worldplay.engine.cost import flop_counter
from worldplay.train import progress
from worldplay.train.optim import OptimConfig
from worldplay.train.processes import Processes
from worldplay.train.stages.draws import Draws
from worldplay.train.trainer import LoopConfig, Trainer


class Lines:
    """Metrics that are kept."""

    def __init__(self):
        self.values = []

    def write(self, stage, step, values):
        self.values.append(values)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(progress, "matmul_tflops", lambda device, dtype, repeats: 0.05)


def trainer(tmp_path, stage, source, **loop):
    config = LoopConfig(**{"batch": 4, "steps": 3, "optim": OptimConfig(lr=1e-3, warmup=0, decay=0)} | loop)
    return Trainer(stage, source, config, tmp_path, Lines(), Processes(torch.device("cpu")), torch.float32)


def test_a_line_holds_frames_operations_ceiling_time_and_memory(tmp_path, quick, caplog):
    it = trainer(tmp_path, STAGES["teacher_forcing"](), data(), micro_batch=2)
    it.status.add(it.train_step())
    since = it.status.since
    with caplog.at_level(logging.INFO, "worldplay"):
        values = it.status.flush(since + 2.0)
    assert values["samples_per_second"] == 2 and values["frames_per_second"] == 2 * 6  # sequences of 6 frames
    assert values["time/step_ms"] == 2000 and values["ceiling_gflops"] == 50 and values["memory/peak_mib"] > 0
    line = caplog.records[-1].getMessage()
    for words in ("teacher_forcing step", "student ", r"12\.0 frames/s", r"of 50 GFLOP/s \(\d+ %\)", "left "):
        assert re.search(words, line), line
    it.status.add({"loss/student": 1.0})
    assert it.status.flush(since + 4.0)["loss/student"] == 1  # of its own steps alone


def test_a_line_shows_what_a_stage_measures_beside_its_loss(tmp_path, quick, caplog):
    it = trainer(tmp_path, STAGES["causal_cd"](), data())
    it.status.add({"loss/student": 3.36e-4, "data_error": 0.0739, "grad_norm/student": 0.5})
    with caplog.at_level(logging.INFO, "worldplay"):
        it.status.flush(it.status.since + 2.0)
    assert "  student 0.000336 data_error 0.0739  " in caplog.records[-1].getMessage()


def test_operations_are_those_of_the_steps_made(tmp_path, quick):
    """A stage whose steps differ by role; 12 steps are the critic's and the student's turns, six each."""
    stage = STAGES["dmd"](critic_turns=1, guidance=1.0)
    it = trainer(tmp_path, stage, data(), batch=2)
    real, steps = [], 12
    for it.step in range(steps):
        draws = Draws(0, it.step, range(2 * it.step, 2 * it.step + 2))
        with flop_counter() as counter:
            stage.loss(stage.turn(it.step), data().batch(draws), draws, it.call)[0].backward()
        real.append(counter.get_total_flops())
        it.step += 1
        it.status.add({"loss/student": 0.0})
    values = it.status.flush(it.status.since + 1.0)
    assert values["gflops"] == pytest.approx(sum(real) / 1e9, rel=0.2)  # exit steps are drawn, and few


def test_counting_changes_no_weights_and_no_random_numbers(tmp_path, quick, monkeypatch):
    def train(folder, period):
        monkeypatch.setattr(progress.Progress, "period", period)
        torch.manual_seed(0)
        it = trainer(folder, ToyStage(), ToyData(), steps=6)
        it.validate = it.save = lambda: None
        it.run()
        assert bool(it.metrics.values) == (period == 0)
        return it.stage.models["student"].state_dict(), torch.rand(())
    (counted, drawn), (plain, drawn_plain) = train(tmp_path / "a", 0), train(tmp_path / "b", 1e9)
    assert all(torch.equal(counted[name], plain[name]) for name in plain) and drawn == drawn_plain


def test_operations_are_counted_once_for_a_role(tmp_path, quick, monkeypatch):
    counted = []
    monkeypatch.setattr(progress, "step_flops", lambda stage, role, *_: (counted.append(role), (7, 0))[1])
    it = trainer(tmp_path, ToyStage(), ToyData())
    for _ in range(3):
        it.status.add(it.train_step())
        it.status.flush(it.status.since + 1.0)
    assert counted == ["student"]


def test_a_failing_count_is_said_once_and_ends_no_run(tmp_path, quick, monkeypatch, caplog):
    def broken(*args):
        raise RuntimeError("no such operator\nand more")
    monkeypatch.setattr(progress, "step_flops", broken)
    monkeypatch.setattr(progress.Progress, "period", 0)
    it = trainer(tmp_path, ToyStage(), ToyData(), steps=3)
    it.validate = it.save = lambda: None
    with caplog.at_level(logging.INFO, "worldplay"):
        assert it.run()
    said = [record.getMessage() for record in caplog.records if "cannot be counted" in record.getMessage()]
    assert said == ["toy: operations cannot be counted, training goes on without that figure "
                    "(RuntimeError: no such operator)"]
    assert len(it.metrics.values) == 3 and all(math.isnan(line["gflops"]) for line in it.metrics.values)


def test_a_small_loss_keeps_its_digits(tmp_path, quick, caplog):
    it = trainer(tmp_path, ToyStage(), ToyData())
    it.status.turns["student"] += 1
    it.status.sums = {"loss/student": (0.0000123456, 1)}
    with caplog.at_level(logging.INFO, "worldplay"):
        it.status.flush(it.status.since + 1.0)
    assert "student 1.23e-05 " in caplog.text


def test_the_ceiling_is_measured_without_global_random_numbers(monkeypatch):
    from worldplay.eval import latency
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    assert latency.matmul_tflops(torch.device("cpu"), torch.float32, repeats=1) > 0
    assert torch.rand(()) == expected
