"""Recorded play on disk: what is written is what is read, bit for bit, and damage is refused in one line."""
import json
import shutil
import sys

import numpy as np
import pytest

from worldplay.action import ActionSpace
from worldplay.data import lerobot
from worldplay.data.frame_cache import FrameCache, Rollout, Source, is_held_out, write_frame_cache
from worldplay.envs.collect import run_collect
from worldplay.errors import WorldError
from worldplay.files import require_space

SOURCE = Source(name="noise", action_space=ActionSpace(("w", "a"), 10.0, look_axes=1), frame_size=(32, 48),
                fps=17.5)
CAMERA = "observation.images.screen"
LENGTHS = (40, 7, 21)
FIRST_SEED = 18


def noise_rollout(length, seed):
    rng = np.random.default_rng(seed)
    actions = np.c_[rng.integers(0, 2, (length, 2)), rng.uniform(-1, 1, length)].astype(np.float32)
    actions[0] = 0
    return Rollout(rng.integers(0, 256, (length, *SOURCE.frame_size, 3), dtype=np.uint8), actions,
                   rng.normal(0, 100, (length, 4)).astype(np.float32), seed)


ROLLOUTS = [noise_rollout(length, FIRST_SEED + i) for i, length in enumerate(LENGTHS)]


def write_folder(folder):
    """Two shards: the first two rollouts, then the third."""
    episodes = []
    for shard, part in enumerate((ROLLOUTS[:2], ROLLOUTS[2:])):
        writer = lerobot.ShardWriter(folder, SOURCE, shard=shard, episode=len(episodes), player="explorer",
                                     row=sum(episode["length"] for episode in episodes))
        for rollout in part:
            writer.add(rollout)
        episodes += writer.close()
    lerobot.finish(folder, SOURCE, episodes, player="explorer")
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "noise")


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "noise")


# --- LeRobot folders

def test_video_is_lossless_and_rows_hold_the_action_taken_at_them(written):
    for read, played in zip(lerobot.LeRobotFolder.open(written).rollouts(), ROLLOUTS, strict=True):
        assert np.array_equal(read.frames, played.frames[:-1])
        assert np.array_equal(read.actions, played.actions[:-1])
        assert np.array_equal(read.poses, played.poses[:-1])
        assert read.seed == played.seed


def test_row_i_is_frame_i_with_the_action_that_causes_frame_i_plus_1(written):
    import pyarrow.parquet as pq
    table = pq.read_table(written / "data/chunk-000/file-000.parquet").to_pydict()
    expected = np.concatenate([rollout.actions[1:] for rollout in ROLLOUTS[:2]])
    assert np.array_equal(np.array(table["action"], np.float32), expected)
    assert table["frame_index"] == [*range(39), *range(6)] and table["episode_index"] == [0] * 39 + [1] * 6
    assert table["timestamp"][:3] == pytest.approx([0, 1 / 17.5, 2 / 17.5])


def test_layout_is_lerobot_v3(written):
    import pyarrow.parquet as pq
    info = json.loads((written / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["total_episodes"] == 3 and info["total_frames"] == 65
    assert info["features"][CAMERA]["dtype"] == "video"
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": ["w", "a", "yaw"]}
    episodes = pq.read_table(written / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [episode["length"] for episode in episodes] == [39, 6, 20]
    for episode in episodes:
        where = {name: episode[f"videos/{CAMERA}/{name}"] for name in ("chunk_index", "file_index")}
        assert (written / info["video_path"].format(video_key=CAMERA, **where)).is_file()
        assert (written / info["data_path"].format(**where)).is_file()
    assert episodes[1][f"videos/{CAMERA}/from_timestamp"] == pytest.approx(39 / 17.5)
    tasks = pq.read_table(written / "meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "explorer plays noise"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert not list(written.rglob("*.tmp"))


def test_every_second_and_every_episode_start_with_a_key_frame(written):
    import av
    with av.open(str(written / f"videos/{CAMERA}/chunk-000/file-000.mp4")) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
        assert container.streams.video[0].average_rate == 17.5
    assert {0, 39} <= set(keys) and np.diff([*keys, 45]).max() <= 18


def test_verify_reads_all_and_describe_counts(written):
    seen = []
    opened = lerobot.verify(written, progress=seen.append)
    assert seen == [39, 6, 20] and opened.num_frames == 65 and opened.source == SOURCE
    told = lerobot.describe(written)
    assert told["frames"] == 65 and told["episodes"] == 3 and told["held_out_episodes"] == 1
    share = np.concatenate([rollout.actions[1:, 0] for rollout in ROLLOUTS]).mean()
    assert told["share_of_frames"]["w"] == pytest.approx(share)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def change_info(key, value):
    def damage(folder):
        path = folder / "meta/info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    return damage


def swap_videos(folder):
    videos = folder / f"videos/{CAMERA}/chunk-000"
    (videos / "file-000.mp4").rename(videos / "kept")
    (videos / "file-001.mp4").rename(videos / "file-000.mp4")
    (videos / "kept").rename(videos / "file-001.mp4")


def change_column(name, change):
    def damage(folder):
        import pyarrow as pa
        import pyarrow.parquet as pq
        path = folder / "data/chunk-000/file-000.parquet"
        table = pq.read_table(path)
        values = change(table[name].to_pylist())
        at = table.column_names.index(name)
        pq.write_table(table.set_column(at, name, pa.array(values, table.schema.field(name).type)), path)
    return damage


def recolour(folder):
    """Another video of the right length: only the checksum can tell."""
    other = write_folder_of([Rollout(255 - r.frames, r.actions, r.poses, r.seed) for r in ROLLOUTS[:2]],
                            folder.with_name("other"))
    name = f"videos/{CAMERA}/chunk-000/file-000.mp4"
    shutil.copy(other / name, folder / name)


def write_folder_of(rollouts, folder):
    writer = lerobot.ShardWriter(folder, SOURCE, shard=0, episode=0, row=0, player="explorer")
    for rollout in rollouts:
        writer.add(rollout)
    lerobot.finish(folder, SOURCE, writer.close(), player="explorer")
    return folder


@pytest.mark.parametrize("damage, said", [
    (lambda folder: (folder / "meta/info.json").unlink(), "no finished data set"),
    (lambda folder: (folder / "meta/info.json").write_text("{"), "info.json: no valid JSON"),
    (change_info("codebase_version", "v2.1"), "format v2.1, expected v3.0"),
    (change_info("total_frames", 66), "says 3 episodes, 66 frames"),
    (lambda folder: (folder / "data/chunk-000/file-001.parquet").unlink(), "file-001.parquet: missing"),
    (lambda folder: cut(folder / "data/chunk-000/file-000.parquet"), "file-000.parquet: unreadable"),
    (lambda folder: (folder / f"videos/{CAMERA}/chunk-000/file-001.mp4").unlink(), "mp4: missing"),
    (lambda folder: cut(folder / f"videos/{CAMERA}/chunk-000/file-001.mp4"), "file-001.mp4"),
    (swap_videos, "episode 0: frame 20 is missing"),
    (recolour, "not those that were recorded"),
    (change_column("action", lambda rows: [[1.5, 0, 0], *rows[1:]]), "not 3 numbers in"),
    (change_column("action", lambda rows: [[float("nan"), 0, 0], *rows[1:]]), "not 3 numbers in"),
    (change_column("frame_index", lambda rows: [1, 0, *rows[2:]]), "out of order"),
    (change_column("timestamp", lambda rows: [2 * time for time in rows]), "time stamps"),
])
def test_verify_refuses_damage_in_one_line_and_repairs_nothing(folder, damage, said):
    damage(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=said) as caught:
        lerobot.verify(folder)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# --- frame cache

def write_cache(folder, num_frames=sum(LENGTHS)):
    return write_frame_cache(iter(ROLLOUTS), folder, world=SOURCE, num_frames=num_frames)


def test_frame_cache_holds_what_was_played(tmp_path):
    write_cache(tmp_path / "cache")
    cache = FrameCache.open(tmp_path / "cache")
    assert cache.env == "noise" and cache.action_space == SOURCE.action_space and cache.fps == 17.5
    assert cache.frame_size == SOURCE.frame_size
    assert cache.episodes.tolist() == [[0, 40, 18], [40, 7, 19], [47, 21, 20]]
    for (start, length, _), rollout in zip(cache.episodes, ROLLOUTS, strict=True):
        for name in ("frames", "actions", "poses"):
            assert np.array_equal(getattr(cache, name)[start:start + length], getattr(rollout, name))
    assert isinstance(cache.frames, np.memmap) and not cache.frames.flags.writeable


def test_data_set_decodes_to_the_same_frame_cache(written, tmp_path):
    cache = lerobot.decode_to_cache(written, tmp_path / "cache")
    assert cache.episodes.tolist() == [[0, 39, 18], [39, 6, 19], [45, 20, 20]]
    for name in ("frames", "actions", "poses"):
        expected = np.concatenate([getattr(rollout, name)[:-1] for rollout in ROLLOUTS])
        assert np.array_equal(getattr(cache, name), expected)


def test_held_out_episodes_are_told_by_their_seed_alone(tmp_path):
    cache = write_cache(tmp_path / "cache")
    assert cache.split("train")[:, 2].tolist() == [18, 20] and cache.split("held_out")[:, 2].tolist() == [19]
    assert np.mean([is_held_out(seed) for seed in range(1000)]) == 0.05


@pytest.mark.parametrize("num_frames, said", [(67, "more than the 67"), (69, "hold 68 frames, not the 69")])
def test_cache_of_another_length_is_refused_and_stays_unfinished(tmp_path, num_frames, said):
    with pytest.raises(ValueError, match=said):
        write_cache(tmp_path / "cache", num_frames)
    with pytest.raises(ValueError, match="no frame cache"):
        FrameCache.open(tmp_path / "cache")


def test_cache_whose_files_do_not_belong_together_is_refused(tmp_path):
    write_cache(tmp_path)
    np.save(tmp_path / "poses.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"poses.npy: shape \(3, 4\), index.json says \(68, 4\)"):
        FrameCache.open(tmp_path)


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(2**30, 2**30, 0))
    with pytest.raises(ValueError, match="needs 0.0 GiB, the disk has 0.0 GiB left"):
        require_space(tmp_path, 1000)
    with pytest.raises(ValueError, match="the disk has"):
        write_cache(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_missing_extra_is_a_failure_that_says_what_to_run(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(WorldError, match=r'need pyarrow.*: run pip install "\.\[data\]" in the checkout'):
        lerobot.LeRobotFolder.open(folder)


# --- collect

def test_collect_writes_a_data_set_that_verifies_and_replays(tmp_path, capsys):
    told = run_collect("doom-maze", frames=600, out=tmp_path / "maze", seed=30, workers=1)
    assert told["frames"] == 600 and told["episodes"] == 2 and told["bytes_per_frame"] > 1000
    output = capsys.readouterr()
    assert not output.out and "600/600" in output.err
    opened = lerobot.verify(tmp_path / "maze")
    assert [(episode["length"], episode["seed"]) for episode in opened.episodes] == [(512, 30), (88, 31)]
    with pytest.raises(ValueError, match="already holds something"):
        run_collect("doom-maze", frames=600, out=tmp_path / "maze", workers=1)


@pytest.mark.parametrize("given, said", [({"frames": 0}, "--frames 0"), ({"workers": 0}, "--workers 0"),
                                         ({"player": "nobody"}, "--player nobody")])
def test_collect_refuses_bad_usage(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run_collect("doom-maze", **{"frames": 10, "out": tmp_path / "maze", **given})
    assert not (tmp_path / "maze").exists()
