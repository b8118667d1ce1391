"""The hashes of a world's files are remembered while the files are the same, whatever else happens."""
import hashlib
import json
import os
import threading

import pytest

from worldplay.worlds import digests as module
from worldplay.worlds import zoo
from worldplay.worlds.digests import digests


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_SETTLED_SECONDS", -1)  # files count as settled at once
    return zoo.user_cache() / "digests.json"


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were hashed, as they are."""
    names, real = [], hashlib.file_digest

    def file_digest(file, name):
        names.append(os.path.basename(file.name))
        return real(file, name)
    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return names


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights" * 1000)
    return path


def right(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_is_hashed_once(path, hashed):
    assert digests([path]) == digests([path]) == {path: right(path)} and hashed == [path.name]


def test_a_file_is_known_by_whatever_path_leads_to_it(path, hashed, monkeypatch):
    digests([path])
    monkeypatch.chdir(path.parent)
    relative = module.zoo.Path(path.name)
    assert digests([relative]) == {relative: right(path)} and hashed == [path.name]


def test_another_content_of_the_same_size_and_time_is_hashed_again(path):
    digests([path])
    facts = path.stat()
    path.write_bytes(b"WEIGHTS" * 1000)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert digests([path]) == {path: right(path)}


def test_a_file_put_in_the_place_of_another_is_hashed_again(path, tmp_path):
    digests([path])
    facts = path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"WEIGHTS" * 1000)
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.replace(other, path)
    assert digests([path]) == {path: right(path)}


def test_a_file_that_has_just_changed_is_not_remembered_yet(path, cache, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED_SECONDS", 3600)
    assert digests([path]) == {path: right(path)} and not cache.exists()


@pytest.mark.parametrize("damage", [
    "", "{", "[]", "3", '{"PATH": 3}', '{"PATH": [1, 2, 3, 4, 5]}', '{"PATH": "abcde"}'])
def test_a_damaged_memory_is_no_memory(path, cache, hashed, damage):
    cache.parent.mkdir(parents=True)
    cache.write_text(damage.replace("PATH", str(path)))
    assert digests([path]) == digests([path]) == {path: right(path)} and len(hashed) == 1


def test_a_memory_that_cannot_be_written_is_said_and_the_hash_is_right(path, cache, caplog):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file in the place of the folder")
    with caplog.at_level("INFO"):
        assert digests([path]) == {path: right(path)}
    assert "digests.json cannot be written" in caplog.text


def test_the_memory_does_not_grow_without_end(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(module, "_MAX_KEPT", 3)
    paths = [tmp_path / f"{i}" for i in range(5)]
    for path in paths:
        path.write_bytes(b"x")
        digests([path])
    assert list(json.loads(cache.read_text())) == [str(path.resolve()) for path in paths[2:]]


def test_several_at_once_are_right_and_leave_a_whole_memory(tmp_path, cache):
    paths, found = [tmp_path / f"{i}" for i in range(8)], {}
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 1000)

    def run(first):
        found.update(digests(paths[first:] + paths[:first]))
    threads = [threading.Thread(target=run, args=[first]) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {path: right(path) for path in paths} and json.loads(cache.read_text())
    assert [file.name for file in cache.parent.iterdir()] == ["digests.json"]
