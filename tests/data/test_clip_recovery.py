"""Recordings that a crash, damage or a full disk cut off: what is whole becomes a clip."""
import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import ROOT
from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.data.test_clip import action_at, record
from worldplay.action import Action
from worldplay.data import clip_recovery, clip_writer
from worldplay.data.clip import read_clip
from worldplay.data.clip_recovery import DAMAGED, Finished, finish_parts, log_recovered, recover
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.data.video import read_frames
from worldplay.files import lock

DISK = shutil.disk_usage("/")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The two part files of a clip of 60 frames as a crash leaves them."""
    folder = tmp_path_factory.mktemp("parts")
    world = FakeWorld()
    writer = ClipWriter(folder / "a", describe(world, scene="one"), actions=[Action()], first=0)
    for i, frame in enumerate([world.reset()[0], *(f for i in range(59) for f in world.step(action_at(i)))]):
        writer.add(frame, i, action_at(i - 1) if i else Action(), {})
    while len((folder / "a.part.jsonl").read_text().splitlines()) < 61:
        time.sleep(0.01)
    copy = tmp_path_factory.mktemp("copy")
    for suffix in ("mp4", "jsonl"):
        shutil.copy(folder / f"a.part.{suffix}", copy)
    writer.finish()
    writer.wait()
    return copy


def put(parts, folder, name="a"):
    """The parts again in a folder, under a name."""
    for file in parts.iterdir():
        shutil.copy(file, folder / file.name.replace("a.", f"{name}.", 1))


def num_decoded(video):
    return sum(1 for _ in read_frames(video))


def check_whole(path, num_frames):
    """A clip that plays to its end, each frame because of its action."""
    clip = read_clip(path)
    frames = list(clip.frames())
    assert len(frames) == num_frames == len(clip.sidecar["frames"]) == len(clip.actions)
    assert [keys_shown(frame) for frame in frames] == [action.keys for action in clip.actions]


# Crashes ----------------------------------------------------------------------------------------------------


def test_kill_9_loses_at_most_the_last_second(tmp_path):
    fps = 20
    code = ("import time\nfrom tests.client.fake_worlds import FakeWorld\nfrom tests.data.test_clip import "
            "action_at\n"
            "from tests.client.tape import Tape\nfrom worldplay.client.worker import Reset\n"
            f"world = FakeWorld(fps={fps}.0)\nrecorder = Tape(world)\n"
            "recorder.begin(Reset(), world.reset())\n"
            f"recorder.start({str(tmp_path / 'a')!r})\n"
            "for i in range(10**6):\n"
            "    recorder.step(action_at(i))\n"
            "    for frame in world.step(action_at(i)): recorder.frame(frame, {})\n"
            # frames that the encoder has not got yet are lost
            "    while not recorder._writer._queue.empty(): time.sleep(0.001)\n"
            "    print(i, flush=True)\n")
    player = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    last = next(int(line) for line in player.stdout if int(line) == 55)
    assert list(recover(tmp_path)) == [], "a clip that is being written is left alone"
    player.kill()
    last = max([last, *(int(line) for line in player.stdout)])
    [made] = recover(tmp_path)
    clip = read_clip(made.path)
    assert not made.kept and clip.num_frames == made.num_frames == len(list(clip.frames()))
    assert made.num_frames > last + 2 - fps, f"{made.num_frames} frames of {last + 2}"
    assert clip.actions == [Action()] + [action_at(i) for i in range(made.num_frames - 1)]
    assert list(recover(tmp_path)) == [] and sorted(os.listdir(tmp_path)) == ["a.json", "a.mp4"]


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.1, 0.35, 0.5, 0.77, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("torn", ["mp4", "jsonl"])
def test_a_torn_file_is_recovered_as_far_as_it_is_whole(tmp_path, parts, torn, kept):
    for file in parts.iterdir():
        data = file.read_bytes()
        cut = round(kept * len(data)) if file.suffix == f".{torn}" else len(data)
        (tmp_path / file.name).write_bytes(data[:cut])
    [made] = recover(tmp_path)
    assert not list(tmp_path.glob("*.part.*"))
    assert made.num_frames >= 60 * kept - 25 and (kept > 0 or made.num_frames == 0), made
    if made.num_frames:
        check_whole(made.path, made.num_frames)
    if made.num_frames < 35:
        assert made.kept == tmp_path / DAMAGED, "more than a second is missing: the parts are not thrown away"
        for file in parts.iterdir():
            if file.suffix != f".{torn}":
                assert (made.kept / f"a{file.suffix}").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("size", [0, 5000])
def test_zeros_that_a_power_loss_leaves_end_the_clip(tmp_path, parts, size):
    put(parts, tmp_path)
    for suffix, keeps in (("mp4", 0.7), ("jsonl", 0.75)):
        file = tmp_path / f"a.part.{suffix}"
        data = file.read_bytes()
        cut = round(keeps * len(data))
        file.write_bytes(data[:cut] + bytes(len(data) - cut + size))
    [made] = recover(tmp_path)
    assert 25 < made.num_frames < 45
    check_whole(made.path, made.num_frames)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_bytes_are_damaged_the_clip_ends_before_them_and_nothing_is_lost(tmp_path, parts, seed):
    put(parts, tmp_path)
    rng = random.Random(seed)
    video = tmp_path / "a.part.mp4"
    data = bytearray(video.read_bytes())
    at, size = rng.randrange(len(data)), rng.choice([1, 4, 40, 1000])
    data[at:at + size] = rng.choice([b"\0", b"\xff", b"\x55"]) * len(data[at:at + size])
    video.write_bytes(data)
    put(parts, tmp_path, "b")  # an intact neighbour
    first, second = recover(tmp_path)
    assert second.num_frames >= 35 and not second.kept, "the neighbour is recovered"
    if first.num_frames:
        clip = read_clip(first.path)
        assert len(list(clip.frames())) == first.num_frames == len(clip.actions)
    if first.num_frames < 60 - 21:
        assert (first.kept / "a.mp4").read_bytes() == data
    assert not list(tmp_path.glob("*.part.*"))


@pytest.mark.parametrize("damage", [b"\0" * 40, b"\0" * 20 + b"\n" + b"\0" * 19, b"\xff" * 40, b"[" * 5000])
def test_a_damaged_line_ends_the_clip_there(tmp_path, parts, damage):
    put(parts, tmp_path)
    lines = tmp_path / "a.part.jsonl"
    data = lines.read_bytes()
    at = data.index(b"\n", len(data) // 2) + 1
    lines.write_bytes(data[:at] + damage + data[at + 40:])
    whole = data[:at].count(b"\n") - 1
    [made] = recover(tmp_path)
    assert 10 < made.num_frames == len(read_clip(made.path).actions) <= whole
    assert num_decoded(made.kept / "a.mp4") >= 35, "all that was filmed is kept"
    assert not list(tmp_path.glob("*.part.*"))


@pytest.mark.parametrize("header", [b"", b"\xff\xfe\n", b"3\n", b'{"first": 0}\n', b'{"format": "world',
                                    b'{"first": 0, "actions": 3}\n' + b'{"step": 0, "action": []}\n' * 50])
def test_a_video_without_its_actions_is_kept_to_be_watched(tmp_path, parts, header):
    put(parts, tmp_path)
    (tmp_path / "a.part.jsonl").write_bytes(header)
    (tmp_path / DAMAGED).mkdir()
    (tmp_path / DAMAGED / "a.mp4").write_bytes(b"of another day")
    [made] = recover(tmp_path)
    assert (made.path, made.num_frames, made.kept) == (tmp_path / "a", 0, tmp_path / DAMAGED)
    assert "damaged" in str(made) and str(made.kept) in str(made) and "\n" not in str(made)
    assert num_decoded(tmp_path / DAMAGED / "a-2.mp4") >= 35 and not list(tmp_path.glob("*.part.*"))
    assert (tmp_path / DAMAGED / "a.mp4").read_bytes() == b"of another day"


def test_a_video_whose_lines_are_gone_is_set_aside(tmp_path, parts):
    put(parts, tmp_path)
    (tmp_path / "a.part.jsonl").unlink()
    [made] = recover(tmp_path)
    assert made.problem and (made.kept / "a.mp4").is_file() and list(recover(tmp_path)) == []


@pytest.mark.parametrize("sizes", [(0, None), (0, 0), (None, 0)])
def test_remains_without_a_frame_are_removed(tmp_path, sizes):
    for suffix, size in zip(("jsonl", "mp4"), sizes):
        if size is not None:
            (tmp_path / f"a.part.{suffix}").touch()
    [made] = recover(tmp_path)
    assert str(made) == f"removed the empty remains of recording {tmp_path / 'a'}"
    assert os.listdir(tmp_path) == []


def test_parts_that_other_programs_left_beside_are_passed_over(tmp_path):
    (tmp_path / "._a.part.jsonl").write_bytes(b"\0\5\26\7")
    assert list(recover(tmp_path)) == [] and list(recover(tmp_path / "missing")) == []


# Neighbours -------------------------------------------------------------------------------------------------


def test_a_clip_that_cannot_be_recovered_keeps_no_other_from_it_and_is_a_warning(tmp_path, parts, caplog):
    (tmp_path / "0.part.jsonl").mkdir()
    put(parts, tmp_path, "1")
    with caplog.at_level(logging.INFO, "worldplay"):
        log_recovered(tmp_path)
    first, second = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert first.levelname == "WARNING" and "cannot be recovered" in first.message
    assert "\n" not in first.message
    assert second.levelname == "INFO" and "recovered" in second.message and (tmp_path / "1.mp4").is_file()


def test_a_folder_that_cannot_be_listed_is_a_warning(caplog):
    log_recovered(Path("x" * 300))
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "too long" in caplog.text


def test_a_finished_clip_of_the_same_name_is_never_replaced(tmp_path, parts):
    shown = record(tmp_path / "a", 5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for _ in range(2):
        put(parts, tmp_path)
        [made] = recover(tmp_path)
        check_whole(made.path, made.num_frames)
    assert made.path == tmp_path / "a-3" and len(shown) == read_clip(tmp_path / "a").num_frames
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_parts_are_locked_until_their_clip_is_in_its_place(tmp_path, parts, monkeypatch):
    put(parts, tmp_path)
    replace, others = os.replace, []

    def watched(source, target):
        with open(tmp_path / "a.part.jsonl", "a") as file:
            others.append(lock(file))
        replace(source, target)
    monkeypatch.setattr(clip_recovery.os, "replace", watched)
    [made] = recover(tmp_path)
    assert others == [False, False] and made.num_frames >= 35


def test_two_programs_that_recover_at_once_make_one_clip_of_each(tmp_path, parts):
    for i in range(6):
        put(parts, tmp_path, f"clip{i}")
    code = (f"from worldplay.data.clip_recovery import recover\n"
            f"print(sum(made.num_frames > 0 for made in recover({str(tmp_path)!r})))")
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    assert sum(int(program.communicate()[0]) for program in both) == 6
    assert sorted(os.listdir(tmp_path)) == sorted(f"clip{i}.{suffix}" for i in range(6)
                                                  for suffix in ("mp4", "json"))
    for i in range(6):
        check_whole(tmp_path / f"clip{i}", read_clip(tmp_path / f"clip{i}").num_frames)


def test_a_writer_keeps_its_parts_locked_until_it_has_finished(tmp_path, monkeypatch):
    seen = []

    def finish(path, **options):
        with open(tmp_path / "a.part.jsonl", "a") as file:
            seen.append(lock(file))
        return finish_parts(path, **options)
    monkeypatch.setattr(clip_writer, "finish_parts", finish)
    record(tmp_path / "a", 3)
    assert seen == [False] and sorted(os.listdir(tmp_path)) == ["a.json", "a.mp4"]


def test_where_files_cannot_be_locked_nothing_is_recorded_and_nothing_left_behind(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError("a.part.jsonl: cannot be locked")
    monkeypatch.setattr(clip_writer, "lock", refuse)
    with pytest.raises(OSError, match="cannot be locked"):
        ClipWriter(tmp_path / "a", describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
    assert not list(tmp_path.iterdir())


def test_remains_of_the_same_name_are_not_written_over(tmp_path, parts):
    put(parts, tmp_path)
    with pytest.raises(OSError, match=r"a\.part\.jsonl belongs to a recording .* give another name"):
        ClipWriter(tmp_path / "a", describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
    [made] = recover(tmp_path)
    assert made.num_frames >= 35


# A full disk, a folder that goes ---------------------------------------------------------------------------


def write(folder, name, num_frames=3):
    writer = ClipWriter(folder / name, describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
    for _ in range(num_frames):
        writer.add(FakeWorld().reset()[0], 0, Action(), {})
    writer.finish()
    writer.wait()
    return writer


def test_recovery_waits_for_room_and_later_clips_are_tried(tmp_path, parts, monkeypatch):
    put(parts, tmp_path, "1")
    put(parts, tmp_path, "2")
    big = tmp_path / "1.part.mp4"
    with open(big, "ab") as file:
        file.truncate(40 * 2**20)  # a hole: it takes no room itself
    size = big.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: DISK._replace(free=10 * 2**20))
    first, second = recover(tmp_path)
    assert second.num_frames >= 35 and not first.num_frames
    assert f"the disk of {tmp_path} has 31 MiB too little free" in str(first) and big.stat().st_size == size
    monkeypatch.undo()
    [made] = recover(tmp_path)
    assert made.num_frames >= 35


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_the_end_leaves_a_recording_that_becomes_a_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_writer, "finish_parts", full)
    said = str(write(tmp_path, "a").error)
    assert f"the disk of {tmp_path} is full; what was written becomes a clip when play next records" in said
    assert "once 1 MiB are free" in said
    [made] = recover(tmp_path)
    assert made.num_frames == 3 and read_clip(made.path).num_frames == 3


def test_a_disk_that_is_full_from_the_beginning_leaves_nothing_behind(tmp_path, monkeypatch):
    for name in ("_write_line", "_encode"):
        with monkeypatch.context() as patched:
            patched.setattr(ClipWriter, name, full)
            try:
                error = write(tmp_path, "a").error
            except OSError as raised:
                error = raised
        assert "No space left" in str(error) and "nothing was saved" in str(error)
        assert os.listdir(tmp_path) == []


def test_a_folder_that_is_removed_meanwhile_promises_no_recovery(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    writer = ClipWriter(folder / "a", describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
    writer.add(FakeWorld().reset()[0], 0, Action(), {})
    shutil.rmtree(folder)
    writer.finish()
    writer.wait()
    assert str(writer.error) == f"recording a is lost: its folder {folder} was removed while it was written"


@pytest.mark.parametrize("error", [RuntimeError("no such luck"), MemoryError(), ValueError("odd")])
def test_whatever_stops_the_thread_is_said_and_nobody_waits_for_it(tmp_path, monkeypatch, error):
    def fail(self, fields):
        if "step" in fields:
            raise error
        write_line(self, fields)
    write_line = ClipWriter._write_line
    monkeypatch.setattr(ClipWriter, "_write_line", fail)
    monkeypatch.setattr(clip_writer, "MAX_QUEUED_BYTES", 1)
    writer = write(tmp_path, "a", num_frames=100)  # more than are queued
    assert not writer.is_busy and (str(error) or "MemoryError") in str(writer.error)


def test_a_clip_of_fewer_frames_than_were_shown_is_said_to_be_damaged(tmp_path, monkeypatch):
    def finish(made):
        monkeypatch.setattr(clip_writer, "finish_parts", lambda path, **_: made)
        return str(write(tmp_path, made.path.name).error)
    assert finish(Finished(tmp_path / "torn", 2)) == "recording torn is damaged: 2 of its 3 frames were saved"
    assert finish(Finished(tmp_path / "lost", 0, tmp_path / DAMAGED)).endswith(
        f"0 of its 3 frames were saved; all that was written is kept in {tmp_path / DAMAGED}")


def test_an_hour_of_frames_is_finished_line_by_line(tmp_path, parts, monkeypatch):
    """No list of all frames or actions is made while a clip is finished by its writer."""
    put(parts, tmp_path)
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: loads(text) if len(text) < 5000
                        else pytest.fail(
        "a text of the size of the whole clip was read at once"))
    assert finish_parts(tmp_path / "a", is_torn=False).num_frames >= 35
