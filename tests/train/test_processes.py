"""Two processes train as one does, over torchrun and gloo: equal losses, also after a kill, on any number."""
import json
import os
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


def worker(folder, stage_name, dtype="float32", kill_at=None, break_at=None, muon_lr=None, **loop):
    """Train a stage of tests/train/stages/test_stages.py; the first process writes the loss of every step and
    the weights at the end."""
    processes = Processes(torch.device("cpu"))
    stage, folder = (STAGES | {"dmd_of_text": dmd_of_text})[stage_name](0), Path(folder)
    data = WithText() if stage_name == "dmd_of_text" else WithTrajectories()
    loop = {"batch": 4, "steps": STEPS, "optim": OptimConfig(lr=1e-3, muon_lr=muon_lr, decay=0)} | loop
    plain_loss = stage.loss
    if break_at is not None:
        def loss(role, batch, draws, call):
            loss, logs = plain_loss(role, batch, draws, call)
            return (loss * float("nan") if draws.step == break_at and processes.rank == 1 else loss), logs
        stage.loss = loss
    trainer = Trainer(stage, data, LoopConfig(**loop), folder, None, processes, getattr(torch, dtype))
    try:
        while trainer.progress < 1:
            if trainer.step == kill_at and processes.rank == processes.size - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            logs = trainer.train_step()
            if processes.is_first:
                with open(folder / "losses.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": trainer.step, **logs}) + "\n")
            if trainer.step == 3:
                trainer.save()
    except NotFinite as error:
        (folder / f"error-{processes.rank}").write_text(str(error))
        raise
    weights = full_state(stage.models[stage.result])
    if processes.is_first:
        save_weights(folder / "weights.safetensors", weights)
    processes.close()


def launch(folder, size, stage, status=0, **options):
    """Run `worker` on `size` processes; {step: logs} and the weights of a run that came to its end."""
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command = launcher if size > 1 else []
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # this checkout
    done = subprocess.run([sys.executable, *command, __file__, json.dumps([str(folder), stage, options])],
                          text=True, capture_output=True, env=env, timeout=1200)
    assert (done.returncode == 0) == (status == 0), done.stderr
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
    weights = load_weights(folder / "weights.safetensors") if status == 0 else None
    return {line["step"]: line for line in lines}, weights


def assert_equal(one, two, tolerance=1e-6):
    for (logs, weights), (others, other_weights) in [(one, two)]:
        assert logs.keys() == others.keys()
        for step in logs:
            assert others[step] == pytest.approx(logs[step], rel=10 * tolerance, abs=tolerance), step
        for name, x in weights.items():
            torch.testing.assert_close(other_weights[name], x, atol=tolerance, rtol=10 * tolerance)


@pytest.mark.parametrize("stage", ["teacher_forcing", "causal_cd", "dmd", "dmd_of_text"])
def test_two_processes_equal_one(tmp_path, stage):
    assert_equal(launch(tmp_path / "one", 1, stage), launch(tmp_path / "two", 2, stage))


def test_accumulated_and_recomputed_equals_at_once(tmp_path):
    options = {"batch": 8, "steps": 3}
    at_once = launch(tmp_path / "one", 1, "teacher_forcing", **options)
    spread = launch(tmp_path / "two", 2, "teacher_forcing", micro_batch=1, checkpoint_activations=True,
                    **options)
    assert_equal(at_once, spread)


def test_a_killed_run_goes_on_to_the_same_losses_on_another_number_of_processes(tmp_path):
    whole = launch(tmp_path / "whole", 1, "dmd", muon_lr=0.01)
    for name, sizes in (("fewer", (2, 1)), ("as many", (2, 2)), ("more", (1, 2))):
        launch(tmp_path / name, sizes[0], "dmd", status=1, kill_at=4, muon_lr=0.01)
        # Muon rounds to bfloat16, whole matrices at once: two sums in another order differ in its third digit
        assert_equal(whole, launch(tmp_path / name, sizes[1], "dmd", muon_lr=0.01), tolerance=2e-3)


def test_a_loss_that_is_not_finite_names_the_rank(tmp_path):
    launch(tmp_path, 2, "teacher_forcing", status=1, break_at=2)
    for rank in (0, 1):
        assert "student at step 2, on rank 1; last good state" in (tmp_path / f"error-{rank}").read_text()


def test_bfloat16_keeps_float32_weights(tmp_path):
    """Rounded the same way in one process and in two, though not to the same bits."""
    one, two = (launch(tmp_path / str(size), size, "teacher_forcing", dtype="bfloat16", steps=3)
                for size in (1, 2))
    assert all(x.dtype == torch.float32 for x in two[1].values())
    assert_equal(one, two, tolerance=2e-3)


def test_a_batch_that_does_not_divide_is_refused(monkeypatch):
    processes = Processes(torch.device("cpu"))
    processes.size = 4
    with pytest.raises(ValueError, match="stage dmd: batch 6 on 4 processes: expected a multiple of 4"):
        processes.share(6, "stage dmd: batch")


if __name__ == "__main__":
    folder, stage, options = json.loads(sys.argv[1])
    worker(folder, stage, **options)
    leave(0)
