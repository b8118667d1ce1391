"""From recorded clips to a data set: aligned to the frame, split without leaks, refused by name."""
import json
import shutil
from dataclasses import replace

import av
import numpy as np
import pytest

import train_world
from tests import ROOT
from tests.client.fake_worlds import SPACE, FakeWorld, keys_shown
from tests.data.test_clip import action_at, record
from tests.data.test_lerobot import CAMERA, write_folder
from tests.train.test_finetune import MODEL, make_world, tune
from worldplay import runtime
from worldplay.action import Action
from worldplay.cli.play import main as play
from worldplay.data import lerobot, lerobot_writer
from worldplay.data.clip import ClipWorld, read_clip
from worldplay.data.frame_cache import FrameCache, Source, is_held_out
from worldplay.data.pack import LONGEST, SHORTEST, Piece, cut, find_clips, fit_clips, run_pack
from worldplay.engine.loading import load_world
from worldplay.envs import open_env
from worldplay.envs.collect import play_rollout
from worldplay.eval.replay import run_replay
from worldplay.eval.statistics import psnr
from worldplay.worlds.scene import export_scenes, load_scene

GAP = 20  # rows: one second of the fake world


class RealWorld(FakeWorld):
    """The fake world as a real game: no weights made its frames, and it tells where the player is."""

    def __init__(self, **options):
        super().__init__(**options)
        self.info = {"env": "none", "device": "cpu", "path": "game", "seed": 0}

    @property
    def pose(self):
        return np.array([0, 0, 0, -self._yaw], np.float32)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Three clips, the second begun in the middle of its branch; the third is of a real game."""
    folder = tmp_path_factory.mktemp("recorded")
    record(folder / "a", 200)
    record(folder / "b", 97, begin_at=7)
    record(folder / "c", 55, world=RealWorld())
    return folder


@pytest.fixture(scope="module")
def packed(recorded, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "set"
    return out, run_pack([recorded], out=out)


@pytest.fixture
def clips(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "clips")


def change(path, **fields):
    """Other fields in the sidecar of the clip `path`."""
    sidecar = path.with_name(path.name + ".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))


def make_lossless(path, frames):
    """The clip again with exactly these frames, uint8 [n H W 3], in its video."""
    with av.open(str(path.with_name(path.name + ".mp4")), "w") as video:
        stream = video.add_stream("libx264rgb", rate=20, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())
    change(path, video={"lossy": False})


# What is packed ---------------------------------------------------------------------------------------------


def test_a_packed_folder_verifies_and_says_what_it_is(packed, recorded):
    out, made = packed
    lerobot.verify(out)
    opened = lerobot.LeRobotFolder.open(out)
    assert opened.source == Source(name="none", action_space=SPACE, frame_size=(96, 128), fps=20.0)
    assert opened.is_lossy and not opened.has_poses
    assert opened.dreamed == pytest.approx((201 + 91) / (201 + 91 + 56))
    assert [(clip["name"], clip["world_hash"]) for clip in opened.info["worldplay"]["clips"]] == [
        ("a", "f00d"), ("b", "f00d"), ("c", None)]
    facts = lerobot.describe(out)
    assert facts["lossy"] is True and facts["clips"] == 3 and facts["held_out_episodes"] == 1
    for name in ("episodes", "frames", "held_out_episodes", "lossy", "dreamed"):
        assert facts[name] == made[name], name
    assert made["clips"] == 3 and made["minutes"] == pytest.approx(made["frames"] / 20 / 60)


def test_frames_and_actions_are_those_of_the_clip_played_back(packed, recorded):
    out, _ = packed
    rollouts = lerobot.LeRobotFolder.open(out).rollouts()
    pieces = cut([201, 91, 56], GAP)
    for piece, rollout in zip(pieces, rollouts, strict=True):
        path = recorded / "abc"[piece.clip]
        world, clip = ClipWorld(path), read_clip(path)
        shown = [world.reset()[-1], *(frame for _ in range(clip.num_frames - 1)
                                      for frame in world.step(Action()))]
        assert np.array_equal(rollout.frames, np.stack(shown[piece.start:piece.stop]))
        assert not rollout.actions[0].any() and rollout.poses is None
        steps = [record["step"] for record in clip.sidecar["frames"]][piece.start:piece.stop]
        for frame, vector, step in list(zip(rollout.frames, rollout.actions, steps))[1:]:
            assert np.array_equal(vector, SPACE.encode(clip.actions[step]))
            assert keys_shown(frame) == SPACE.decode(vector).keys
        assert is_held_out(rollout.seed) == piece.is_held_out


def test_every_row_holds_the_action_that_causes_the_next_frame(packed, recorded):
    import pyarrow.parquet as pq
    out, _ = packed
    table = pq.read_table(out / "data/chunk-000/file-000.parquet").to_pydict()
    first = cut([201, 91, 56], GAP)[0]
    expected = [SPACE.encode(action_at(i)) for i in range(first.start, first.stop)]
    assert np.array_equal(np.array(table["action"][:len(expected)], np.float32), np.stack(expected))


def test_clips_of_odd_size_are_packed_as_they_were_shown(tmp_path):
    world = RealWorld()
    world.frame_size = (95, 127)
    record(tmp_path / "a", 160, world=world)
    (tmp_path / "._a.mp4").write_bytes(b"left by another program")
    made = run_pack([tmp_path], out=tmp_path / "set")
    assert lerobot.verify(tmp_path / "set").num_frames == made["frames"] > 100
    first = next(lerobot.LeRobotFolder.open(tmp_path / "set").rollouts())
    shown = list(read_clip(tmp_path / "a").frames())
    assert np.array_equal(first.frames, shown[:len(first.frames)]) and first.frames.shape[1:] == (95, 127, 3)


def test_the_frames_of_one_latent_share_their_action(tmp_path):
    record(tmp_path / "a", 60, world=FakeWorld(frames=4))
    run_pack([tmp_path / "a"], out=tmp_path / "set")
    first = next(lerobot.LeRobotFolder.open(tmp_path / "set").rollouts())
    shared = [action_at(i // 4).keys for i in range(8)]
    assert [SPACE.decode(vector).keys for vector in first.actions[1:9]] == shared


def test_the_latents_of_one_step_share_its_turn(tmp_path):
    """In steps every latent of a chunk has its share of the action; in a rollout it has one of its own."""
    world, actions = FakeWorld(frames=4), [Action({"w"}, (8, 0))] * 40
    world.info["frames_per_chunk"] = 4
    record(tmp_path / "a", 40, world=world, actions=actions)
    for is_rollout, turn in ((False, 2), (True, 8)):
        change(tmp_path / "a", is_rollout=is_rollout)
        run_pack([tmp_path / "a"], out=tmp_path / f"set-{turn}")
        first = next(lerobot.LeRobotFolder.open(tmp_path / f"set-{turn}").rollouts())
        assert {SPACE.decode(vector).keys for vector in first.actions[1:]} == {frozenset("w")}
        np.testing.assert_allclose(first.actions[1:, len(SPACE.keys)] * SPACE.look_limit, turn, rtol=1e-6)


def test_a_lossless_clip_gives_the_rows_that_collecting_gives(tmp_path):
    played = play_rollout(RealWorld(), num_frames=150, seed=5)
    actions = [SPACE.decode(vector) for vector in played.actions[1:]]
    path = tmp_path / "a"
    record(path, 149, world=RealWorld(), actions=actions)
    make_lossless(path, played.frames)
    made = run_pack([path], out=tmp_path / "packed")
    assert not made["lossy"] and made["dreamed"] == 0
    pieces = cut([150], GAP)
    for piece, rollout in zip(pieces, lerobot.LeRobotFolder.open(tmp_path / "packed").rollouts(),
                              strict=True):
        writer = lerobot_writer.ShardWriter(tmp_path / "collected",
                                     lerobot.LeRobotFolder.open(tmp_path / "packed").source,
                                     shard=piece.start, player="explorer")
        rows = slice(piece.start, piece.stop + 1)
        writer.add(replace(played, **{name: getattr(played, name)[rows]
                                      for name in ("frames", "actions", "poses")}))
        episode, = writer.close().episodes
        assert episode["frames_crc32"] == lerobot.zlib.crc32(np.ascontiguousarray(rollout.frames))
        expected = played.actions[rows][:-1].copy()
        expected[0] = 0
        assert np.array_equal(rollout.actions, expected)


def test_the_layout_is_that_of_a_collected_folder_without_poses(packed, tmp_path):
    out, _ = packed
    collected = write_folder(tmp_path / "noise")

    def keys(folder):
        info = json.loads((folder / "meta/info.json").read_text())
        features = info["features"].keys() - {"observation.state"}
        episodes = lerobot.LeRobotFolder.open(folder).episodes
        return info.keys(), info["worldplay"].keys(), features, episodes[0].keys()
    assert keys(out) == keys(collected)
    assert (out / f"videos/{CAMERA}/chunk-000/file-000.mp4").is_file() and not list(out.rglob("*.tmp"))


def test_the_frame_cache_has_no_poses_rather_than_wrong_ones(packed, tmp_path):
    out, made = packed
    lerobot.decode_to_cache(lerobot.LeRobotFolder.open(out), tmp_path / "cache")
    cache = FrameCache.open(tmp_path / "cache")
    assert cache.poses is None and cache.is_lossy and len(cache.frames) == made["frames"]
    export_scenes(cache, tmp_path / "scenes", "none")
    scenes = [load_scene(path, (96, 128)) for path in sorted((tmp_path / "scenes").glob("*.safetensors"))]
    assert len(scenes) == 6, "one held-out episode has several places to start from"
    assert all(scene.poses is None and scene.origin == {} for scene in scenes)
    (start, length, _), = cache.split("held_out")
    held_out = {frame.tobytes() for frame in cache.frames[start:start + length]}
    assert all(frame.tobytes() in held_out for scene in scenes for frame in scene.frames)


# The split --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[1050] * 5, [300], [40, 40], [63_000], [2_000, 40, 700, 33], [34] * 60])
def test_every_twentieth_is_held_out_and_touches_nothing_of_its_recording(lengths):
    pieces = cut(lengths, GAP)
    held_out = [piece for piece in pieces if piece.is_held_out]
    assert len(held_out) == max(1, round(len(pieces) / 20)) < len(pieces)
    for piece in pieces:
        assert SHORTEST <= piece.stop - piece.start < 2 * LONGEST and piece.stop < lengths[piece.clip]
        for other in pieces:
            if other is not piece and other.clip == piece.clip:
                apart = max(other.start - piece.stop, piece.start - other.stop)
                assert apart >= (GAP if piece.is_held_out or other.is_held_out else 0)
    assert pieces == cut(lengths, GAP)
    rows = sum(piece.stop - piece.start for piece in pieces)
    assert rows >= sum(length - 1 for length in lengths) - 2 * GAP * len(held_out), "nothing else is left out"


def test_five_clips_of_a_minute_are_twenty_episodes():
    assert cut([1051] * 5, 18)[-2:] == [Piece(4, 525, 787), Piece(4, 787 + 18, 1050, True)]
    assert len(cut([1051] * 5, 18)) == 20


def test_the_two_sides_of_one_recording_hold_no_frame_in_common(recorded, tmp_path):
    run_pack([recorded / "a"], out=tmp_path / "set")
    sides = {True: set(), False: set()}
    for rollout in lerobot.LeRobotFolder.open(tmp_path / "set").rollouts():
        sides[is_held_out(rollout.seed)] |= {frame.tobytes() for frame in rollout.frames}
    assert sides[True] and not sides[True] & sides[False]


# Refusals ---------------------------------------------------------------------------------------------------


def shorten(path):
    path.write_bytes(path.read_bytes()[:-3000])


def edit(name, **fields):
    return lambda folder: change(folder / name, **fields)


def other_action(keys, yaw):
    def damage(folder):
        actions = json.loads((folder / "b.json").read_text())["actions"]
        change(folder / "b", actions=[*actions[:-1], [keys, yaw, 0]])
    return damage


def leave_out_a_step(folder):
    frames = json.loads((folder / "b.json").read_text())["frames"]
    change(folder / "b", frames=[record | {"step": max(0, record["step"] - 2)} if i < 9 else record
                                 for i, record in enumerate(frames)])


def copy_of_a(folder):
    for suffix in (".mp4", ".json"):
        shutil.copy(folder / f"a{suffix}", folder / f"d{suffix}")


@pytest.mark.parametrize("damage, said", [
    (lambda folder: (folder / "b.json").unlink(), "b: b.json is missing"),
    (lambda folder: (folder / "b.mp4").unlink(), "b: b.mp4 is missing"),
    (lambda folder: shorten(folder / "b.mp4"), "b.mp4: its video is damaged"),
    (lambda folder: shutil.copy(folder / "c.mp4", folder / "b.mp4"),
     "b.mp4: its video is damaged after frame 56"),
    (lambda folder: (folder / "b.json").write_text("{"), "b.json is not the sidecar"),
    (lambda folder: (folder / "b.part.jsonl").touch(), "b: is still being recorded, or was cut off"),
    (lambda folder: (folder / "e.part.mp4").touch(), "e: e.json is missing"),
    (edit("b", recorded=[7, 97]), "b.json is damaged"),
    (edit("b", frame_size=[48, 64]), "b.mp4: its video is damaged (a frame has 96 rows and 128 columns, its "
                                     ".json says 48 and 64)"),
    (edit("b", env=None), "b: its .json names no environment"),
    (edit("b", env="other"), "b: its environment is other, but none in a"),
    (edit("b", fps=10.0), "b: its frames a second are 10.0, but 20.0 in a"),
    (edit("b", action_space=replace(SPACE, keys=(*SPACE.keys, "e")).to_json()),
     "b: its keys are w a s d mouse_left e"),
    (edit("b", action_space=replace(SPACE, look_limit=15.0).to_json()),
     "b: its look limit is 15.0, but 12.0"),
    (edit("b", info={"path": "playback"}), "b: was recorded from a recording"),
    (other_action(["q"], 0), "b: this world has no key 'q'"),
    (other_action([], float("nan")), "b: an action in its .json turns by no number"),
    (leave_out_a_step, "b: its .json leaves out steps"),
    (copy_of_a, "d: shows the same as a"),
    (lambda folder: record(folder / "d", 20), "d: 21 frames, expected more than 32"),
])
def test_a_clip_that_is_not_fit_is_refused_by_name_before_anything_is_written(clips, damage, said):
    damage(clips)
    with pytest.raises(ValueError,
                       match="^1 of [34] clips cannot be packed, and nothing was written: ") as caught:
        run_pack([clips], out=clips / "set")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not (clips / "set").exists()


def test_of_many_the_first_three_are_named(clips):
    for name in "defgh":
        (clips / f"{name}.mp4").touch()
    said = r"^5 of 8 clips cannot .* \(1\) .*/d: .* \(2\) .*/e: .* \(3\) .*/f: .*; and 2 more$"
    with pytest.raises(ValueError, match=said):
        run_pack([clips], out=clips / "set")


def test_what_is_there_is_not_written_over(packed, recorded):
    out, _ = packed
    with pytest.raises(ValueError, match="already holds something"):
        run_pack([recorded], out=out)


def test_a_folder_that_cannot_be_made_is_named(recorded, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="the data set cannot be written to .*file/set .* name another folder"):
        run_pack([recorded], out=tmp_path / "file" / "set")


def test_too_little_says_how_much_it_takes(tmp_path):
    record(tmp_path / "a", 60)
    with pytest.raises(ValueError, match="one clip of 61 frames: .*record at least 145 frames"):
        run_pack([tmp_path], out=tmp_path / "set")
    assert len(cut([145], GAP)) == 2


def test_clips_are_found_by_any_of_their_names_once(clips, tmp_path):
    assert find_clips([clips]) == [clips / "a", clips / "b", clips / "c"]
    named = [clips / "c.mp4", clips, clips / "a.json", clips / "b"]
    assert find_clips(named) == [clips / "c", clips / "a", clips / "b"]
    assert [clip.path.name for clip in fit_clips(find_clips([clips / "b"]))] == ["b.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no clips; record some"):
        find_clips([tmp_path / "empty"])
    with pytest.raises(ValueError, match="no clips given"):
        find_clips([])


# What trains on them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder_share", [0.2, 0])
def test_a_world_learns_from_them_and_says_whose_codec_it_has(packed, tmp_path, monkeypatch, caplog,
                                                              decoder_share):
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "longer than the training"))
    caplog.set_level("INFO", "worldplay")
    world = make_world(tmp_path / "world", frame_size=(96, 128), fps=20.0,
                       transformer=replace(MODEL, patch_size=(1, 4, 4)))
    assert tune(tmp_path / "run", world, packed[0], monkeypatch, student_share=0, decoder_share=decoder_share)
    tuned = load_world(tmp_path / "run", device="cpu")
    assert tuned.action_space == SPACE and len(tuned.scenes) == 6
    is_said = "for you to play and not to ship" in caplog.text
    assert tuned.config.lossy_codec == bool(decoder_share) == is_said
    tuned.reset()
    assert len(list(tuned.step(Action({"w"})))) == 1


def test_no_codec_is_trained_on_lossy_clips(packed, tmp_path, capsys):
    flags = ["--steps", "1", "--env", "none", "--data", str(packed[0]), "--out", str(tmp_path / "run")]
    assert train_world.main(["tiny-maze", *flags]) == 2
    assert "recorded clips are lossy, and no codec is trained on them" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_real_game_is_played_recorded_and_made_again_by_its_seed(tmp_path):
    script = ["--script", "w*30, w+look(4,0)*40, idle*5", "--headless", "--seed", "7"]
    assert play([*"doom-maze --real".split(), *script, "--out", str(tmp_path / "a.mp4")]) == 0
    clip = read_clip(tmp_path / "a")
    assert clip.sidecar["world_hash"] is None and clip.sidecar["seed"] == 7
    assert clip.sidecar["env"] == "doom-maze"
    assert run_replay(tmp_path / "a")["is_equal"]
    world = open_env("doom-maze")
    start, frame = world.reset(seed=7)[-1], next(clip.frames())
    world.close()
    assert psnr(start, frame) > 30, "the seed says where it begins"


def test_no_world_that_ships_has_a_codec_of_lossy_clips():
    for config in (ROOT / "checkpoints").glob("*/config.json"):
        assert not json.loads(config.read_text()).get("lossy_codec", False), config
