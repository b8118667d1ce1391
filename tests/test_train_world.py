"""train_world.py: from raw gameplay to a world that plays, in one command that can be stopped and go on."""
import json
import os
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch

import train_world
from worldplay import runtime
from worldplay.action import Action
from worldplay.engine.loading import load_world
from worldplay.eval.drift import drift_score
from worldplay.models.block import Block
from worldplay.train.chain import Chain
from worldplay.train.processes import Processes
from worldplay.train.stage_table import STAGES

ROOT = Path(train_world.__file__).parent


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run train_world.py in this process, without compilation: (exit status, what it said)."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "this is a test"))

    def run(*args):
        try:
            status = train_world.main(list(map(str, args)))
        except SystemExit as left:
            status = left.code
        return status, "".join(capsys.readouterr())
    return run


def process(*args, processes=1, **environment):
    """Run train_world.py as a person does, on several processes by torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher = torchrun if processes > 1 else []
    return subprocess.run([sys.executable, *launcher, ROOT / "train_world.py", *map(str, args)], cwd=ROOT,
                          capture_output=True, text=True, timeout=600, env=os.environ | environment)


def test_the_chain_makes_a_world_and_goes_on_where_it_stopped(tmp_path, command, monkeypatch):
    """The blocks of every stage are captured for compilation; the code made of it is tried below, on one."""
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (True, "captured"))
    monkeypatch.setattr(runtime, "keep_compiled_code", lambda folder: None)
    monkeypatch.setattr(Block, "compile", partialmethod(Block.compile, backend="eager"))
    out = tmp_path / "run"
    flags = ("tiny-maze", "--out", out, "--steps", "2", "--bidirectional-loop.share", "0.1",
             "--dmd-loop.share", "0.1", "--transformer.num-layers", "1")
    status, said = command(*flags, "--stop-after", "0.1s")  # it is over while the frames are collected
    assert status == 0 and "stopped with work left in codec" in said, said
    status, said = command(*flags)
    assert status == 0 and f"finished; play it: python play.py {out}" in said, said
    world = load_world(out, device="cpu")
    frames = world.reset()
    step, = world.step(Action({"w"}, (3, 0)))
    assert len(frames) == 4 and step.shape == (120, 160, 3) and step.dtype == np.uint8
    record = json.loads((out / "run.json").read_text())
    assert str(world.config.context_sigma) in record["context_sigma_scores"]
    stages = {json.loads(line)["stage"] for line in (out / "metrics.jsonl").read_text().splitlines()}
    assert stages == set(STAGES) - {"causal_ode"}
    assert len(list((out / "sheets").glob("*.png"))) >= 4

    status, said = command(*flags[:-1], "2")
    assert status == 2 and "was started with transformer" in said.splitlines()[-1]


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_short_training_is_compiled_on_a_gpu_and_not_on_a_processor(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (True, "found"))
    monkeypatch.setattr(runtime, "keep_compiled_code", lambda folder: None)
    chain = Chain(train_world.tiny_maze(), tmp_path, processes=Processes(torch.device(kind)),
                  dtype=torch.float32, budget=60.0)
    chain.close()
    assert chain.compiled == (kind == "cuda")


def test_compiled_blocks_train(tmp_path):
    out = tmp_path / "run"
    done = process("tiny-maze", "--out", out, "--steps", "2", "--transformer.num-layers", "1",
                   "--causal-cd-loop.share", "0", "--decoder-loop.share", "0", "--context-walk", "0",
                   XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "teacher_forcing: compiling its blocks" in done.stderr
    assert f"finished; play it: python play.py {out}" in done.stderr


def test_a_run_on_a_budget_begins_its_first_stage(tmp_path, command):
    status, said = command("tiny-maze", "--out", tmp_path / "run", "--budget", "1h", "--stop-after", "0.1s")
    assert status == 0 and "stopped with work left in codec" in said, said


def test_the_demo_knows_its_length_compiles_nothing_and_ends_with_a_car_to_steer(tmp_path, command):
    out = tmp_path / "demo"
    brief = [flag for stage in ("codec", "teacher-forcing", "causal-cd", "decoder")
             for flag in (f"--{stage}-loop.seconds", "1")]
    status, said = command("demo", "--out", out, "--num-frames", "600", "--transformer.num-layers", "1",
                           *brief)
    assert status == 0 and f"finished; play it: python play.py {out}" in said, said
    assert "blocks are run as they are (in less than half an hour" in said
    world = load_world(out, device="cpu")
    assert world.action_space.keys == ("a", "d", "s", "w") and world.frame_size == (64, 64)
    world.reset()
    step, = world.step(Action({"w", "a"}))
    assert step.shape == (64, 64, 3)


@pytest.mark.parametrize("teacher", ["causal", "bidirectional"])
def test_an_ode_student_from_trajectories_that_are_made_once(tmp_path, teacher, command):
    out = tmp_path / "run"
    flags = ("tiny-maze", "--out", out, "--steps", "1", "--transformer.num-layers", "1",
             "--causal-ode-loop.share", "0.1",
             "--causal-cd-loop.share", "0", "--bidirectional-loop.share", "0.1", "--decoder-loop.share", "0",
             "--num-frames", "800", "--rollout-frames", "40", "--num-trajectories", "20",
             "--causal-ode.num-timesteps", "4", "--causal-ode.teacher", teacher, "--context-walk", "0")
    if teacher == "causal":  # one of the two on two processes
        done = process(*flags, processes=2, TORCHDYNAMO_DISABLE="1", OMP_NUM_THREADS="1")
        status, said = done.returncode, done.stderr
    else:
        status, said = command(*flags)
    assert status == 0 and "trajectories of 20 windows" in said, said
    parts = sorted((out / "trajectories").glob("*/*.npy"))
    assert [path.relative_to(out / "trajectories").as_posix() for path in parts] == [
        "held_out/00000.npy", "train/00000.npy", "train/00001.npy"]
    assert load_world(out, device="cpu").config.steps == 2


@pytest.mark.parametrize("flags, words", [
    ((), "say how long"), (("--steps", "0"), "--steps 0"), (("--budget", "soon"), "--budget soon"),
    (("--steps", "5", "--budget", "1m"), "exclude each other"),
    (("--budget", "1m", "--stop-after", "0s"), "0s"),
    (("--steps", "1", "--device", "cuda"), "no CUDA device"),
    (("--steps", "1", "--dmd-loop.share", "0.1"), "--bidirectional-loop.share"),
    (("--steps", "1", "--codec-loop.share", "0"), "cannot be left out"),
    (("--steps", "1", "--causal-ode-loop.share", "0.1"), "both begin a student"),
    (("--steps", "1", "--context-walk", "250"), "--context-walk 250"),
    (("--steps", "1", "--length", "9"), "--length 9"),
    (("--steps", "1", "--dmd.num-real", "20"), "--dmd.num-real 20"),
])
def test_wrong_usage_is_one_line_and_status_2(tmp_path, flags, words, command, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    status, said = command("tiny-maze", "--out", tmp_path / "run", *flags)
    assert status == 2 and words in said.strip().splitlines()[-1] and "Traceback" not in said


def test_an_unknown_flag_is_an_error_with_a_suggestion(command):
    status, said = command("tiny-maze", "--budgett", "3h")
    assert status == 2 and "--budget" in said


@pytest.mark.parametrize("text, expected", [("90s", 90), ("25m", 1500), ("1h30m", 5400), ("0.5h", 1800)])
def test_durations(text, expected):
    assert train_world.seconds(text, "--budget") == expected


def test_drift_scores_zero_without_drift_and_count_every_way_of_melting():
    still = {"sharpness_ratio": 0.8, "codec_sharpness_ratio": 0.8, "brightness_ratio": 1.0,
             "histogram_distance": 0.0}
    assert drift_score(still) == 0
    for name, value in (("sharpness_ratio", 0.4), ("brightness_ratio", 2.0), ("histogram_distance", 0.3)):
        assert drift_score(still | {name: value}) > 0.2
