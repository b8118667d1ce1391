"""Clips: written equal to read, aligned, recovered when torn, played back as a World."""
import base64
import json
import shutil
import threading
import tracemalloc
import zlib
from pathlib import Path

import av
import numpy as np
import pytest

from tests.client.fake_worlds import SPACE, FakeWorld, keys_shown
from tests.client.tape import Tape
from worldplay.action import Action
from worldplay.client.worker import Reset
from worldplay.data.clip import MAX_START_BYTES, Clip, ClipWorld, read_clip
from worldplay.data.clip_recovery import check_target, target_of
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.data.video import open_video
from worldplay.errors import WorldError
from worldplay.world import check_world

# a kilobyte that unpacks to a megabyte of zeros
ZEROS = base64.b64encode(zlib.compress(bytes(2**20), 9)).decode()


def action_at(i):
    return Action(frozenset([SPACE.keys[i % 4]]), (0.1 * i - 3.7, 0.0))


def record(path, num_steps, *, begin_at=0, world=None, actions=None):
    """Play and record a fake world from step `begin_at` on; returns every frame shown, the start first."""
    world, actions = world or FakeWorld(), actions or [action_at(i) for i in range(num_steps)]
    recorder = Tape(world)
    shown = list(world.reset())
    recorder.begin(Reset(), np.stack(shown))
    for i in range(num_steps):
        if i == begin_at:
            recorder.start(path)
        recorder.step(actions[i])
        for frame in world.step(actions[i]):
            shown.append(frame)
            recorder.frame(frame, {"ready_ms": 50.0 * i, "steps": 2, "path": "eager"})
    assert [writer.error for writer in recorder.close()] == [None]
    return shown


def test_a_clip_reads_back_what_was_played(tmp_path):
    shown = record(tmp_path / "a", 30)
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.actions == [Action()] + [action_at(i) for i in range(30)], "actions come back exactly"
    read = list(clip.frames())
    assert len(read) == clip.num_frames == 31
    difference = np.abs(np.stack(read).astype(int) - np.stack(shown)).mean((1, 2, 3))
    assert difference.max() < 4, f"the video is lossy but near: {difference.max()}"
    assert not list(tmp_path.glob("*.part.*"))


@pytest.mark.parametrize("begin_at", [0, 1, 7, 19])
def test_every_frame_is_shown_because_of_its_action(tmp_path, begin_at):
    record(tmp_path / "a", 20, begin_at=begin_at)
    clip = read_clip(tmp_path / "a")
    assert clip.sidecar["recorded"] == [begin_at, 21]
    actions = clip.actions
    assert len(actions) == 21, "all actions since the reset, also those before the recording"
    for entry, frame in zip(clip.sidecar["frames"], clip.frames(), strict=True):
        assert keys_shown(frame) == actions[entry["step"]].keys


def test_the_frames_of_one_latent_share_their_action(tmp_path):
    record(tmp_path / "a", 6, world=FakeWorld(frames=4))
    clip = read_clip(tmp_path / "a")
    steps = [entry["step"] for entry in clip.sidecar["frames"]]
    assert steps == [0] + [i for i in range(1, 7) for _ in range(4)]
    world = ClipWorld(tmp_path / "a.mp4")
    world.reset()
    assert [len(list(world.step(Action()))) for _ in range(6)] == [4] * 6


def test_the_sidecar_says_enough_to_replay(tmp_path):
    record(tmp_path / "a", 3)
    sidecar = json.loads((tmp_path / "a.json").read_text())
    assert sidecar["world"] == "fake" and sidecar["scene"] == "one" and sidecar["seed"] == 0
    assert sidecar["world_hash"] == "f00d" and sidecar["start"] is None and sidecar["video"]["lossy"] is True
    assert sidecar["versions"]["worldplay"] and sidecar["fps"] == 20.0
    assert sidecar["frames"][1] == {"step": 1, "ready_ms": 0.0, "steps": 2, "path": "eager"}


def test_start_frames_of_a_picture_come_back_exactly(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), np.uint8)
    writer = ClipWriter(tmp_path / "a", describe(FakeWorld(), start=frames), actions=[Action()], first=0)
    writer.add(frames[0], 0, Action(), {})
    writer.finish()
    writer.wait()
    assert np.array_equal(read_clip(tmp_path / "a").start, frames)


def test_playback_is_a_world(tmp_path):
    record(tmp_path / "a", 20)
    world = ClipWorld(tmp_path / "a.mp4")
    check_world(world)
    assert not {"env", "seed", "steps", "world_hash"} & set(world.info), "its frames are not the world's own"
    read = list(read_clip(tmp_path / "a").frames())
    played = [*world.reset(), *(frame for i in range(20) for frame in world.step(Action()))]
    assert np.array_equal(played, read)
    with pytest.raises(WorldError) as over:
        next(world.step(Action()))
    assert over.value.kind == "ended"
    with pytest.raises(WorldError, match="one start"):
        world.reset("elsewhere")


def test_add_does_not_wait_for_the_encoder_and_nothing_is_dropped(tmp_path, monkeypatch):
    write_line, may_write = ClipWriter._write_line, threading.Event()

    def slow(self, fields):
        if "step" in fields:
            may_write.wait()
        write_line(self, fields)
    monkeypatch.setattr(ClipWriter, "_write_line", slow)
    world = FakeWorld()
    writer = ClipWriter(tmp_path / "a", describe(world, scene="one"), actions=[Action()], first=0)
    frame = world.reset()[0]
    for i in range(40):
        writer.add(frame, i, Action(), {})
    may_write.set()  # every `add` has returned before anything was written
    writer.finish()
    writer.wait()
    assert writer.error is None and read_clip(tmp_path / "a").num_frames == 40


def test_bad_files_are_named_in_one_line(tmp_path):
    with pytest.raises(WorldError, match="a.json is missing"):
        read_clip(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.json").write_text("[1, 2")
    with pytest.raises(WorldError, match="not the sidecar"):
        read_clip(tmp_path / "a.mp4")
    (tmp_path / "a.json").write_text(json.dumps({"format": "worldplay clip", "version": 99}))
    with pytest.raises(WorldError, match="newer"):
        read_clip(tmp_path / "a.mp4")


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_damaged_video_plays_to_the_damage_and_is_named(tmp_path, kept):
    shown = record(tmp_path / "a", 30)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[:round(kept * len(data))])
    clip, read = read_clip(tmp_path / "a"), []
    with pytest.raises(WorldError, match=r"a\.mp4: its video is damaged.* of 31; restore it") as error:
        for frame in clip.frames():
            read.append(frame)
    assert error.value.kind == "bad_scene" and len(read) < 31
    assert f" after frame {len(read)} of" in str(error.value)
    assert all(np.abs(a.astype(int) - b).mean() < 4 for a, b in zip(read, shown)), "no frame is shown torn"
    world, watched = ClipWorld(tmp_path / "a"), []
    with pytest.raises(WorldError, match="its video is damaged") as error:
        watched += list(world.reset())
        for _ in range(31):
            for frame in world.step(Action()):
                watched.append(frame)
    assert error.value.kind == "bad_scene" and len(watched) == (len(read) if len(read) > 1 else 0)


def test_a_video_without_frames_or_of_another_clip_is_damage(tmp_path):
    record(tmp_path / "a", 5)
    for name, steps in (("short", 3), ("long", 9)):
        record(tmp_path / name, steps)
        shutil.copy(tmp_path / f"{name}.mp4", tmp_path / "a.mp4")
        with pytest.raises(WorldError, match=rf"damaged after frame {steps + 1} of 6"):
            list(read_clip(tmp_path / "a").frames())
    with open_video(tmp_path / "a.mp4", "w") as file:  # sound alone
        stream = file.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 48000
        file.mux([*stream.encode(sound), *stream.encode()])
    with pytest.raises(WorldError, match="damaged .* after frame 0 of 6"):
        ClipWorld(tmp_path / "a").reset()


@pytest.mark.parametrize("changes", [
    *({name: None} for name in ("action_space", "actions", "frame_size", "fps", "frames", "info",
                                 "recorded")),
    {"frame_size": [96]}, {"fps": 0}, {"fps": "x"}, {"actions": [3]}, {"actions": [[["w"], 0.0]]},
    {"frames": []}, {"recorded": [0, 7]}, {"recorded": ["a", "b"]}, {"info": [1]},
    {"info": {"prompt": 5}},
    {"start": {"shape": [1], "zlib": "eA=="}}, {"start": {"shape": [1, 9, 9, 3], "zlib": ZEROS}},
    {"fps": float("nan")}, {"frame_size": [96.0, 128.0]}, {"frames": [{"step": 0.0}], "recorded": [0, 1]},
    {"start": {"shape": [2**40], "zlib": ZEROS}}, {"start": {"shape": [1, 96, 128, 3], "zlib": ZEROS}},
    {"info": {"frames_per_chunk": 0}}, {"info": {"frames_per_chunk": None}},
    {"action_space": {"keys": ["nokey"], "look_limit": 1.0, "look_axes": 1}},
    {"prompts": [[1]]}, {"prompts": 3}, {"prompts": [[2, "a garden"]]},
    *({"prompts": [[step, "a garden"]], "info": {"prompt": "a hall"}} for step in (0, 6)),
])
def test_a_damaged_sidecar_is_one_line(tmp_path, changes):
    record(tmp_path / "a", 5)
    fields = json.loads((tmp_path / "a.json").read_text())
    for name in changes.keys() - {"prompts"}:  # older clips have none
        (tmp_path / "a.json").write_text(json.dumps({key: fields[key] for key in fields if key != name}))
        with pytest.raises(WorldError, match=f"a.json is damaged .*'{name}' is missing"):
            read_clip(tmp_path / "a")
    (tmp_path / "a.json").write_text(json.dumps(fields | changes))
    with pytest.raises(WorldError, match=r"clip .*a: a\.json is damaged \(.*\); restore") as error:
        read_clip(tmp_path / "a")
    assert error.value.kind == "bad_scene" and "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["mp4", "json"])
def test_a_folder_in_the_place_of_a_clip_is_refused_at_the_start(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").mkdir()
    with pytest.raises(OSError, match=rf"a\.{suffix}: it is a folder; give another name"):
        ClipWriter(tmp_path / "a", describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"], "nothing is left behind"


# Names and sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["12:30", "file:z", "d:1/y", "http:x", "a%03d", "a b'c", "-o", "pipe:1",
                                  "concat:a|b",
                                  "12.30", "a.mp4", "[x]*?", "caf\u00e9", ".hidden"])
def test_a_clip_may_have_any_name_that_a_file_can_have(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    record(path, 4)
    assert sorted(file.name for file in path.parent.iterdir()) == [f"{path.name}.json", f"{path.name}.mp4"]
    assert len(list(read_clip(f"{name}.mp4").frames())) == 5


@pytest.mark.parametrize("size", [(95, 127), (95, 128), (96, 127), (1, 1)])
def test_frames_of_odd_size_are_padded_in_the_video_and_cropped_when_read(tmp_path, size):
    world = FakeWorld()
    world.frame_size = size
    writer = ClipWriter(tmp_path / "a", describe(world, scene="one"), actions=[Action()], first=0)
    rng = np.random.default_rng(0)
    frames = np.broadcast_to(rng.integers(0, 256, (5, 1, 1, 3)), (5, *size, 3)).astype(np.uint8)
    for frame in frames:
        writer.add(frame, 0, Action(), {})
    writer.finish()
    writer.wait()
    assert writer.error is None
    clip = read_clip(tmp_path / "a")
    assert clip.sidecar["frame_size"] == list(size)
    height, width = clip.sidecar["video"]["padded_size"]
    assert (height % 2, width % 2) == (0, 0) and 0 <= height - size[0] <= 1 and 0 <= width - size[1] <= 1
    read = np.stack(list(clip.frames()))
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 6, "also along the padded edge"
    shown = ClipWorld(tmp_path / "a").reset()
    assert shown.shape == (1, *size, 3) and shown.flags.c_contiguous


def test_a_video_of_another_size_than_its_sidecar_says_is_damage(tmp_path):
    record(tmp_path / "a", 5)
    fields = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(fields | {"frame_size": [200, 128]}))
    with pytest.raises(WorldError, match="a frame has 96 rows and 128 columns, its .json says 200 and 128.* "
                                         "after frame 0 of 6"):
        list(read_clip(tmp_path / "a").frames())


def test_a_clip_is_never_replaced_unless_that_is_asked_for(tmp_path):
    record(tmp_path / "a", 5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for begin in (lambda: record(tmp_path / "a", 3), lambda: target_of(tmp_path / "a.mp4")):
        with pytest.raises(FileExistsError, match=r"a\.mp4 is there already; give another name, or "
                                                  r"--overwrite"):
            begin()
        assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(FileExistsError, match=r"a\.json is there already"):
        check_target(tmp_path / "a")
    record(tmp_path / "b", 3)
    assert target_of(tmp_path / "b.mp4", overwrite=True) == tmp_path / "b"
    writer = ClipWriter(tmp_path / "b", describe(FakeWorld(), scene="one"), actions=[Action()], first=0,
                        overwrite=True)
    writer.add(FakeWorld().reset()[0], 0, Action(), {})
    assert read_clip(tmp_path / "b").num_frames == 4, "the old one stays until the new one is whole"
    writer.finish()
    writer.wait()
    assert read_clip(tmp_path / "b").num_frames == 1


def test_a_clip_that_came_meanwhile_is_not_replaced_either(tmp_path):
    writer = ClipWriter(tmp_path / "a", describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
    writer.add(FakeWorld().reset()[0], 0, Action(), {})
    record(tmp_path / "other", 5)
    for suffix in ("mp4", "json"):
        (tmp_path / f"other.{suffix}").rename(tmp_path / f"a.{suffix}")
    writer.finish()
    writer.wait()
    assert writer.error is None and writer.path == tmp_path / "a-2"
    assert [read_clip(tmp_path / name).num_frames for name in ("a", "a-2")] == [6, 1]


@pytest.mark.parametrize("name", ["x.mkv", "x", "x.MP4.avi", "x.json"])
def test_an_output_with_another_ending_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="expected a name that ends in .mp4"):
        target_of(tmp_path / name)


def test_start_frames_unpack_to_no_more_than_they_say(tmp_path):
    record(tmp_path / "a", 3)
    fields = json.loads((tmp_path / "a.json").read_text())
    bomb = base64.b64encode(zlib.compress(bytes(2**28), 9)).decode()
    fields["start"] = {"shape": [1, 96, 128, 3], "zlib": bomb}
    assert 2**28 >= MAX_START_BYTES
    (tmp_path / "a.json").write_text(json.dumps(fields))
    tracemalloc.start()
    with pytest.raises(WorldError, match="a.json is damaged"):
        read_clip(tmp_path / "a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24, f"{peak} bytes"


@pytest.mark.parametrize("steps, ends", [
    ([0, 1, 2, 3], [0, 1, 2, 3]), ([0, 1, 1, 1, 2, 2, 2], [0, 3, 3, 3, 6, 6, 6]),
    ([0, 1, 1, 1, 2, 2], [0, 3, 3, 3, 3, 3]), ([3, 4, 4, 4], [0, 3, 3, 3]), ([7], [0])])
def test_where_the_step_of_a_frame_ends(steps, ends):
    clip = Clip(Path("a.mp4"), {"frames": [{"step": step} for step in steps]})
    assert [clip.step_end(i) for i in range(len(steps))] == ends
