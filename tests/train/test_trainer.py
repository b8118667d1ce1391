"""The trainer: a run cut in pieces equals one in a single piece, and it stops loudly when numbers break."""
import itertools
import json
import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from worldplay import runtime
from worldplay.errors import WorldError
from worldplay.train import state, trainer
from worldplay.train.metrics import Metrics, contact_sheet
from worldplay.train.optim import OptimConfig, move_average
from worldplay.train.processes import Processes
from worldplay.train.stages.draws import Draws
from worldplay.train.state import load_state
from worldplay.train.trainer import LoopConfig, NotFinite, Trainer


class Line(nn.Module):
    """A block with a matrix, so that Muon has something to do, and a vector."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.hidden_weights = ["blocks.0.weight"]

    def forward(self, x):
        return self.blocks[0](x.to(self.blocks[0].weight.dtype))


class ToyStage:
    name, trained, result = "toy", {"student": 1.0}, "ema"

    def __init__(self, break_at=None, seed=0):
        torch.manual_seed(seed)
        self.models = {"student": Line(), "ema": Line().requires_grad_(False)}
        self.break_at = break_at

    def turn(self, step):
        return "student"

    def loss(self, role, batch, draws, call):
        error = call(role, Line.forward, batch["x"]).float() - 2 * batch["x"].flip(1)
        loss = error.square().mean()
        return (loss * torch.nan if draws.step == self.break_at else loss), {"error": error.abs().mean()}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], 0.9)

    def sheet(self, batch, draws, call):
        return np.zeros((4, 4, 3), np.uint8)


class ToyData:
    def batch(self, draws, held_out=False):
        return {"x": draws.normal("x", 4)}


def run(folder, steps, stage=None, dtype=torch.float32, **loop):
    config = LoopConfig(**{"batch": 4, "steps": steps,
                           "optim": OptimConfig(lr=0.05, muon_lr=0.05, warmup=2, decay=0)} | loop)
    metrics = Metrics(folder)
    trainer = Trainer(stage or ToyStage(), ToyData(), config, folder, metrics, Processes(torch.device("cpu")),
                      dtype)
    trainer.run()
    metrics.close()
    return {f"{role}.{name}": x.clone() for role, model in trainer.stage.models.items()
            for name, x in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_in_two_pieces_equals_one_bit_for_bit(tmp_path, dtype):
    whole = run(tmp_path / "whole", 12, dtype=dtype)
    run(tmp_path / "cut", 5, dtype=dtype)
    cut = run(tmp_path / "cut", 12, ToyStage(seed=1), dtype=dtype)  # whose own weights would show
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_gradients_of_micro_batches_add_up(tmp_path):
    at_once = run(tmp_path / "a", 6)
    in_parts = run(tmp_path / "b", 6, micro_batch=1)
    assert all(torch.allclose(at_once[name], in_parts[name], atol=1e-5) for name in at_once)


def test_held_out_losses_take_no_more_samples_at_once_than_training(tmp_path):
    def held_out(folder, **loop):
        stage, sizes = ToyStage(), []
        loss = stage.loss
        stage.loss = lambda role, batch, *rest: sizes.append(len(batch["x"])) or loss(role, batch, *rest)
        run(folder, 2, stage, **loop)
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        last, = [record for record in records if "held_out/loss/student" in record]
        return {name: x for name, x in last.items() if name.startswith("held_out/")}, max(sizes)
    at_once, in_parts = held_out(tmp_path / "a"), held_out(tmp_path / "b", micro_batch=1)
    assert (at_once[1], in_parts[1]) == (4, 1) and in_parts[0] == pytest.approx(at_once[0], rel=1e-5)


def test_the_toy_is_learnt(tmp_path):
    torch.manual_seed(0)
    start = Line()(torch.eye(4))
    run(tmp_path, 300)
    target = 2 * torch.eye(4).flip(1)
    stage = ToyStage()
    load_state(tmp_path / "state", {"ema": stage.models["ema"]}, {}, Processes(torch.device("cpu")))
    assert (stage.models["ema"](torch.eye(4)) - target).abs().max() < 0.2 * (start - target).abs().max()


def test_a_loss_that_is_not_finite_stops_before_the_update_and_keeps_the_last_state(tmp_path):
    run(tmp_path, 3)
    with pytest.raises(NotFinite, match="student at step 4, on rank 0; last good state: .*state"):
        run(tmp_path, 9, ToyStage(break_at=4))
    assert load_state(tmp_path / "state", {}, {}, Processes(torch.device("cpu")))["step"] == 3


def test_a_state_survives_a_stop_between_its_two_renames(tmp_path):
    run(tmp_path, 3)
    (tmp_path / "state").rename(tmp_path / "state.old")
    assert load_state(tmp_path / "state", {}, {}, Processes(torch.device("cpu")))["step"] == 3
    assert load_state(tmp_path / "nothing", {}, {}, Processes(torch.device("cpu"))) is None


def test_a_damaged_state_and_one_of_another_network_are_refused_in_one_line(tmp_path):
    run(tmp_path, 3)
    stage = ToyStage()
    stage.models["student"].blocks[0] = nn.Linear(4, 5)
    with pytest.raises(WorldError, match="state cannot be read .*another --out"):
        run(tmp_path, 5, stage)
    for file in (tmp_path / "state").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(WorldError, match="state cannot be read .*another --out"):
        run(tmp_path, 5)
    for damage in (b"", bytes(100), b"garbage"):
        (tmp_path / "state" / ".metadata").write_bytes(damage)
        with pytest.raises(WorldError, match="state cannot be read .*another --out"):
            run(tmp_path, 5)


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    run(tmp_path, 3)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(state.dcp.FileSystemWriter, "write_data", full)
    with pytest.raises(OSError, match="state.tmp cannot be written .*No space left.*same command"):
        run(tmp_path, 5)
    assert load_state(tmp_path / "state", {}, {}, Processes(torch.device("cpu")))["step"] == 3


def test_draws_depend_on_the_sample_and_nothing_else():
    whole, part = Draws(1, 7, range(4)), Draws(1, 7, [2])
    assert torch.equal(whole.normal("noise", 3)[2:3], part.normal("noise", 3))
    assert whole.shared_integer("exit", 1000) == part.shared_integer("exit", 1000)
    others = [Draws(2, 7, [2]), Draws(1, 8, [2]), Draws(1, 7, [3])]
    assert all(not torch.equal(part.normal("noise", 3), other.normal("noise", 3)) for other in others)
    assert not torch.equal(part.normal("noise", 3), part.normal("other", 3))
    picks = Draws(0, 0, range(2000)).integers("pick", 5)
    assert picks.min() == 0 and picks.max() == 4


def test_metrics_are_json_lines_and_not_finite_is_null(tmp_path):
    metrics = Metrics(tmp_path)
    metrics.write("toy", 3, {"loss/student": 0.5, "bad": float("nan")})
    metrics.picture("toy", 3, contact_sheet([np.zeros((2, 4, 6, 3), np.uint8)]))
    metrics.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line["loss/student"] == 0.5 and line["bad"] is None and line["step"] == 3
    assert (tmp_path / "sheets" / "toy_000003.png").exists()


def test_a_table_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    run(tmp_path, 3)
    (tmp_path / "state" / ".metadata").write_bytes(pickle.dumps(Mischief(tmp_path / "touched")))
    with pytest.raises(WorldError, match="state cannot be read .*no table of a training state"):
        run(tmp_path, 5)
    assert not (tmp_path / "touched").exists()


class Mischief:
    """What a pickle of it calls when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.mark.parametrize("cut", [None, 30, 90])
def test_a_stage_of_seconds_is_a_stage_of_steps_once_its_pace_is_measured(tmp_path, monkeypatch, cut):
    """By a clock of a second a step; a run that is killed after the plan goes on as if it was not."""
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    optim = OptimConfig(lr=0.05, warmup=2, decay=0.5)
    whole = run(tmp_path / "whole", None, seconds=200.0, optim=optim)
    planned = load_state(tmp_path / "whole" / "state", {}, {}, Processes(torch.device("cpu")))
    assert planned["step"] == planned["planned"] < 200
    if cut:
        stage, steps = ToyStage(), itertools.count()
        after_step = stage.after_step

        def killed(step):
            if next(steps) == cut:
                raise KeyboardInterrupt
            after_step(step)
        stage.after_step = killed
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", None, stage, seconds=200.0, optim=optim)
        again = run(tmp_path / "cut", None, ToyStage(seed=1), seconds=200.0, optim=optim)
        assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_warm_up_changes_nothing(tmp_path):
    def trained(folder, warms_up):
        metrics = Metrics(folder)
        it = Trainer(ToyStage(), ToyData(), LoopConfig(batch=4, steps=4), folder, metrics,
                     Processes(torch.device("cpu")), torch.float32)
        if warms_up:
            it.warm_up()
        it.run()
        metrics.close()
        return it.stage.models["ema"].state_dict()
    plain, warm = trained(tmp_path / "plain", False), trained(tmp_path / "warm", True)
    assert all(torch.equal(plain[name], warm[name]) for name in plain)


def test_a_stage_whose_time_is_not_known_yet_has_made_no_progress(tmp_path):
    """As before its blocks are compiled, which comes before its share of the budget is fixed."""
    it = Trainer(ToyStage(), ToyData(), LoopConfig(batch=4), tmp_path, None, Processes(torch.device("cpu")),
                 torch.float32)
    assert it.progress == 0


def test_compiled_code_is_kept_in_the_users_cache_unless_the_user_says_where(tmp_path, monkeypatch):
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    for before, after in ((None, str(tmp_path)), (default_cache_dir(), str(tmp_path)),
                          ("/elsewhere", "/elsewhere")):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before or "")
        if before is None:
            monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        runtime.keep_compiled_code(tmp_path)
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == after
