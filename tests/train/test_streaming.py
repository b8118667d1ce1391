"""A data set of whose frames a part is kept: the same latents bit for bit, on less disk, after a kill too."""
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
import torch

import train_world
from tests import ROOT
from tests.train.test_finetune import make_clips
from tests.train.test_own_data import KEYS, recipe
from worldplay import runtime
from worldplay.data.frame_cache import FrameCache, is_held_out
from worldplay.data.lerobot import LeRobotFolder
from worldplay.train import streamed
from worldplay.train.chain import Chain
from worldplay.train.deadline import Deadline
from worldplay.train.gameplay import kept_parts
from worldplay.train.image_latents import FrameEncoder
from worldplay.train.processes import Processes

NUM, LENGTH = 40, 21  # episodes and frames of each; two are held out
KEPT = 8 * LENGTH


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "pick_compile", lambda device: (False, "longer than the training"))
        yield


def begin(folder, clips, keep_frames, **options):
    return Chain(recipe(context_walk=0), folder, processes=Processes(torch.device("cpu")),
                 dtype=torch.float32, data=clips, keep_frames=keep_frames, **options)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("set") / "clips", num=NUM, length=LENGTH + 1, space=KEYS)


@pytest.fixture(scope="module")
def runs(clips, tmp_path_factory):
    """Folder with the runs whole, all (every frame kept and streamed) and part."""
    folder = tmp_path_factory.mktemp("runs")
    for name, keep_frames in (("whole", None), ("all", NUM * LENGTH), ("part", KEPT)):
        assert begin(folder / name, clips, keep_frames).run()
    return folder


def same_world(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes()
               for name in ("model.safetensors", "codec.safetensors", "config.json"))


def test_with_every_frame_kept_the_streamed_latents_are_the_encoded_ones_and_so_is_the_world(runs):
    through_cache = np.load(runs / "whole" / "latents.npy")
    read = streamed.StreamedLatents.open(runs / "all" / "streamed")
    assert through_cache.tobytes() == np.array(read.latents).tobytes()
    cache = FrameCache.open(runs / "all" / "data")
    assert np.array_equal(cache.actions, read.actions) and np.array_equal(cache.episodes, read.episodes)
    assert same_world(runs / "whole", runs / "all") and not (runs / "all" / "latents.npy").exists()


def test_a_part_of_the_frames_is_on_disk_and_the_latents_of_all(runs, clips):
    kept = FrameCache.open(runs / "part" / "data")
    rollouts = list(LeRobotFolder.open(clips).rollouts())
    assert len(kept.frames) == KEPT and (runs / "part" / "data" / "frames.npy").stat().st_size < (
        runs / "whole" / "data" / "frames.npy").stat().st_size / 4
    assert len(kept.split("train")) == 7 and len(kept.split("held_out")) == 1
    whole = {rollout.seed: rollout for rollout in rollouts}
    for start, length, seed in kept.episodes.tolist():
        assert np.array_equal(kept.frames[start:start + length], whole[seed].frames)
    run = begin(runs / "part", clips, KEPT)
    try:
        assert run.run_stages()
        windows, encode = run.windows, FrameEncoder(run.networks["codec"], torch.device("cpu"), torch.float32)
        assert np.array(windows.latents).tobytes() == np.concatenate(
            [encode(rollout.frames) for rollout in rollouts]).tobytes()
        assert np.array_equal(windows.actions, np.concatenate([each.actions for each in rollouts]))
        rows = {held_out: {int(row) // LENGTH for row in windows.starts[held_out]} for held_out in (0, 1)}
        assert rows[1] == {i for i in range(NUM) if is_held_out(i)} and not rows[0] & rows[1]
        assert len(rows[0]) == NUM - len(rows[1]), "windows are of all episodes"
    finally:
        run.close()


def kill_in_the_middle(folder, clips):
    """A run that is killed while it encodes its ninth episode; the sixth was the last one saved."""
    runtime.pick_compile, encode, calls = lambda device: (False, ""), FrameEncoder.__call__, []

    def call(self, frames):
        calls.append(len(frames))
        streamed._SAVE_EVERY = 0.0 if len(calls) <= 6 else math.inf
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(self, frames)
    FrameEncoder.__call__ = call
    begin(folder, clips, KEPT).run()


def test_a_run_that_was_killed_amid_streaming_goes_on_to_the_same_world(runs, clips, tmp_path, monkeypatch):
    program = ("import sys; from pathlib import Path; from tests.train.test_streaming import *; "
               "kill_in_the_middle(Path(sys.argv[1]), sys.argv[2])")
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "run", clips], cwd=ROOT, timeout=600,
                          capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not streamed.StreamedLatents.are_in(tmp_path / "run" / "streamed")
    encode, calls = FrameEncoder.__call__, []
    monkeypatch.setattr(FrameEncoder, "__call__",
                        lambda self, frames: calls.append(len(frames)) or encode(self, frames))
    late = begin(tmp_path / "run", str(clips), KEPT, deadline=Deadline(0.0))
    assert not late.run() and late.where == "encoding" and len(calls) == 1, "its time was over"
    assert begin(tmp_path / "run", str(clips), KEPT).run() and len(calls) == NUM - 6
    for name in ("latents.npy", "actions.npy"):
        assert (tmp_path / "run" / "streamed" / name).read_bytes() == (
            runs / "part" / "streamed" / name).read_bytes()
    assert same_world(tmp_path / "run", runs / "part")


@pytest.mark.parametrize("seconds_left, num_warnings", [(0.0, 1), (math.inf, 0)])
def test_reading_that_takes_much_of_the_budget_is_said_once(seconds_left, num_warnings, clips, tmp_path,
                                                            monkeypatch, caplog):
    monkeypatch.setattr(streamed, "_MEASURED_AFTER", 0.0)
    shape = (2, 2, 3)
    streamed.write_streamed(tmp_path / "a", LeRobotFolder.open(clips),
                            lambda frames: np.zeros((len(frames), *shape)), shape, Deadline(), seconds_left)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == num_warnings and all("a larger --budget" in text for text in said)


def test_latents_of_another_data_set_are_not_gone_on_with(clips, tmp_path):
    opened, shape = LeRobotFolder.open(clips), (2, 2, 3)
    streamed.write_streamed(tmp_path / "a", opened, lambda frames: np.zeros((len(frames), *shape)), shape,
                            Deadline(0.0))
    assert not streamed.StreamedLatents.are_in(tmp_path / "a")
    other = make_clips(tmp_path / "other", num=NUM // 2, length=2 * LENGTH + 1, space=KEYS)
    with pytest.raises(ValueError, match="holds latents of another data set"):
        streamed.write_streamed(tmp_path / "a", LeRobotFolder.open(other), None, shape, Deadline())


def parts_of(lengths):
    return [({"seed": seed}, 0, length) for seed, length in enumerate(lengths)]


@pytest.mark.parametrize("num, keep", [(40, 4), (40, 39), (200, 30), (20, 2)])
def test_what_is_kept_is_spread_over_the_data_set_with_both_sides_in_proportion(num, keep):
    parts = parts_of([100] * num)
    kept = [episode["seed"] for episode, _, _ in kept_parts(parts, 100 * keep, 20)]
    assert kept == sorted(set(kept)) and keep - 1 <= len(kept) <= keep
    assert sum(map(is_held_out, kept)) == max(1, keep // 20)
    assert max(np.diff([-1, *kept, num])) <= 3 * num / keep, "no gap is three times what it would be"
    assert kept_parts(parts, 100 * num, 20) == parts


def test_stretches_too_short_for_a_sequence_are_not_kept_and_two_are_the_least():
    parts = parts_of([10, 50] * 20)
    assert all(stop == 50 for _, _, stop in kept_parts(parts, 500, 20))
    with pytest.raises(ValueError, match="--keep-frames 60: a held-out stretch and one to train on have 100"):
        kept_parts(parts, 60, 20)


@pytest.mark.parametrize("free, keep_frames, words", [
    (0.5, None, r"840 frames and the latents of 840 need 0.0 GiB, the disk of .* has 0.0 GiB left; "
                r"--keep-frames \d+ keeps so many of the 840 frames and reads the latents of all"),
    (0.001, None, "left; free some or give another --out"),
    (0.001, KEPT, "168 frames and the latents of 840 need .* left; free some or give another --out"),
    (0.5, KEPT, None),
])
def test_what_the_disk_cannot_hold_is_said_before_anything_is_written(free, keep_frames, words, clips,
                                                                      tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(int(free * NUM * LENGTH * 3 * 16 * 24))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    if words is None:
        begin(tmp_path / "run", clips, keep_frames).close()
        return
    with pytest.raises(ValueError, match=words):
        begin(tmp_path / "run", clips, keep_frames)
    assert not (tmp_path / "run").exists()


def test_keep_frames_without_what_it_is_for_is_refused(capsys):
    assert train_world.main(["own-data", "--steps", "1", "--keep-frames", "9"]) == 2
    assert "--keep-frames: only with --data DIR" in capsys.readouterr().err
    assert train_world.main(["wan-frame", "--data", "d", "--init-from", "w", "--keep-frames", "9"]) == 2
    assert "--keep-frames: wan-frame encodes windows of frames" in capsys.readouterr().err
