"""Finding worlds: which folders are worlds, and what is passed over."""
import json
import shutil

import pytest

from tests import ROOT
from worldplay.worlds import zoo


@pytest.fixture
def place(tmp_path, monkeypatch):
    """./checkpoints with one world, and no other place."""
    place = tmp_path / "checkpoints"
    place.mkdir()
    monkeypatch.setattr(zoo, "_places", lambda: [place])
    add_world(place / "maze")
    zoo._warn_once.cache_clear()
    return place


def add_world(folder, **fields):
    folder.mkdir()
    given = json.loads((ROOT / "checkpoints" / "doom-maze" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(given | fields))


def test_folders_that_begin_with_a_dot_are_no_worlds(place, caplog):
    for name in ("._maze", ".ipynb_checkpoints", ".Trash"):
        add_world(place / name)
    shutil.copytree(place / "maze", place / "maze" / ".old")
    assert [card.name for card in zoo.cards()] == ["maze"] and not caplog.text


def test_a_world_that_cannot_be_played_has_no_card_and_says_why(place, caplog):
    add_world(place / "broken", window=99999)
    assert [card.name for card in zoo.cards()] == ["maze"]
    assert "broken" in caplog.text and "window 99999: expected a whole number from 1 to 1024" in caplog.text


def test_a_card_says_what_the_config_says(place):
    card, = zoo.cards()
    given = json.loads((place / "maze" / "config.json").read_text())
    assert (card.env, list(card.frame_size), card.fps) == (given["env"], given["frame_size"], given["fps"])
    assert card.action_space.to_json() == given["action_space"]
