"""Files are replaced whole or not at all, by several writers at once, with the permissions of the umask."""
import json
import os
import stat
import threading

import pytest
import torch
from safetensors.torch import save_file

from worldplay.errors import WorldError
from worldplay.files import read_json, replacing, write_json


def test_a_file_is_replaced_when_its_block_has_ended(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.txt"]


def test_an_object_that_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"new": object()})
    assert read_json(tmp_path / "file.json") == {"old": 1} and os.listdir(tmp_path) == ["file.json"]


def test_the_umask_decides_who_may_read_a_file_not_the_library_that_writes_it(tmp_path):
    def owner_only(path):
        path.unlink()
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    writers = {"text": lambda path: path.write_text("x"), "tensors": lambda path: save_file({"x": torch.ones(1)}, path),
               "owner only": owner_only}
    umask = os.umask(0o022)
    try:
        for name, write in writers.items():
            with replacing(tmp_path / name) as temporary:
                write(temporary)
    finally:
        os.umask(umask)
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in writers} == dict.fromkeys(writers, 0o644)


def test_a_file_written_by_several_at_once_is_always_whole(tmp_path):
    path, ends = tmp_path / "file.json", []
    write_json(path, [0] * 1000)

    def write(value):
        for _ in range(20):
            write_json(path, [value] * 1000)
        ends.append(value)
    writers = [threading.Thread(target=write, args=[value]) for value in (1, 2, 3)]
    for writer in writers:
        writer.start()
    while len(ends) < 3 and any(writer.is_alive() for writer in writers):
        read = json.loads(path.read_text())
        assert len(read) == 1000 and len(set(read)) == 1
    for writer in writers:
        writer.join()
    assert len(ends) == 3 and os.listdir(tmp_path) == ["file.json"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    write_json(path, {})
    assert read_json(path) == {}


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_json_that_cannot_be_read_is_one_line(tmp_path, content):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WorldError, match="config.json is (missing|not valid JSON)") as error:
        read_json(path)
    assert error.value.kind == "bad_checkpoint" and "\n" not in str(error.value)


def test_a_folder_in_the_place_of_a_json_file_is_one_line(tmp_path):
    with pytest.raises(WorldError, match="cannot be read .*restore it"):
        read_json(tmp_path)
