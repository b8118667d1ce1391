"""The lerobot library and this code read each other's folders: equal frames, actions, times and tasks.

What the library wrote lies in tests/data/lerobot_library. What this code writes the library itself reads,
in the interpreter that LEROBOT_PYTHON names, or in this one where it has it:

    LEROBOT_PYTHON=python3.12 python -m pytest -n 0 -s tests/data/test_lerobot_library.py
"""
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import ROOT
from tests.data.recorded_play import DEGREES, Play, times, write_events, write_video
from tests.data.test_clip import record
from tests.data.test_lerobot import ROLLOUTS, noise_rollout, write_folder, write_folder_of
from worldplay.data import lerobot
from worldplay.data.frame_cache import FrameCache
from worldplay.data.import_play import run_import
from worldplay.data.lerobot_frames import camera_frames
from worldplay.data.pack import run_pack
from worldplay.data.rearrange import run_merge, run_split
from worldplay.envs.collect import run_collect

HERE = ROOT / "tests/data/lerobot_library"
FRONT, MAIN = "observation.images.front", "observation.images.main"
STICK = "w=forward>0.5, a=strafe<-0.5, d=strafe>0.5, look_yaw=turn"
FOLDERS = {"av1": {"camera": FRONT, "actions": STICK}, "images": {"actions": "left=action:1, right=action:2"},
           "v21": {"camera": FRONT, "actions": STICK}, "v21_to_v30": {"camera": FRONT, "actions": STICK}}
BLOCK = 8  # pixels, as in write.py
# grey levels that colours may be off after another FFmpeg's conversion from YUV
TOLERANCE = {"video": 1.0, "image": 0.0}


# What the library wrote -------------------------------------------------------------------------------------


@pytest.fixture(params=FOLDERS)
def name(request):
    return request.param


def read_by_the_library(name):
    """What write.py kept; the converted folder holds what it was made of."""
    return np.load(HERE / f"{name.removesuffix('_to_v30')}.npz")


def test_a_folder_of_the_library_verifies_and_holds_what_the_library_reads_in_it(name):
    expected, layout = read_by_the_library(name), lerobot.verify(HERE / name)
    tasks = layout.tasks()
    for episode, (first, stop) in zip(layout.episodes, expected["episodes"], strict=True):
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (first, stop)
        rows = layout.rows(episode, layout.number_fields)
        for field in layout.number_fields:
            read = expected[f"rows/{field}"][first:stop]
            assert np.array_equal(rows[field].reshape(read.shape), read), field
        assert [tasks[i] for i in rows["task_index"]] == expected["tasks"][first:stop].tolist()
        assert set(episode["tasks"]) == set(expected["tasks"][first:stop])
    about = json.loads(str(expected["about"]))
    assert layout.fps == about["fps"] and layout.videos == about["videos"]
    for camera in layout.cameras:
        bound = TOLERANCE[layout.info["features"][camera]["dtype"]]
        for frames, (first, stop) in zip(camera_frames(layout, camera), expected["episodes"], strict=True):
            blocks = np.stack([_blocks(frame) for frame in frames])
            read = expected[f"frames/{camera}"][first:stop].astype(int)
            assert np.abs(blocks - read).max() <= bound * BLOCK ** 2


def test_a_folder_of_the_library_becomes_what_trainers_read(name, tmp_path):
    expected = read_by_the_library(name)
    opened = lerobot.LeRobotFolder.open(HERE / name, **FOLDERS[name])
    cache = lerobot.decode_to_cache(opened, tmp_path / "cache")
    assert isinstance(cache, FrameCache) and cache.fps == 10
    assert cache.episodes[:, :2].tolist() == [[first, stop - first] for first, stop in expected["episodes"]]
    action = expected["rows/action"].reshape(len(cache.actions), -1)
    if name == "images":
        made = np.stack([action[:, 0] == 1, action[:, 0] == 2], axis=1).astype(np.float32)
    else:
        forward, strafe, turn = action.T
        made = np.stack([forward > 0.5, strafe < -0.5, strafe > 0.5, turn / np.abs(turn).max()], axis=1)
    for (first, stop), text in zip(expected["episodes"], cache.texts, strict=True):
        assert not cache.actions[first].any()
        assert cache.actions[first + 1:stop] == pytest.approx(made[first:stop - 1], abs=1e-6)
        assert all(task in text for task in set(expected["tasks"][first:stop]))


def _cut_picture(table, row):
    """Another table whose picture of that row breaks off."""
    pictures = table["observation.image"].to_pylist()
    pictures[row]["bytes"] = pictures[row]["bytes"][:60]
    return _with_pictures(table, pictures)


def _leave_out_picture(table, row):
    pictures = table["observation.image"].to_pylist()
    pictures[row]["bytes"] = None  # LeRobot's own path of a file that was somewhere else
    return _with_pictures(table, pictures)


def _with_pictures(table, pictures):
    place = table.column_names.index("observation.image")
    return table.set_column(place, "observation.image", pa.array(
        pictures, table.schema.field("observation.image").type))


@pytest.mark.parametrize("damage, said", [
    (lambda table: _cut_picture(table, 33), "row 33: field observation.image: unreadable"),
    (lambda table: _leave_out_picture(table, 5), "row 5: field observation.image has no picture file"),
    (lambda table: table.drop_columns(["observation.image"]), "field observation.image is missing"),
    (lambda table: table.set_column(0, "observation.image", pa.array([{"bytes": "text"}] * len(table))),
     "field observation.image holds string, expected picture files"),
    (lambda table: table.set_column(0, "observation.image", pa.array([1] * len(table))),
     "field observation.image holds int64, expected picture files")])
def test_a_damaged_picture_is_one_line_that_names_its_row(tmp_path, damage, said):
    folder = shutil.copytree(HERE / "images", tmp_path / "images")
    file = folder / "data/chunk-000/file-000.parquet"
    pq.write_table(damage(pq.read_table(file)), file)
    with pytest.raises(ValueError, match=f"file-000.parquet.*{said}.*; mend it") as error:
        lerobot.verify(folder)
    assert "\n" not in str(error.value)


def test_pictures_whose_bytes_have_64_bit_offsets_are_read(tmp_path):
    folder = shutil.copytree(HERE / "images", tmp_path / "images")
    file = folder / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    place = table.column_names.index("observation.image")
    pictures = pa.array(table["observation.image"].to_pylist(),
                        pa.struct([("bytes", pa.large_binary()), ("path", pa.string())]))
    pq.write_table(table.set_column(place, "observation.image", pictures), file)
    assert pa.types.is_large_binary(pq.read_schema(file).field("observation.image").type.field("bytes").type)
    lerobot.verify(folder)


def test_pictures_of_another_size_than_info_json_says_are_refused(tmp_path):
    folder = shutil.copytree(HERE / "images", tmp_path / "images")
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["observation.image"]["shape"] = [32, 64, 3]
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="row 0: field observation.image has 64 rows and .* says 32 and 64"):
        lerobot.verify(folder)


def _blocks(frame):
    """Sums over blocks of BLOCK x BLOCK pixels, int [h w 3]."""
    height, width, _ = frame.shape
    return frame.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).sum((1, 3), dtype=int)


# What this code writes --------------------------------------------------------------------------------------


def test_the_last_row_of_an_episode_is_done_and_folders_that_do_not_say_so_are_read(tmp_path):
    folder = write_folder(tmp_path / "noise")
    for path in sorted(folder.glob("data/*/*.parquet")):
        table = pq.read_table(path)
        ends = [*(np.diff(table["episode_index"].to_numpy()) > 0).tolist(), True]
        assert table["next.done"].to_pylist() == ends
        pq.write_table(table.drop_columns(["next.done"]), path)
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    assert info["features"].pop("next.done") == {"dtype": "bool", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    lerobot.verify(folder)
    for read, played in zip(lerobot.LeRobotFolder.open(folder).rollouts(), ROLLOUTS, strict=True):
        assert np.array_equal(read.actions, played.actions[:-1])


def _interpreter():
    """Path of a Python that has the library; the test is skipped where there is none."""
    python = os.environ.get("LEROBOT_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import lerobot.datasets"], capture_output=True).returncode:
        pytest.skip("the library lerobot is not in this environment (it wants another torch and another hub "
                    "library); LEROBOT_PYTHON names the Python of one: "
                    "python3.12 -m venv V; V/bin/pip install 'lerobot[dataset]==0.6.1'")
    return python


@pytest.fixture(scope="module")
def read_back(tmp_path_factory):
    """{command: (folder, what the library read in it)} of what every command writes."""
    python, base = _interpreter(), tmp_path_factory.mktemp("ours")
    write_folder(base / "writer")
    run_collect("doom-maze", frames=90, out=base / "collect", seed=30, workers=1)
    (base / "clips").mkdir()
    record(base / "clips/a", 200)
    record(base / "clips/b", 97, begin_at=7)
    run_pack([base / "clips"], out=base / "pack")
    play = Play(8.0)
    write_video(base / "play.mp4", play, times(play, [0.03, 0.05]))
    write_events(base / "play.csv", play)
    run_import([base / "play.mp4"], out=base / "import", fit="resize 48x32",
               actions=f"w=W, space=space, look_yaw=dx*{DEGREES}")
    other = write_folder_of([replace(noise_rollout(40, 77), text="turn around")], base / "other")
    run_merge([base / "writer", other], out=base / "merge")
    run_split(base / "writer", episodes="1:", out=base / "split")
    commands = ("writer", "collect", "pack", "import", "merge", "split")
    pairs = [str(path) for command in commands for path in (base / command, base / f"{command}.npz")]
    result = subprocess.run([python, str(HERE / "read.py"), *pairs], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {command: (base / command, np.load(base / f"{command}.npz")) for command in commands}


@pytest.mark.parametrize("command", ["writer", "collect", "pack", "import", "merge", "split"])
def test_the_library_reads_every_row_as_it_was_written(read_back, command):
    folder, read = read_back[command]
    layout = lerobot.verify(folder)
    assert sorted(name for name in read.files if name.startswith("frames/")) == [f"frames/{MAIN}"]
    for (episode, (first, stop)), frames in zip(
            zip(layout.episodes, read["episodes"], strict=True), camera_frames(layout, MAIN), strict=True):
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (first, stop)
        frames, rows = np.stack(list(frames)), layout.rows(episode, layout.number_fields)
        assert np.array_equal(read[f"frames/{MAIN}"][first:stop], frames)
        for field, values in rows.items():
            assert np.array_equal(read[f"rows/{field}"][first:stop], values), field
            assert read[f"rows/{field}"].dtype == layout.info["features"][field]["dtype"]
        assert set(read["tasks"][first:stop]) == set(episode["tasks"])
        assert rows["next.done"].tolist() == [*[False] * (stop - first - 1), True]
        _check_windows(read, first, stop, frames, rows["action"])
    about = json.loads(str(read["about"]))
    space = lerobot.LeRobotFolder.open(folder).source.action_space
    look = ["look_yaw", "look_pitch"][:space.look_axes]
    assert about["features"]["action"]["names"] == [*space.keys, *look] and about["fps"] == layout.fps
    print(f"{command}: {len(layout.episodes)} episodes, {layout.num_frames} rows at {layout.fps:g} a second: "
          f"frames, {', '.join(rows)}, tasks, windows equal; decoder {about['decoder']}, {about['versions']}")


def _check_windows(read, first, stop, frames, actions):
    """Rows of an episode with those around them, repeated at its ends, as delta_timestamps asks for them."""
    for place, offset in enumerate((-2, 0, 1)):  # as in read.py
        at = np.arange(stop - first) + offset
        inside = at.clip(0, stop - first - 1)
        assert np.array_equal(read[f"window/frames/{MAIN}"][first:stop, place], frames[inside])
        assert np.array_equal(read["window/action"][first:stop, place], actions[inside])
        assert np.array_equal(read["window/is_pad"][first:stop, place], at != inside)
