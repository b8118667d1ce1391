"""Recorded play on disk: what is written is what is read, bit for bit, and damage is refused in one line."""
import json
import shutil
import sys

import numpy as np
import pytest

from worldplay.action import ActionSpace
from worldplay.data import lerobot, lerobot_writer
from worldplay.data.frame_cache import FrameCache, Rollout, Source, is_held_out, write_frame_cache
from worldplay.envs.collect import run_collect
from worldplay.errors import WorldError
from worldplay.files import require_space

SOURCE = Source(name="noise", action_space=ActionSpace(("w", "a"), 10.0, look_axes=1), frame_size=(32, 48),
                fps=17.5)
CAMERA, STATE = "observation.images.main", "observation.state"
LENGTHS = (40, 7, 21)
FIRST_SEED = 18


def noise_rollout(length, seed):
    rng = np.random.default_rng(seed)
    actions = np.c_[rng.integers(0, 2, (length, 2)), rng.uniform(-1, 1, length)].astype(np.float32)
    actions[0] = 0
    return Rollout(rng.integers(0, 256, (length, *SOURCE.frame_size, 3), dtype=np.uint8), actions,
                   rng.normal(0, 100, (length, 4)).astype(np.float32), seed)


ROLLOUTS = [noise_rollout(length, FIRST_SEED + i) for i, length in enumerate(LENGTHS)]


def write_folder(folder, rollouts=ROLLOUTS):
    """Two shards: the first two rollouts, then the third."""
    shards = []
    for shard, part in enumerate((rollouts[:2], rollouts[2:])):
        writer = lerobot_writer.ShardWriter(folder, SOURCE, shard=shard, player="explorer")
        for rollout in part:
            writer.add(rollout)
        shards.append(writer.close())
    lerobot_writer.finish(folder, SOURCE, shards, player="explorer")
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
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": ["w", "a", "look_yaw"]}
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
    assert seen == [39, 6, 20] and opened.num_frames == 65
    assert lerobot.LeRobotFolder.open(written).source == SOURCE
    facts = lerobot.describe(written)
    assert facts["frames"] == 65 and facts["episodes"] == 3 and facts["held_out_episodes"] == 1
    share = np.concatenate([rollout.actions[1:, 0] for rollout in ROLLOUTS]).mean()
    assert facts["share_of_frames"]["w"] == pytest.approx(share)


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


NAN = float("nan")
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


def change_table(name, change):
    def damage(folder):
        import pyarrow.parquet as pq
        pq.write_table(change(pq.read_table(folder / name)), folder / name)
    return damage


def drop(name):
    return lambda table: table.drop_columns([name])


def put(row, name, value):
    """Another value in one row of a column."""
    def change(table):
        import pyarrow as pa
        values = table[name].to_pylist()
        values[row] = value
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    return change


def shifted(table):
    """Episode 1 begins one frame late in its video, and ends so."""
    for name in ("from_timestamp", "to_timestamp"):
        name = f"videos/{CAMERA}/{name}"
        table = put(1, name, table[name].to_pylist()[1] + 1 / 17.5)(table)
    return table


def shorter_actions(table):
    import pyarrow as pa
    rows = [row[:2] for row in table["action"].to_pylist()]
    return table.set_column(0, "action", pa.array(rows, pa.list_(pa.float32(), 2)))


def texts_for_times(table):
    import pyarrow as pa
    at = table.column_names.index("timestamp")
    return table.set_column(at, "timestamp", pa.array(["a"] * len(table)))


def change_fps_everywhere(folder):
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    info["fps"] = info["features"][CAMERA]["info"]["video.fps"] = 30.0
    path.write_text(json.dumps(info))


def recolour(folder):
    """Another video of the right length: only the checksum can tell."""
    other = write_folder_of([Rollout(255 - r.frames, r.actions, r.poses, r.seed) for r in ROLLOUTS[:2]],
                            folder.with_name("other"))
    name = f"videos/{CAMERA}/chunk-000/file-000.mp4"
    shutil.copy(other / name, folder / name)


def write_folder_of(rollouts, folder):
    writer = lerobot_writer.ShardWriter(folder, SOURCE, shard=0, player="explorer")
    for rollout in rollouts:
        writer.add(rollout)
    lerobot_writer.finish(folder, SOURCE, [writer.close()], player="explorer")
    return folder


@pytest.mark.parametrize("damage, said", [
    (lambda folder: (folder / "meta/info.json").unlink(), "no finished data set"),
    (lambda folder: (folder / "meta/info.json").write_text("{"), "info.json: no valid JSON"),
    (change_info("codebase_version", "v9"), r"info.json: field codebase_version is 'v9', expected one of "
                                            r"v3.0, v2.1"),
    (change_info("total_frames", 66), "info.json: field total_frames is 66, the episodes' tables say 65"),
    (lambda folder: (folder / "data/chunk-000/file-001.parquet").unlink(), "file-001.parquet: missing"),
    (lambda folder: cut(folder / "data/chunk-000/file-000.parquet"), "file-000.parquet: unreadable"),
    (lambda folder: (folder / f"videos/{CAMERA}/chunk-000/file-001.mp4").unlink(), "mp4: missing"),
    (lambda folder: cut(folder / f"videos/{CAMERA}/chunk-000/file-001.mp4"), "file-001.mp4"),
    (swap_videos, "episode 0: frame 20 is missing"),
    (recolour, "not those that were recorded"),
    *((change_column(name, change), f"file-000.parquet, row {row}: field {name} {said}") for name, change,
      row, said in (
        ("action", lambda rows: [*rows[:3], [1.5, 0, 0], *rows[4:]], 3, ".* expected numbers from -1 to 1"),
        ("action", lambda rows: [[NAN, 0, 0], *rows[1:]], 0, ".* expected finite numbers"),
        ("action", lambda rows: [*rows[:2], None, *rows[3:]], 2, "is null"),
        ("frame_index", lambda rows: [1, 0, *rows[2:]], 0, "is 1, expected 0"),
        ("index", lambda rows: [*rows[:41], 7, *rows[42:]], 41, "is 7, expected 41"),
        ("timestamp", lambda rows: [2 * time for time in rows], 1, "is 0.11.*, expected 0.057"),
        ("timestamp", lambda rows: [*rows[:5], NAN, *rows[6:]], 5, "is nan, expected 0.28"),
        ("timestamp", lambda rows: [*rows[:40], None, *rows[41:]], 40, "is null"),
        (STATE, lambda rows: [*rows[:40], [0, NAN, 0, 0], *rows[41:]], 40, ".* expected finite numbers"))),
    (change_column("episode_index", lambda rows: [0] * 40 + [1] * 5),
     "field episode_index: 40 rows of episode 0, expected 39"),
    (change_column("task_index", lambda rows: [7, *rows[1:]]),
     "field task_index of episode 0 is beyond the table of tasks"),
    *((change_table(DATA, drop(name)), f"file-000.parquet: field {name} is missing")
      for name in ("action", "timestamp", "frame_index", "episode_index", "index", "task_index", STATE)),
    (change_table(DATA, lambda table: table.slice(0, 40)),
     "file-000.parquet: 40 rows, the episodes' tables say 45"),
    (change_table(DATA, shorter_actions), "row 0: field action has 2 numbers, meta/info.json says 3"),
    (change_table(DATA, texts_for_times), "field timestamp holds string, expected numbers"),
    *((change_table(EPISODES, drop(name)), f"row 0: field {name} is missing") for name in (
        "episode_index", "length", "seed", "frames_crc32", "dataset_from_index", "dataset_to_index",
        "data/chunk_index",
        "data/file_index", *(f"videos/{CAMERA}/{name}" for name in (
            "chunk_index", "file_index", "from_timestamp", "to_timestamp")))),
    (change_table(EPISODES, drop("tasks")), "row 0: field tasks is no list of texts"),
    *((change_table(EPISODES, put(1, name, value)), f"row 1: field {name} is {said}") for name, value,
      said in (
        ("seed", None, "None, expected a whole number"), ("length", 0, ""), ("length", -3, "-3"),
        ("episode_index", 5, "5"),
        ("dataset_from_index", 3, "3, expected 39"), ("dataset_to_index", 99, "99, expected 45"),
        (f"videos/{CAMERA}/from_timestamp", NAN, "nan"), (f"videos/{CAMERA}/to_timestamp", 99.0,
                                                          "99, expected"))),
    (change_table(EPISODES, shifted),
     f"row 1: field videos/{CAMERA}/from_timestamp is 2.28.*, expected 2.22"),
    (change_table(EPISODES, put(0, "tasks", ["another"])),
     "episode 0: field tasks holds 'another', which is not in"),
    (change_table(EPISODES, lambda table: table.slice(0, 2)),
     "total_episodes is 3, the episodes' tables say 2"),
    (lambda folder: shutil.rmtree(folder / "meta/episodes"), "meta/episodes: holds no table"),
    (lambda folder: cut(folder / EPISODES), "file-000.parquet: unreadable"),
    (lambda folder: (folder / "meta/tasks.parquet").unlink(), "tasks.parquet: missing"),
    (change_table("meta/tasks.parquet", lambda table: table.replace_schema_metadata({})),
     "tasks.parquet: its texts are not .*to_parquet.'tasks.parquet'. writes one"),
    (change_table("meta/tasks.parquet", put(0, "task_index", 4)),
     "tasks.parquet, row 0: fields task_index and task are 4"),
    (lambda folder: (folder / "meta/stats.json").write_text("{"), "stats.json: no valid JSON"),
    (lambda folder: (folder / "meta/stats.json").write_text('{"action": {"min": [NaN]}}'),
     "stats.json: field action.min is"),
    *((change_info(name, value), f"info.json: field {name} is") for name, value in (
        ("fps", 0), ("fps", None), ("fps", "20"), ("fps", NAN), ("total_frames", None), ("total_tasks", 4),
        ("features", []),
        ("features", {"action": {"dtype": "float32"}}), ("data_path", None), ("video_path", 3))),
    (change_info("fps", 30.0), "field features.observation.images.main.info.video.fps is 17.5, but fps is "
                               "30.0"),
    (change_fps_everywhere, "field worldplay.fps says 17.5, the rest of the file 30.0"),
    (change_info("data_path", "{nothing}"), "field data_path '{nothing}' cannot be filled in"),
    (change_info("worldplay", {}), "field worldplay: 'env' is missing"),
    (change_info("worldplay", 3), "field worldplay: "),
    (lambda folder: (folder / "meta/info.json").write_bytes(b"\xff\xfe"), "info.json: no valid JSON"),
    (lambda folder: (folder / "meta/info.json").write_text("[" * 100_000), "info.json: no valid JSON"),
    (lambda folder: (folder / "meta/info.json").write_text("[]"), "info.json: no JSON object"),
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
    cache = lerobot.decode_to_cache(lerobot.LeRobotFolder.open(written), tmp_path / "cache")
    assert cache.episodes.tolist() == [[0, 39, 18], [39, 6, 19], [45, 20, 20]]
    for name in ("frames", "actions", "poses"):
        expected = np.concatenate([getattr(rollout, name)[:-1] for rollout in ROLLOUTS])
        assert np.array_equal(getattr(cache, name), expected)


def test_held_out_episodes_are_known_by_their_seed_alone(tmp_path):
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


@pytest.mark.parametrize("content, said", [
    (b"{", "damaged"), (b"[]", "damaged"), (b"\xff", "damaged"), (b"{}", "'episodes' is missing"),
    (b'{"episodes": [3]}', "damaged"), (b"[" * 100_000, "damaged")])
def test_a_damaged_index_is_one_line_that_names_it(tmp_path, content, said):
    write_cache(tmp_path)
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index.json: damaged \(.*build the frame cache again") as error:
        FrameCache.open(tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b""),
                                    lambda path: path.write_bytes(path.read_bytes()[:-5])])
def test_a_damaged_array_is_one_line_that_names_it(tmp_path, damage):
    write_cache(tmp_path)
    damage(tmp_path / "frames.npy")
    with pytest.raises(ValueError, match="frames.npy: unreadable .*; build the frame cache again"):
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
    facts = run_collect("doom-maze", frames=600, out=tmp_path / "maze", seed=30, workers=1)
    assert facts["frames"] == 600 and facts["episodes"] == 2 and facts["bytes_per_frame"] > 1000
    assert facts["held_out_episodes"] == 1
    output = capsys.readouterr()
    assert not output.out and "600/600" in output.err
    opened = lerobot.verify(tmp_path / "maze")
    assert [(episode["length"], episode["seed"]) for episode in opened.episodes] == [(300, 30), (300, 39)]
    with pytest.raises(ValueError, match="already holds something"):
        run_collect("doom-maze", frames=600, out=tmp_path / "maze", workers=1)


@pytest.mark.parametrize("given, said", [({"frames": 1}, "--frames 1"), ({"workers": 0}, "--workers 0"),
                                         ({"player": "nobody"}, "--player nobody")])
def test_collect_refuses_bad_usage(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        run_collect("doom-maze", **{"frames": 10, "out": tmp_path / "maze", **given})
    assert not (tmp_path / "maze").exists()
