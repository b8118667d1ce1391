"""config.json of a world: what is refused when it is read, and that reading it needs no torch."""
import json
import subprocess
import sys

import pytest

from tests import ROOT
from worldplay.diffusion import WARPED_STEPS
from worldplay.errors import WorldError
from worldplay.files import is_file_name
from worldplay.worlds import catalog
from worldplay.worlds.config import STEPS, WorldConfig

GIVEN = json.loads((ROOT / "checkpoints" / "doom-maze" / "config.json").read_text())

LOOK = {"frames": 9, "sharpness": 12.5, "brightness": 80.0, "colours": [0.25] * 96,
        "sharpness_ratio": [0.8, 1.2], "brightness_ratio": [0.5, 1.6], "histogram_distance": 0.3}


def test_the_look_of_a_world_is_read_as_it_was_written():
    config = read(look=LOOK)
    assert config.look.row[:3] == (12.5, 80.0, 0.25) and config.look.brightness_ratio == (0.5, 1.6)
    again = WorldConfig.from_json(json.loads(json.dumps(config.to_json())), "again/config.json")
    assert again == config and read().look is None


def test_worlds_are_found_and_described_without_torch():
    program = ("import sys\nfrom worldplay.worlds import catalog, config, scene, weights, zoo\n"
               "assert zoo.cards()\nassert 'torch' not in sys.modules")
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_number_of_steps_that_a_world_may_have_has_its_timesteps():
    assert set(STEPS) == WARPED_STEPS.keys()


def read(**changes):
    """The WorldConfig of the shipped world with some fields changed; A__B is the field B of the object A."""
    given = json.loads(json.dumps(GIVEN))
    for name, value in changes.items():
        *outer, name = name.split("__")
        (given[outer[0]] if outer else given)[name] = value
    return WorldConfig.from_json(given, "maze/config.json")


@pytest.mark.parametrize("field, value", [
    ("window", 99999), ("window", 0), ("window", 8.0), ("window", True), ("frames_per_chunk", 2000),
    ("sink", -1), ("fps", 1e9), ("fps", float("nan")), ("fps", "17"), ("frame_size", [80000, 80000]),
    ("frame_size", [120.0, 160]), ("frame_size", [8160, 8192]), ("steps", 3),
    ("first_steps", True), ("context_sigma", 1),
    ("columns_per_degree", 1e300), ("prompt", 3), ("env", ""),
    ("transformer__dim", 10**9), ("transformer__num_layers", 10**6), ("transformer__num_layers", 8.0),
    ("transformer__eps", 1e30), ("transformer__patch_size", [1, 2]), ("codec__widths", [48, 96, 10**7]),
    ("codec__enc_blocks", [1, 1, 10**6]), ("codec__channels", -8), ("action_space__look_limit", float("inf")),
    ("action_space__look_limit", "3"), ("action_space__look_axes", True), ("action_space__look_axes", 3),
    ("action_space__keys", "wasd"), ("action_space__keys", ["w", 3]),
    ("look", 3), ("look", {}), ("look", LOOK | {"more": 1}), *[
        ("look", LOOK | {name: value}) for name, value in (
            ("frames", 0), ("sharpness", float("nan")), ("sharpness", 0), ("brightness", "dark"),
            ("colours", [1.0]), ("colours", 3), ("sharpness_ratio", [1.0]), ("brightness_ratio", [-1, 2]),
            ("histogram_distance", None))]])
def test_sizes_that_make_no_sense_are_refused_by_name(field, value):
    with pytest.raises(WorldError, match="maze/config.json does not describe a world") as error:
        read(**{field: value})
    assert all(name in str(error.value) for name in field.split("__"))
    assert error.value.kind == "bad_checkpoint" and "\n" not in str(error.value)


@pytest.mark.parametrize("name", [
    "../../x", "a/b", "a\\b", "a:b", "/etc/passwd", "..", ".", ".hidden", "", " ", "a ", " a", "a.", "a\nb",
    "a\0b", "a*b", "a?b", "a|b", "<a>", '"a"', "nul", "COM1", "con.txt", "-rf", "~", "a" * 101, 3, None,
    ["a"]])
def test_a_name_that_would_steer_where_files_are_written_is_refused(name):
    assert not is_file_name(name)
    with pytest.raises(WorldError, match="name .*expected a name for files") as error:
        read(name=name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["maze", "doom-maze_2", "My world 1.0", "causal-forcing++", "H\xf6hle",
                                  "\u8ff7\u5bab", "a", "a" * 100, *catalog.WORLDS, *catalog.SHAPES])
def test_a_name_that_a_person_would_give_is_taken(name):
    assert read(name=name).name == name
