"""Saved places on disk: they come back as written, damage and other worlds are one line each."""
from dataclasses import replace

import numpy as np
import pytest

from tests.client.fake_worlds import FakeWorld
from worldplay.action import Action
from worldplay.client.line import Line
from worldplay.client.worker import Reset
from worldplay.data.save_file import (
    check_world,
    how_it_differs,
    read_picture,
    read_save,
    rename_save,
    write_save,
)
from worldplay.errors import WorldError


def made(world=None, steps=3, start=None):
    world = world or FakeWorld()
    line = Line(world, Reset(frames=start), world.reset(frames=start))
    for i in range(steps):
        line.act(Action({"w"} if i % 2 else (), (0.1 * i, 0.0)))
        line.show({"path": "eager", "threads": 2})
    state = {"cache": {"tensor": "0", "dtype": "bfloat16"}}, {"0": np.arange(6, dtype=np.int16)}
    return line, line.to_save(np.full((*world.frame_size, 3), 7, np.uint8), "a place", state)


@pytest.mark.parametrize("has_start", [False, True])
def test_a_place_comes_back_as_it_was_written(tmp_path, has_start):
    start = np.full((2, *FakeWorld().frame_size, 3), 9, np.uint8) if has_start else None
    line, saved = made(start=start)
    write_save(tmp_path / "a.save", saved)
    again = read_save(tmp_path / "a.save")
    assert list(Line.of_save(again).actions) == list(line.actions)
    assert Line.of_save(again).header == line.header and Line.of_save(again).changes == line.changes
    assert again.state["0"].tolist() == list(range(6)) and again.fields["state"] == saved.fields["state"]
    assert (again.start is None) == (start is None) and (start is None or (again.start == start).all())
    fields, frame = read_picture(tmp_path / "a.save")
    assert fields["title"] == "a place" and (frame == 7).all()
    rename_save(tmp_path / "a.save", "another")
    assert read_picture(tmp_path / "a.save")[0]["title"] == "another"
    assert [path.name for path in tmp_path.iterdir()] == ["a.save"]


def test_another_world_and_a_newer_format_are_refused_in_one_line(tmp_path):
    world, (_, saved) = FakeWorld(), made()
    check_world(saved, world, "a.save")
    for fields in ({"world_hash": "0123"}, {"world_hash": None, "env": "elsewhere"}):
        with pytest.raises(WorldError, match=r"a.save was saved in fake .*; open that world") as error:
            check_world(replace(saved, fields=saved.fields | fields), world, "a.save")
        assert error.value.kind == "bad_save" and "\n" not in str(error.value)
    assert how_it_differs(saved, world) == ""
    other = replace(saved, fields=saved.fields | {"info": saved.fields["info"] | {"device": "elsewhere"}})
    assert "device elsewhere" in how_it_differs(other, world)


def test_damage_is_one_line(tmp_path):
    with pytest.raises(WorldError, match="nothing is saved as a"):
        read_save(tmp_path / "a.save")
    write_save(tmp_path / "a.save", made()[1])
    whole = (tmp_path / "a.save").read_bytes()
    for damaged in (b"", whole[:100], whole[:-5], whole.replace(b'worldplay save', b'worldplay cave'),
                    whole.replace(b'\\"number\\"', b'\\"nombre\\"')):
        (tmp_path / "a.save").write_bytes(damaged)
        with pytest.raises(WorldError, match="no saved place, or is damaged") as error:
            read_save(tmp_path / "a.save")
        assert error.value.kind == "bad_save" and "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_said_and_the_old_place_stays(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written") as error:
        write_save(tmp_path / "file" / "a.save", made()[1])
    assert "\n" not in str(error.value)
