"""Training from nothing on your own data: a world without look or game, and what is refused beforehand."""
import shutil
from dataclasses import replace

import pytest
import torch

import train_world
from tests.train.test_finetune import CODEC, MODEL, make_clips
from worldplay import runtime
from worldplay.action import Action, ActionSpace
from worldplay.engine.loading import load_world
from worldplay.errors import WorldError
from worldplay.train.chain import Chain
from worldplay.train.processes import Processes
from worldplay.train.stages.codec import CodecStageConfig

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


def begin(folder, clips, **changes):
    made = recipe(**changes)
    made.check()
    return Chain(made, folder, processes=Processes(torch.device("cpu")), dtype=torch.float32, data=clips)


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
    check_that_a_lost_codec_is_not_mixed_with_what_came_of_it(tmp_path, clips)


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
