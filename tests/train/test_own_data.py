"""Training from nothing on your own data: a world without look or game, and what is refused beforehand."""
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import train_world
from tests.data.foreign_folders import write_v2
from tests.train.test_finetune import CODEC, MODEL, make_clips
from worldplay import runtime
from worldplay.action import Action, ActionSpace
from worldplay.data.frame_cache import FrameCache
from worldplay.data.lerobot import LeRobotFolder
from worldplay.engine.loading import load_world
from worldplay.errors import WorldError
from worldplay.eval.look import look_of_cache
from worldplay.train.chain import Chain
from worldplay.train.image_latents import ImageLatents
from worldplay.train.processes import Processes
from worldplay.train.stages.codec import CodecStageConfig
from worldplay.train.trainer import Trainer

KEYS = ActionSpace(("w", "space"), look_axes=0)


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "longer than the training"))


def recipe(**changes):
    """own-data at toy size, two steps of every stage."""
    sizes = replace(MODEL, patch_size=(1, 1, 1), num_layers=1)
    small = replace(train_world.own_data(), name="mine", transformer=sizes,
                    codec=CodecStageConfig(model=CODEC), context_walk=100)
    return replace(small.with_loops(steps=2, batch=2), **changes)


def begin(folder, clips, budget=None, **changes):
    made = recipe(**changes)
    made.check()
    return Chain(made, folder, processes=Processes(torch.device("cpu")), dtype=torch.float32, data=clips,
                 budget=budget)


def test_keys_alone_and_no_game_make_a_world_that_plays(tmp_path, caplog):
    """Even where the recipe counts columns of a turn: there is none."""
    clips = make_clips(tmp_path / "clips", length=22, space=KEYS)
    with caplog.at_level("INFO", "worldplay"):
        assert begin(tmp_path / "run", clips, columns_per_degree=0.116).run()
    assert "no game called 'elsewhere' here: the context sigma is chosen on held-out episodes" in caplog.text
    world = load_world(tmp_path / "run", device="cpu")
    world.reset()
    frame, = world.step(Action({"w"}))
    assert frame.shape == (16, 24, 3) and (world.config.env, world.action_space) == ("elsewhere", KEYS)
    assert world.config.look == look_of_cache(FrameCache.open(tmp_path / "run" / "data"))
    assert world.config.look.frames > 1, "drift is measured against held-out frames"
    check_that_latents_are_of_mean_0_and_variance_1(tmp_path / "run")
    check_that_a_lost_codec_is_not_mixed_with_what_came_of_it(tmp_path, clips)


def test_a_data_set_and_its_run_folder_have_no_module_run_that_they_name(tmp_path, monkeypatch):
    (tmp_path / "stranger_set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    clips = make_clips(tmp_path / "clips", length=22, space=KEYS)
    info = clips / "meta" / "info.json"
    info.write_text(info.read_text().replace('"elsewhere"', '"gym:stranger_set:Game"'))
    for _ in range(2):  # once more: from the run folder
        run = begin(tmp_path / "run", clips)
        assert run.run() and run.cache.env == "gym:stranger_set:Game"
    assert load_world(tmp_path / "run", device="cpu").config.env == "gym:stranger_set:Game"
    assert not (tmp_path / "ran").exists()


def check_that_latents_are_of_mean_0_and_variance_1(run):
    """After two steps: statistics that run along with training are still those it began with."""
    cache = FrameCache.open(run / "data")
    rows = [row for start, length, _ in cache.split("train") for row in range(start, start + length)]
    latents = np.load(run / "latents.npy")[rows].astype(np.float64)
    assert np.abs(latents.mean((0, 2, 3))).max() < 0.02
    assert np.abs(latents.std((0, 2, 3)) - 1).max() < 0.1  # 1e-5 is added to the variance, here of 1e-4


def check_that_a_lost_codec_is_not_mixed_with_what_came_of_it(tmp_path, clips):
    """Stage codec begins again only when the old one's latents and the networks trained on them are gone."""
    shutil.rmtree(tmp_path / "run" / "codec")
    with pytest.raises(ValueError, match="stage codec would begin again") as refused:
        begin(tmp_path / "run", clips, columns_per_degree=0.116).run()
    stale = str(refused.value).split(" come from ")[0].split("but ")[1].split(", ")
    assert {str(tmp_path / "run" / part) for part in ("latents.npy", "teacher_forcing/state")} <= set(stale)
    assert not (tmp_path / "run" / "codec").exists()


@pytest.mark.parametrize("clips, changes, words", [
    ({"num": 12}, {}, "no held-out episode among 12; one of 20 is held out"),
    ({"length": 14}, {}, "the longest training episode has 13 frames, and a training sequence 20"),
    ({"frame_size": (24, 24)}, {"transformer": replace(MODEL, patch_size=(1, 2, 2))},
     'frames are 24x24 pixels .*multiples of 16 and 16; --fit "pad 32x32"'),
    ({}, {"env": "doom-maze"},
     "recorded in 'elsewhere', this recipe is for 'doom-maze'; --env elsewhere takes it"),
])
def test_what_does_not_fit_is_said_before_anything_is_written(clips, changes, words, tmp_path):
    folder = make_clips(tmp_path / "clips", **{"length": 22, "space": KEYS} | clips)
    with pytest.raises(ValueError, match=words):
        begin(tmp_path / "run", folder, **changes)
    assert not (tmp_path / "run").exists()


def test_episodes_too_short_for_a_sequence_are_counted_before_training(tmp_path, caplog):
    lengths = (8, 22, 20, 22)  # the last one is held out
    folder = LeRobotFolder.open(write_v2(tmp_path / "set", lengths=lengths), actions="w=forward")
    latents = ImageLatents(recipe(length=20), None, torch.device("cpu"))
    latents.check_data(folder, "set")
    assert "set: 1 of 3 training episodes are shorter than a training sequence of 20 frames" in caplog.text
    assert "held-out episodes are shorter" not in caplog.text


def test_a_second_training_in_a_folder_is_refused_until_the_first_ends(tmp_path):
    clips = make_clips(tmp_path / "clips", length=22, space=KEYS)
    first = begin(tmp_path / "run", clips)
    with pytest.raises(ValueError, match="run: another training is at work there; wait for its end, or give "
                                         "another folder"):
        begin(tmp_path / "run", clips)
    first.close()
    begin(tmp_path / "run", clips).close()


def test_without_data_it_asks_for_data(tmp_path, capsys):
    assert train_world.main(["own-data", "--steps", "1", "--out", str(tmp_path / "run")]) == 2
    assert "give --data DIR" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_is_no_record_of_a_run_is_refused_in_one_line(tmp_path):
    clips = make_clips(tmp_path / "clips", length=22, space=KEYS)
    (tmp_path / "run").mkdir()
    for text in ("{}", "[]", '{"recipe": 1', ""):
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(WorldError, match="run.json is n"):
            begin(tmp_path / "run", clips)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_and_the_same_command_goes_on(name, tmp_path, monkeypatch, capsys):
    """In a stage after the step that is going on; while something else is made, at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
    monkeypatch.setitem(train_world.RECIPES, "own-data", recipe)
    clips = make_clips(tmp_path / "clips", length=22, space=KEYS)
    command = ["own-data", "--data", str(clips), "--out", str(tmp_path / "run"), "--steps", "2",
               "--device", "cpu"]
    step, seen = Trainer.train_step, []

    def train_step(self):
        logs = step(self)
        seen.append((self.stage.name, self.step))
        if len(seen) == 1:
            os.kill(os.getpid(), getattr(signal, name))
        return logs
    monkeypatch.setattr(Trainer, "train_step", train_step)
    assert train_world.main(command) == 1 and seen == [("codec", 1)]
    said = capsys.readouterr().err
    assert "stopped with work left in codec, 50 % of it done, the same command goes on" in said
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "as before"
    with monkeypatch.context() as patch:
        patch.setattr(ImageLatents, "windows", lambda *_: os.kill(os.getpid(), getattr(signal, name)))
        assert train_world.main(command) == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert train_world.main(command) == 0
    assert [step for stage, step in seen if stage == "codec"] == [1, 2], "no step is made twice"
