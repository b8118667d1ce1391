"""The faulty runs: each differs from a right one in what it says alone, and a toy run makes every picture."""
import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

import train_world
from worldplay.action import ActionSpace
from worldplay.data.frame_cache import FrameCache, Rollout, Source, write_frame_cache
from worldplay.experiments import faults
from worldplay.experiments.faults import CASES, changed, first_sequence, late, table, write_late
from worldplay.train.metrics import contact_sheet
from worldplay.train.recipe import numbers

RECIPE = train_world.faults()
TRAINED = [name for name, case in CASES.items() if not case.played]


def _numbers(name):
    return {key: value for key, value in numbers(asdict(RECIPE.variant(name))) if key != "name"}


@pytest.mark.parametrize("name", TRAINED)
def test_a_case_differs_from_the_right_one_in_what_it_says(name):
    case = CASES[name]
    wrong, right = _numbers(name), _numbers(faults.RIGHT[case.stage])
    expected = set(case.changes) | ({f"{case.stage}_loop.steps"} if case.length != 1 else set())
    expected |= {"teacher_forcing_loop.steps"} if case.teacher or case.stage == "codec" else set()
    assert {key for key in wrong if wrong[key] != right[key]} == expected
    assert all(wrong[key] == value for key, value in case.changes.items())


@pytest.mark.parametrize("name", TRAINED)
def test_what_a_case_takes_from_another_is_not_trained_further(name):
    """A stage that is done elsewhere with fewer steps would go on there, and change the other case."""
    recipe = RECIPE.variant(name)
    for part, other in faults.taken(name).items():
        if part in recipe.stages and recipe.loop(part).share:
            assert recipe.loop(part).steps == RECIPE.variant(other).loop(part).steps, (part, other)


def test_a_number_is_changed_by_its_name_on_the_command_line():
    recipe = changed(RECIPE, "codec.model.channels", 2)
    assert recipe.codec.model.channels == 2 and replace(recipe, codec=RECIPE.codec) == RECIPE


def test_late_actions_belong_to_earlier_pictures(tmp_path):
    space = ActionSpace(("w", "a"), look_axes=0)
    rng = np.random.default_rng(0)
    episodes = [Rollout(rng.integers(0, 256, (n, 8, 8, 3), np.uint8), rng.random((n, 2), np.float32), None,
                        seed) for n, seed in ((7, 0), (5, 19))]
    source = Source(name="x", action_space=space, frame_size=(8, 8), fps=10.0)
    before = write_frame_cache(episodes, tmp_path / "a", world=source, num_frames=12, has_poses=False)
    write_late(tmp_path / "a", tmp_path / "b", 2)
    after = FrameCache.open(tmp_path / "b")
    assert np.array_equal(after.frames, before.frames) and np.array_equal(after.episodes, before.episodes)
    assert np.array_equal(after.actions[2:7], before.actions[:5]) and not after.actions[:2].any()
    assert np.array_equal(after.actions[9:], before.actions[7:10]) and not after.actions[7:9].any()
    assert np.array_equal(late(before.actions, 0), before.actions)


def test_the_first_sequence_of_a_sheet_is_what_was_put_there():
    frames = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 24, 3), np.uint8)
    real, made = first_sequence(contact_sheet(list(frames)), (16, 24))
    assert np.array_equal(real, frames[0]) and np.array_equal(made, frames[1])


def test_a_table_leaves_open_what_was_not_measured():
    rows = table({"a": {"held_out": {"loss/student": 1.69e-9}, "codec_psnr": 35.96}}).splitlines()
    cells = rows[2].split(" | ")
    assert cells[:4] == ["| a", "1.69e-09", "", "36.0"] and not any(cells[4:-1])


@pytest.fixture
def command(train, monkeypatch):
    """Run the recipe on few cases: (exit status, what it said)."""
    few = ("teacher", "student", "dmd", "codec-narrow", "teacher-short", "teacher-fifth", "teacher-late",
           "student-early", "sigma-high")
    monkeypatch.setattr(faults, "CASES", {name: case for name, case in CASES.items() if name in few})
    return partial(train, "faults")


def test_a_toy_run_goes_on_where_it_stopped_and_shows_every_case(tmp_path, command):
    out = tmp_path / "run"
    flags = ("--steps", "1", "--num-frames", "800", "--rollout-frames", "40", "--num-streams", "3",
             "--env", "gym:tests.envs.corridor:Corridor?actions=idle=0,a=1,d=2", "--player", "random",
             "--transformer.num-layers", "1", "--transformer.dim", "32", "--transformer.num-heads", "2",
             "--num-targets", "4", "--horizon", "16", "--walk", "100")
    status, said = command(*flags, "--stop-after", "0.1s")  # it is over while the frames are collected
    assert status == 0 and "stopped with work left in part 1 of" in said, said
    status, said = command(*flags)
    assert status == 0, said
    found = json.loads((out / "results.json").read_text())
    assert list(found) == list(faults.CASES)
    assert (out / "RESULTS.md").read_text().count("\n") == 2 + len(found)
    assert found["codec-narrow"]["codec_psnr"] and "next_frame" not in found["codec-narrow"]
    assert found["teacher"]["next_frame"]["n"] == 12 and found["student"]["drift"]["n"] == 3 * 25
    over = found["teacher-late"]["play_over"]
    assert over["case"] == "teacher-fifth" and over["16"]["low"] <= over["16"]["mean"] <= over["16"]["high"]
    rows = {"codec": 3, "teacher_forcing": 5, "causal_cd": 3, "dmd": 2, "teacher_forcing-play": 5,
            "causal_cd-play": 3, "dmd-play": 2, "sigma-play": 3}
    heights = {path.stem: Image.open(path).height for path in (out / "pictures").iterdir()}
    assert heights == {name: 14 + number * (16 + 2) for name, number in rows.items()}


def test_what_it_cannot_measure_is_refused_before_anything_is_made(tmp_path, command):
    for flags, expected in ((("--data", str(tmp_path)), "leave out --data"),
                            (("--walk", "200"), "--walk 200: expected one of")):
        status, said = command("--steps", "1", *flags)
        assert status == 2 and expected in said, said
    assert not (tmp_path / "run").exists()
