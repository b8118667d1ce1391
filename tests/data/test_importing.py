"""Data sets of other programs: read by the columns and the camera that are named, frames made to fit."""
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import train_world
from tests.data.foreign_folders import (
    FPS,
    FRONT,
    LENGTHS,
    SIZE,
    TASKS,
    WRIST,
    action,
    grey,
    write_v2,
    write_v3,
)
from tests.data.test_lerobot import write_folder
from worldplay.action import ActionSpace
from worldplay.cli.commands import main
from worldplay.data import lerobot
from worldplay.data.frame_cache import FrameCache, is_held_out
from worldplay.data.importing import ActionColumns, Column, FrameFit, action_columns
from worldplay.data.lerobot import LeRobotFolder
from worldplay.train.chain import Chain
from worldplay.train.processes import Processes

ACTIONS = "w=forward, a=strafe<-0.5, d=strafe>0.5, look_yaw=turn*2"
COLUMNS = [Column("forward", "action", 0), Column("strafe", "action", 1), Column("turn", "action", 2)]


@pytest.fixture(scope="module", params=["v3.0", "v2.1", "v3.0 h264"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("foreign") / "door"
    return write_v2(made) if request.param == "v2.1" else write_v3(
        made, codec="libx264" if "h264" in request.param else "libsvtav1")


# Reading ----------------------------------------------------------------------------------------------------


def test_a_folder_of_another_program_is_read_frame_by_frame_with_its_actions(folder):
    opened = LeRobotFolder.open(folder, actions=ACTIONS)
    limit = 2 * max(abs(action(n, i)[2]) for n, length in enumerate(LENGTHS) for i in range(length))
    assert opened.source.action_space == ActionSpace(("w", "a", "d"), limit, look_axes=1)
    assert (opened.source.name, opened.source.frame_size, opened.source.fps) == ("door", SIZE, FPS)
    assert not opened.is_own and not opened.has_poses and opened.is_lossy and opened.dreamed == 0
    for n, rollout in enumerate(opened.rollouts()):
        assert rollout.frames.shape == (LENGTHS[n], *SIZE, 3) and rollout.text == TASKS[n % 2]
        shown = rollout.frames.mean((1, 2, 3))
        assert np.abs(shown - [grey(FRONT, n, i) for i in range(LENGTHS[n])]).max() < 3
        assert not rollout.actions[0].any()
        for i in range(1, LENGTHS[n]):  # the action taken at a frame causes the next one
            forward, strafe, turn = action(n, i - 1)
            expected = [forward, float(strafe < 0), float(strafe > 0), 2 * turn / limit]
            assert rollout.actions[i] == pytest.approx(expected, abs=1e-6)
    assert n == 2


def test_one_of_twenty_episodes_is_held_out_and_one_at_least(folder, tmp_path):
    cache = lerobot.decode_to_cache(LeRobotFolder.open(folder, actions=ACTIONS), tmp_path / "cache")
    assert cache.episodes[:, 1].tolist() == list(LENGTHS)
    assert [is_held_out(int(seed)) for seed in cache.episodes[:, 2]] == [False, False, True]
    assert cache.texts == (TASKS[0], TASKS[1], TASKS[0]) and cache.poses is None
    kept = json.loads((tmp_path / "cache/index.json").read_text())["imported"]
    assert kept == {"camera": FRONT, "actions": ACTIONS, "fit": None}


def test_verify_needs_neither_camera_nor_actions(folder):
    seen = []
    assert lerobot.verify(folder, progress=seen.append).num_frames == sum(LENGTHS)
    assert seen == list(LENGTHS)


def test_describe_says_what_there_is_to_choose_from(folder):
    facts = lerobot.describe(folder)
    assert facts["cameras"] == {FRONT: {"height": SIZE[0], "width": SIZE[1]}}
    assert list(facts["action_columns"]) == ["0 forward", "1 strafe", "2 turn"]
    assert facts["action_columns"]["0 forward"] == [0, 1] and facts["action_columns"]["1 strafe"] == [-1, 1]
    assert facts["episodes"] == 3 and facts["frames"] == sum(LENGTHS) and facts["held_out_episodes"] == 1


def test_without_actions_the_error_lists_the_columns(folder):
    with pytest.raises(ValueError, match=r"--actions .*the columns are 0 'forward' \(0 to 1\), 1 'strafe' "
                                         r"\(-1 to 1\)") as error:
        LeRobotFolder.open(folder)
    assert "\n" not in str(error.value)


def test_another_programs_folder_is_viewed_with_the_columns_and_the_camera_named(tmp_path, capsys):
    write_v3(tmp_path / "two", cameras=(FRONT, WRIST), codec="libx264")
    view = ["dataset", "view", str(tmp_path / "two"), "--out", str(tmp_path / "sheet.png")]
    for flags, said in (([], "--camera"), (["--camera", WRIST], "--actions")):  # what is advised is there
        assert main([*view, *flags]) == 2 and said in capsys.readouterr().err
    assert main([*view, "--camera", WRIST, "--actions", ACTIONS]) == 0
    assert capsys.readouterr().out.strip() == view[-1] and (tmp_path / "sheet.png").is_file()


def test_of_several_cameras_one_is_named(tmp_path):
    write_v3(tmp_path / "two", cameras=(FRONT, WRIST), codec="libx264")
    for camera, said in ((None, "has several cameras"), ("top", "has no camera 'top'")):
        with pytest.raises(ValueError, match=rf"{said}; name one of them with --camera: {FRONT}, {WRIST}$"):
            LeRobotFolder.open(tmp_path / "two", actions=ACTIONS, camera=camera)
    opened = LeRobotFolder.open(tmp_path / "two", actions=ACTIONS, camera=WRIST)
    for n, rollout in enumerate(opened.rollouts()):
        assert np.abs(rollout.frames.mean((1, 2, 3)) - [grey(WRIST, n, i)
                                                        for i in range(LENGTHS[n])]).max() < 3
    assert lerobot.verify(tmp_path / "two").num_frames == sum(LENGTHS)


def test_long_episodes_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot, "MAX_ROWS", 8)
    write_v2(tmp_path / "long")
    whole = LeRobotFolder.open(tmp_path / "long", actions=ACTIONS)
    parts = list(whole.rollouts())
    assert [len(part.frames) for part in parts] == [6, 6, 7, 8, 7, 8, 4, 5]
    assert all(not part.actions[0].any() for part in parts)
    lerobot.decode_to_cache(whole, tmp_path / "cache")
    assert len(FrameCache.open(tmp_path / "cache").episodes) == 8


def test_numbers_in_nested_lists_are_read(tmp_path):
    folder = write_v2(tmp_path / "set")
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["action.grid"] = {"dtype": "float32", "shape": [2, 2], "names": None}
    path.write_text(json.dumps(info))
    for file in folder.glob("data/*/*.parquet"):
        table = pq.read_table(file)
        grid = pa.array([[[i, 1], [2, 3]] for i in range(len(table))], pa.list_(pa.list_(pa.float32(), 2)))
        pq.write_table(table.append_column("action.grid", grid), file)
    assert lerobot.verify(folder).num_frames == sum(LENGTHS)
    first = next(LeRobotFolder.open(folder, actions="look_yaw=action.grid[0]").rollouts())
    assert first.actions[:, 0] * (LENGTHS[1] - 1) == pytest.approx([0, *range(LENGTHS[0] - 1)])
    pq.write_table(table.append_column("action.grid", pa.array(
        [[[1, 2], [3, 4]]] * 4 + [[[1, 2], [3, None]]] * (len(table) - 4))), file)
    with pytest.raises(ValueError, match=f"{file.name}, row 4: field action.grid holds a null"):
        lerobot.verify(folder)


@pytest.mark.parametrize("file, old, new, said", [
    ("info.json", '"chunks_size": 1000', '"chunks_size": 0', "info.json: field chunks_size is 0"),
    ("info.json", "{episode_chunk:03d}", "{episode_chunk.x}", "info.json: field data_path .* cannot be"),
    ("info.json", "{episode_chunk:03d}", "{episode_chunk[0]}", "info.json: field data_path .* cannot be"),
    ("episodes.jsonl", "reach", "\udcff", "episodes.jsonl: no valid JSON .it is no UTF-8"),
    ("episodes.jsonl", '{"episode_index": 1', "[" * 100_000, "episodes.jsonl, row 1: no valid JSON"),
    ("tasks.jsonl", "reach", "\udcff", "tasks.jsonl: no valid JSON .it is no UTF-8"),
    ("tasks.jsonl", '{"task_index": 1', "[", "tasks.jsonl, row 1: no valid JSON")])
def test_damage_in_the_tables_of_v2_is_one_line_that_names_the_file(tmp_path, file, old, new, said):
    path = write_v2(tmp_path / "set") / "meta" / file
    path.write_text(path.read_text().replace(old, new), encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=said) as error:
        lerobot.verify(tmp_path / "set")
    assert "\n" not in str(error.value)


def test_a_task_may_hold_any_character(tmp_path):
    folder = write_v2(tmp_path / "set")
    for name in ("episodes.jsonl", "tasks.jsonl"):
        path = folder / "meta" / name
        path.write_text(path.read_text().replace("reach", "r\u2028each"))
    assert lerobot.verify(folder).episodes[0]["tasks"] == [TASKS[0].replace("reach", "r\u2028each")]


def test_a_depth_map_is_no_camera(tmp_path):
    folder = write_v3(tmp_path / "set", cameras=(FRONT, WRIST), codec="libx264")
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][WRIST]["info"]["is_depth_map"] = True
    path.write_text(json.dumps(info))
    assert LeRobotFolder.open(folder, actions=ACTIONS).camera == FRONT
    info["features"][FRONT]["info"]["video.is_depth_map"] = True
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="set: has no camera .*other than a depth map"):
        LeRobotFolder.open(folder, actions=ACTIONS)


def test_actions_of_our_own_folders_are_not_to_be_named(tmp_path):
    with pytest.raises(ValueError, match="was written by worldplay, whose actions need none"):
        LeRobotFolder.open(write_folder(tmp_path / "own"), actions=ACTIONS)


def places(node, path=()):
    """Yield the path of every node in a tree of dicts and lists."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def put(node, path, value):
    """The tree with another value at a path."""
    if not path:
        return value
    copy = node.copy()
    copy[path[0]] = put(node[path[0]], path[1:], value)
    return copy


@pytest.mark.parametrize("write, actions", [(write_v2, ACTIONS), (write_folder, None)])
def test_whatever_stands_in_a_field_of_info_json_it_opens_or_the_error_is_one_line(tmp_path, write, actions):
    folder = write(tmp_path / "set")
    path = folder / "meta/info.json"
    whole, num_refused = json.loads(path.read_text()), 0
    for place in places(whole):
        for value in (None, -1, 0, "x", "{episode_chunk.x}", {"a": 1}):
            path.write_text(json.dumps(put(whole, place, value)))
            try:
                LeRobotFolder.open(folder, actions=actions)
            except ValueError as error:
                assert "\n" not in str(error), (place, value)
                num_refused += 1
    assert num_refused > 100


# Actions ----------------------------------------------------------------------------------------------------


def feature(shape, names=None, dtype="float32"):
    return {"dtype": dtype, "shape": shape, "names": names}


def test_columns_are_named_as_the_data_set_names_them():
    found = action_columns({
        "action": feature([2], {"motors": ["x", "y"]}), "action.grip": feature([1]),
        "action.pose": feature([2]),
        "action.note": feature([1], dtype="string"), "observation.state": feature([2]),
        "actions": feature([1])})
    assert [(column.label, column.feature, column.place) for column in found] == [
        ("x", "action", 0), ("y", "action", 1), ("action.grip", "action.grip", 0),
        ("action.pose[0]", "action.pose", 0),
        ("action.pose[1]", "action.pose", 1)]


def test_numbered_actions_become_keys():
    [column] = action_columns({"action": feature([1], dtype="int64")})
    read = ActionColumns.parse("left=action:0,right=0:1, up = 0:2".replace(" = ", "="), [column])
    space = read.space({})
    assert space.keys == ("left", "right", "up") and space.look_axes == 0
    encoded = read.encode({"action": np.array([0, 1, 2, 5])}, space)
    assert encoded.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_key_of_two_terms_is_down_for_either_and_look_adds_up():
    read = ActionColumns.parse("space=0>0.2,space=1<-0.2,look_pitch=2*-3,look_yaw=0,look_yaw=1*10", COLUMNS)
    rows = {"action": np.array([[0.5, 0.0, 1.0], [0.0, -1.0, 0.0], [0.0, 0.0, -2.0]])}
    assert {name: degrees.tolist() for name, degrees in read.look(rows).items()} == {
        "look_pitch": [-3, 0, 6], "look_yaw": [0.5, -10, 0]}
    space = read.space({"look_pitch": 6.0, "look_yaw": 10.0})
    assert space.look_limit == 10 and space.look_axes == 2
    assert read.encode(rows, space) == pytest.approx(np.array([[1, 0.05, -0.3], [1, -1, 0], [0, 0, 0.6]]),
                                                     abs=1e-6)
    assert ActionColumns.parse("look_yaw=turn",
                               COLUMNS).space({"look_yaw": 0.0}).look_limit == 1.0, "a look never turned"


@pytest.mark.parametrize("text, said", [
    ("", "no key is named"), ("w", "expected KEY=COLUMN"), ("walk=forward", "expected KEY=COLUMN"),
    ("w=speed", "no column 'speed'"), ("w=9", "no column '9'"), ("w=forward*2", "is for look_yaw"),
    ("look_yaw=turn:1", "are for keys"), ("w=forward>x", "no column 'forward>x'"),
])
def test_terms_that_cannot_be_read_are_named_with_the_columns(text, said):
    with pytest.raises(ValueError, match=said) as error:
        ActionColumns.parse(text, COLUMNS)
    assert "\n" not in str(error.value) and ("0 'forward', 1 'strafe', 2 'turn'" in str(error.value)
                                             or "*" in text or ":" in text)


# Frames that fit --------------------------------------------------------------------------------------------


def test_frames_are_padded_cropped_or_resized():
    frame = np.random.default_rng(0).integers(1, 256, (48, 64, 3), np.uint8)
    padded = FrameFit.parse("pad 80x50").apply(frame)
    assert padded.shape == (50, 80, 3) and np.array_equal(padded[1:49, 8:72],
                                                          frame) and padded.sum() == frame.sum()
    cropped = FrameFit.parse("crop 60x40").apply(frame)
    assert np.array_equal(cropped, frame[4:44, 2:62])
    resized = FrameFit.parse("resize 32x24").apply(frame)
    blocks = frame.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert resized.shape == (24, 32, 3) and np.abs(resized - blocks).mean() < 20
    for fit in ("pad 64x48", "crop 64x48", "resize 64x48"):
        assert np.array_equal(FrameFit.parse(fit).apply(frame), frame)


@pytest.mark.parametrize("text", ["", "pad", "pad 64", "stretch 64x48", "pad 0x48", "pad 64x48x3",
                                  "pad -1x4"])
def test_a_fit_that_cannot_be_read_is_said(text):
    with pytest.raises(ValueError, match="expected pad, crop or resize with width x height"):
        FrameFit.parse(text)


def test_a_data_set_comes_in_the_size_that_is_asked_for(tmp_path):
    write_v2(tmp_path / "set")
    opened = LeRobotFolder.open(tmp_path / "set", actions=ACTIONS, fit="pad 70x60")
    assert opened.source.frame_size == (60, 70)
    assert {rollout.frames.shape[1:] for rollout in opened.rollouts()} == {(60, 70, 3)}
    for fit, other in (("pad 64x40", "crop"), ("crop 80x48", "pad")):
        with pytest.raises(ValueError, match=f"frames are 64x48 pixels.*use {other} or resize"):
            LeRobotFolder.open(tmp_path / "set", actions=ACTIONS, fit=fit)


# On the command line of training ----------------------------------------------------------------------------


@pytest.mark.parametrize("flags, said", [
    (["--data", "{set}"], "--actions .*0 'forward' (0 to 1)"),
    (["--data", "{set}", "--actions", ACTIONS], "--env set takes it"),
    (["--data", "{set}", "--actions", ACTIONS, "--env", "set", "--fit", "crop 60x40"],
     'frames are 60x40 pixels (width x height), this recipe wants multiples of 16 and 24; --fit "pad 64x48"'),
    (["--data", "{set}", "--actions", "w=0", "--camera", "top"], f"name one of them with --camera: {FRONT}"),
    (["--actions", ACTIONS], "--actions: only with --data DIR"),
])
def test_what_is_missing_is_said_before_training_begins(tmp_path, capsys, flags, said):
    write_v2(tmp_path / "set")
    flags = [flag.format(set=tmp_path / "set") for flag in flags]
    out = tmp_path / "run"
    assert train_world.main(["tiny-maze", "--steps", "1", "--device", "cpu", "--out", str(out), *flags]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train_world: ")]
    assert all(part in line for part in said.split(" .*")) and not out.exists()


def test_a_run_keeps_how_its_data_was_read_and_learns_from_it(tmp_path):
    write_v2(tmp_path / "set", cameras=(FRONT, WRIST), lengths=(24, 30, 22))
    reading = {"camera": WRIST, "actions": ACTIONS, "fit": "crop 48x48"}

    def chain(**changes):
        return Chain(replace(train_world.tiny_maze(), env=""), tmp_path / "run",
                     processes=Processes(torch.device("cpu")),
                     dtype=torch.float32, budget=60.0, data=tmp_path / "set", reading=reading | changes)
    opened = chain()
    opened.open_data()
    assert opened.cache.env == "set" and opened.cache.frame_size == (48, 48) and opened.cache.is_lossy
    assert {name: opened.log[name] for name in reading} == reading
    opened.close()
    with pytest.raises(ValueError, match="was started with fit crop 48x48, now it is pad 64x48"):
        chain(fit="pad 64x48")
