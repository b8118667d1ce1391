"""Two processes train as one does, over torchrun and gloo: equal losses, also after a kill, on any number."""
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import ROOT
from worldplay.log import leave
from worldplay.train.optim import OptimConfig
from worldplay.train.processes import Processes, full_state
from worldplay.train.stages.context import ContextConfig
from worldplay.train.stages.dmd import DMDConfig, DMDStage
from worldplay.train.trainer import LoopConfig, NotFinite, Trainer
from worldplay.worlds.weights import load_weights, save_weights

sys.path.insert(0, str(ROOT))
from tests.train.stages.test_stages import MODEL, STAGES, WithTrajectories, decode, spread  # noqa: E402

STEPS = 5
TEXT = {"text_dim": 6, "text_len": 4}


def dmd_of_text(seed):
    """With a prompt, chunks, a sink, and a past that is trained too."""
    context = ContextConfig(window=4, sink=2, frames_per_chunk=2)
    config = DMDConfig(critic_turns=1, guidance=2.0, num_real=2, trains_past=True)
    student, teacher = (spread(seed + i, **TEXT).state_dict() for i in (1, 2))
    return DMDStage(config, replace(MODEL, **TEXT), context, student, teacher, decode, 2)


class WithText(WithTrajectories):
    def batch(self, draws, held_out=False):
        return super().batch(draws, held_out) | {"text": draws.normal("text", 3, TEXT["text_dim"])}


class Cut(Exception):
    """Ends a run in this process as a kill ends one: without a last save."""


def work(processes, folder, stage_name, dtype="float32", kill_at=None, break_at=None, muon_lr=None, **loop):
    """Train a stage of tests/train/stages/test_stages.py; the first process writes the loss of every step and
    the weights at the end."""
    stage, folder = (STAGES | {"dmd_of_text": dmd_of_text})[stage_name](0), Path(folder)
    data = WithText() if stage_name == "dmd_of_text" else WithTrajectories()
    loop = {"batch": 4, "steps": STEPS, "optim": OptimConfig(lr=1e-3, muon_lr=muon_lr, decay=0)} | loop
    plain_loss = stage.loss
    if break_at is not None:
        def loss(role, batch, draws, call):
            loss, logs = plain_loss(role, batch, draws, call)
            return (loss * float("nan") if draws.step == break_at and processes.rank == 1 else loss), logs
        stage.loss = loss
    folder.mkdir(exist_ok=True)
    trainer = Trainer(stage, data, LoopConfig(**loop), folder, None, processes, getattr(torch, dtype))
    try:
        while trainer.progress < 1:
            if trainer.step == kill_at:
                if processes.size == 1:
                    raise Cut
                if processes.rank == processes.size - 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            logs = trainer.train_step()
            if processes.is_first:
                with open(folder / "losses.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": trainer.step, **logs}) + "\n")
            if trainer.step == 3:
                trainer.save()
    except NotFinite as error:
        (folder / f"error-{processes.rank}").write_text(str(error))
        return
    weights = full_state(stage.models[stage.result])
    if processes.is_first:
        save_weights(folder / "weights.safetensors", weights)


def on_two(runs, status=0):
    """`work` on two processes of torchrun: {folder: arguments}, one after another."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # this checkout
    runs = [[str(folder), *arguments] for folder, arguments in runs.items()]
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                           "2", __file__, json.dumps(runs)],
                          text=True, capture_output=True, env=env, timeout=1200)
    assert (done.returncode == 0) == (status == 0), done.stderr


def on_one(folder, stage, **options):
    """`work` in this process: {step: logs} and the weights."""
    work(Processes(torch.device("cpu")), folder, stage, **options)
    return result(folder)


def result(folder):
    """{step: logs} of a run and its weights."""
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines}, load_weights(folder / "weights.safetensors")


KILLED = {"muon_lr": 0.01}
CASES = {  # name: stage and options of a run that comes to its end
    **{stage: (stage, {}) for stage in ("teacher_forcing", "causal_cd", "dmd", "dmd_of_text")},
    "bfloat16": ("teacher_forcing", {"dtype": "bfloat16", "steps": 3}),
    "accumulated": ("teacher_forcing", {"batch": 8, "steps": 3, "micro_batch": 1,
                                        "checkpoint_activations": True}),
    "broken": ("teacher_forcing", {"break_at": 2}),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder of the runs on two processes: CASES; runs killed on two ("as many", and "fewer", which has not
    gone on) and on one ("more"), gone on on two."""
    folder = tmp_path_factory.mktemp("two")
    on_two({folder / "fewer": ("dmd", KILLED | {"kill_at": 4})}, status=1)
    shutil.copytree(folder / "fewer", folder / "as many")
    with pytest.raises(Cut):
        on_one(folder / "more", "dmd", kill_at=4, **KILLED)
    on_two({folder / name: case for name, case in CASES.items()}
           | {folder / name: ("dmd", KILLED) for name in ("as many", "more")})
    return folder


def assert_equal(one, two, tolerance=1e-6):
    (logs, weights), (other_logs, other_weights) = one, two
    assert logs.keys() == other_logs.keys()
    for step in logs:
        assert other_logs[step] == pytest.approx(logs[step], rel=10 * tolerance, abs=tolerance), step
    for name, x in weights.items():
        torch.testing.assert_close(other_weights[name], x, atol=tolerance, rtol=10 * tolerance)


@pytest.mark.parametrize("stage", ["teacher_forcing", "causal_cd", "dmd", "dmd_of_text"])
def test_two_processes_equal_one(tmp_path, two, stage):
    assert_equal(on_one(tmp_path, stage), result(two / stage))


def test_accumulated_and_recomputed_equals_at_once(tmp_path, two):
    assert_equal(on_one(tmp_path, "teacher_forcing", batch=8, steps=3), result(two / "accumulated"))


@pytest.mark.parametrize("name", ["fewer", "as many", "more"])
def test_a_killed_run_goes_on_to_the_same_losses_on_another_number_of_processes(tmp_path, two, name):
    assert not (two / "fewer" / "weights.safetensors").exists()
    whole = on_one(tmp_path / "whole", "dmd", **KILLED)
    if name == "fewer":
        shutil.copytree(two / name, tmp_path / name)
        gone_on = on_one(tmp_path / name, "dmd", **KILLED)
    else:
        gone_on = result(two / name)
    # Muon rounds to bfloat16, whole matrices at once: two sums in another order differ in its third digit
    assert_equal(whole, gone_on, tolerance=2e-3)


def test_a_loss_that_is_not_finite_names_the_rank(two):
    for rank in (0, 1):
        words = (two / "broken" / f"error-{rank}").read_text()
        assert "student at step 2, on rank 1; last good state" in words
    assert not (two / "broken" / "weights.safetensors").exists()


def test_bfloat16_keeps_float32_weights(tmp_path, two):
    """Rounded the same way in one process and in two, though not to the same bits."""
    both = result(two / "bfloat16")
    assert all(x.dtype == torch.float32 for x in both[1].values())
    assert_equal(on_one(tmp_path, "teacher_forcing", dtype="bfloat16", steps=3), both, tolerance=2e-3)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    processes = Processes(torch.device("cpu"))
    processes.size = 4
    with pytest.raises(ValueError, match="stage dmd: batch 6 on 4 processes: expected a multiple of 4"):
        processes.share(6, "stage dmd: batch")


if __name__ == "__main__":
    processes = Processes(torch.device("cpu"))
    for folder, stage, options in json.loads(sys.argv[1]):
        work(processes, folder, stage, **options)
    processes.close()
    leave(0)
