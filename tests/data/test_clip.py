"""Clips: written equal to read, aligned, recovered when torn, played back as a World."""
import json
import shutil
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from tests import ROOT
from tests.client.fake_worlds import SPACE, FakeWorld, keys_shown
from worldplay.action import Action
from worldplay.client.recorder import Recorder
from worldplay.client.worker import Reset
from worldplay.data.clip import ClipWorld, ClipWriter, describe, read_clip
from worldplay.data.clip_recovery import finish_parts, recover
from worldplay.errors import WorldError
from worldplay.world import check_world


def action_at(i):
    return Action(frozenset([SPACE.keys[i % 4]]), (0.1 * i - 3.7, 0.0))


def record(path, num_steps, *, begin_at=0, world=None, actions=None):
    """Play and record a fake world from step `begin_at` on; returns every frame shown, the start first."""
    world, actions = world or FakeWorld(), actions or [action_at(i) for i in range(num_steps)]
    recorder = Recorder(world)
    shown = list(world.reset())
    recorder.branch(Reset(), np.stack(shown))
    for i in range(num_steps):
        if i == begin_at:
            recorder.start(path)
        recorder.step(actions[i])
        for frame in world.step(actions[i]):
            shown.append(frame)
            recorder.frame(frame, {"ready_ms": 50.0 * i, "steps": 2, "path": "eager"})
    assert [writer.error for writer in recorder.close()] == [None]
    return shown


def decoded(video):
    with av.open(video) as file:
        return list(file.decode(video=0))


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


def test_kill_9_loses_at_most_the_last_second(tmp_path):
    fps = 20
    code = ("import time\nfrom tests.client.fake_worlds import FakeWorld\nfrom tests.data.test_clip import action_at\n"
            "from worldplay.client.recorder import Recorder\nfrom worldplay.client.worker import Reset\n"
            f"world = FakeWorld(fps={fps}.0)\nrecorder = Recorder(world)\n"
            "recorder.branch(Reset(), world.reset())\n"
            f"recorder.start({str(tmp_path / 'a')!r})\n"
            "for i in range(10**6):\n"
            "    recorder.step(action_at(i))\n"
            "    for frame in world.step(action_at(i)): recorder.frame(frame, {})\n"
            f"    print(i, flush=True); time.sleep(1 / {fps})\n")
    player = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    told = next(int(line) for line in player.stdout if int(line) == 55)
    assert list(recover(tmp_path)) == [], "a clip that is being written is left alone"
    player.kill()
    told = max([told, *(int(line) for line in player.stdout)])
    [(path, num_frames, video)] = recover(tmp_path)
    clip = read_clip(path)
    assert video is None and clip.num_frames == num_frames == len(list(clip.frames()))
    assert num_frames > told + 2 - fps, f"{num_frames} frames of {told + 2}"
    assert clip.actions == [Action()] + [action_at(i) for i in range(num_frames - 1)]
    assert list(recover(tmp_path)) == [] and not list(tmp_path.glob("*.part.*"))


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
    time.sleep(0.1)
    copy = tmp_path_factory.mktemp("copy")
    for suffix in ("mp4", "jsonl"):
        shutil.copy(folder / f"a.part.{suffix}", copy)
    writer.finish()
    writer.wait()
    return copy


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.1, 0.35, 0.5, 0.77, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("torn", ["mp4", "jsonl"])
def test_a_torn_file_is_recovered_as_far_as_it_is_whole(tmp_path, parts, torn, kept):
    for file in parts.iterdir():
        data = file.read_bytes()
        cut = round(kept * len(data)) if file.suffix == f".{torn}" else len(data)
        (tmp_path / file.name).write_bytes(data[:cut])
    [(path, num_frames, video)] = recover(tmp_path)
    assert not list(tmp_path.glob("*.part.*"))
    num_filmed = len(decoded(parts / "a.part.mp4"))
    if torn == "jsonl":
        num_kept = len(decoded(video)) if video else num_frames
        assert num_kept >= num_filmed - 1 >= 35, "nothing filmed is lost"
    assert not video or num_frames < num_filmed - 1 and torn == "jsonl"
    if num_frames:
        clip = read_clip(path)
        frames = list(clip.frames())
        assert len(frames) == num_frames == len(clip.sidecar["frames"]) == len(clip.actions)
        assert [keys_shown(frame) for frame in frames] == [action.keys for action in clip.actions]
    assert num_frames >= 60 * kept - 25 and (kept > 0 or num_frames == 0), num_frames


@pytest.mark.parametrize("damage", [b"\0" * 40, b"\0" * 20 + b"\n" + b"\0" * 19, b"\xff" * 40])
def test_a_damaged_line_ends_the_clip_there(tmp_path, parts, damage):
    for file in parts.iterdir():
        shutil.copy(file, tmp_path)
    lines = tmp_path / "a.part.jsonl"
    data = lines.read_bytes()
    at = data.index(b"\n", len(data) // 2) + 1
    lines.write_bytes(data[:at] + damage + data[at + 40:])
    whole = data[:at].count(b"\n") - 1
    [(path, num_frames, video)] = recover(tmp_path)
    assert len(decoded(video)) >= 35 and 10 < num_frames == len(read_clip(path).actions) <= whole
    assert not list(tmp_path.glob("*.part.*"))


def test_nothing_is_dropped_when_the_encoder_is_slow(tmp_path, monkeypatch):
    write_line = ClipWriter._write_line

    def slow(self, fields):
        time.sleep(0.02)
        write_line(self, fields)
    monkeypatch.setattr(ClipWriter, "_write_line", slow)
    world = FakeWorld()
    writer = ClipWriter(tmp_path / "a", describe(world, scene="one"), actions=[Action()], first=0)
    start, frame = time.perf_counter(), world.reset()[0]
    for i in range(40):
        writer.add(frame, i, Action(), {})
    assert time.perf_counter() - start < 0.4, "add does not wait for the encoder"
    writer.finish()
    writer.wait()
    assert read_clip(tmp_path / "a").num_frames == 40


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
    with pytest.raises(ValueError, match="even"):
        ClipWriter(tmp_path / "b", describe(FakeWorld()) | {"frame_size": [95, 128]}, actions=[], first=0)


def test_finishing_twice_is_harmless(tmp_path, parts):
    for file in parts.iterdir():
        shutil.copy(file, tmp_path)
    first = finish_parts(tmp_path / "a")
    assert 35 <= first[0] <= 60 and first[1] is None
    for file in parts.iterdir():  # as if the process had died between the rename and the clean-up
        shutil.copy(file, tmp_path)
    assert finish_parts(tmp_path / "a") == first


@pytest.mark.parametrize("header", [b"", b"\xff\xfe\n", b"3\n", b'{"first": 0}\n', b'{"format": "world'])
def test_a_video_without_its_actions_is_kept_to_be_watched(tmp_path, parts, header):
    for file in parts.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "a.part.jsonl").write_bytes(header)
    (tmp_path / "a.video-1.mp4").write_bytes(b"of another day")
    [(path, num_frames, video)] = recover(tmp_path)
    assert (path, num_frames, video) == (tmp_path / "a", 0, tmp_path / "a.video-2.mp4")
    assert len(decoded(video)) >= 35 and not list(tmp_path.glob("*.part.*"))
    assert (tmp_path / "a.video-1.mp4").read_bytes() == b"of another day"


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
    with av.open(tmp_path / "a.mp4", "w") as file:  # sound alone
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
    {"start": {"shape": [1], "zlib": "eA=="}},
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


def test_a_failed_recording_promises_only_what_will_be(tmp_path, monkeypatch):
    def write(name, finish):
        monkeypatch.setattr("worldplay.data.clip.finish_parts", finish)
        writer = ClipWriter(tmp_path / name, describe(FakeWorld(), scene="one"), actions=[Action()], first=0)
        for _ in range(3):
            writer.add(FakeWorld().reset()[0], 0, Action(), {})
        writer.finish()
        writer.wait()
        return str(writer.error)

    def full(path):
        raise OSError("No space left on device")
    assert "No space left on device; what was written becomes a clip when play next" in write("full", full)
    [(path, num_frames, video)] = recover(tmp_path)
    assert (path.name, num_frames, video) == ("full", 3, None) and read_clip(path).num_frames == 3
    assert write("torn", lambda path: (2, None)) == "recording torn is damaged: 2 of its 3 frames were saved"
    assert write("lost", lambda path: (0, "lost.video-1.mp4")).endswith(
        "0 of its 3 frames were saved; the video alone is kept as lost.video-1.mp4")
