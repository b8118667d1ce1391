"""Files are replaced whole or not at all, by several writers at once, with the permissions of the umask."""
import errno
import json
import os
import shutil
import stat
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from worldplay.errors import WorldError
from worldplay.files import (
    lock,
    missing_space,
    read_json,
    replacing,
    visible,
    writable_folder,
    write_json,
    write_picture,
)


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
    writers = {"text": lambda path: path.write_text("x"), "owner only": owner_only,
               "tensors": lambda path: save_file({"x": torch.ones(1)}, path)}
    umask = os.umask(0o022)
    try:
        for name, write in writers.items():
            with replacing(tmp_path / name) as temporary:
                write(temporary)
    finally:
        os.umask(umask)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in writers}
    assert modes == dict.fromkeys(writers, 0o644)


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


def test_a_folder_is_made_and_can_be_written_or_the_error_is_one_line(tmp_path):
    assert writable_folder(tmp_path / "a" / "b", "clips") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in", "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match="^clips cannot be written to .*; name another folder$"):
            writable_folder(folder, "clips")


def test_several_may_test_the_same_folder_at_once(tmp_path, monkeypatch):
    touch = Path.touch

    def touch_and_lose(path):  # another process deletes the file that both write
        touch(path)
        path.unlink()
    monkeypatch.setattr(Path, "touch", touch_and_lose)
    assert writable_folder(tmp_path, "clips") == tmp_path


def test_names_that_begin_with_a_dot_are_passed_over(tmp_path):
    for name in ("b.mp4", "a.mp4", "._a.mp4", ".hidden.mp4", "a.json"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path, "*.mp4")] == ["a.mp4", "b.mp4"]
    assert visible(tmp_path / "missing", "*") == []


def test_space_is_missing_only_where_the_disk_has_less(tmp_path, monkeypatch):
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: disk._replace(free=1000))
    assert [missing_space(tmp_path, num_bytes) for num_bytes in (0, 1000, 1001, 5000)] == [0, 0, 1, 4000]


def test_a_lock_keeps_others_out_until_its_file_is_closed(tmp_path):
    with open(tmp_path / "file", "a") as first, open(tmp_path / "file", "a") as second:
        assert lock(first) and not lock(second)
        first.close()
        assert lock(second)


@pytest.mark.skipif(sys.platform == "win32", reason="replaces fcntl")
@pytest.mark.parametrize("number, is_locked", [(errno.EWOULDBLOCK, True), (errno.EACCES, True),
                                               (errno.ENOLCK, False), (errno.EOPNOTSUPP, False)])
def test_a_file_system_without_locks_is_said_and_not_waited_for(number, is_locked, tmp_path, monkeypatch):
    import fcntl

    def refuse(file, operation):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(fcntl, "flock", refuse)
    with open(tmp_path / "file", "a") as file:
        if is_locked:
            assert lock(file) is False
            return
        with pytest.raises(OSError, match=r"/file: cannot be locked \(.*\); choose a folder on another disk"):
            lock(file)


def test_a_picture_is_written_whole_and_read_back(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for _ in range(2):
        write_picture(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as file:
        assert file.format == "PNG" and np.array_equal(np.asarray(file), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
