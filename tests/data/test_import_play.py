"""From any video with a log of its input to a data set: upright, at a steady rate, every key at its frame."""
import json
import math
import os

import h5py
import numpy as np
import pytest

from tests.data.recorded_play import DEGREES, SIZE, Play, lit, times, write_events, write_states, write_video
from tests.train.test_own_data import begin
from worldplay.action import ActionSpace
from worldplay.data import lerobot
from worldplay.data.frame_cache import is_held_out
from worldplay.data.import_play import run_import
from worldplay.data.importing import ActionColumns
from worldplay.data.input_log import Inputs, columns_of, own_actions, read_log
from worldplay.errors import WorldError

ACTIONS = f"w=W, space=space, look_yaw=dx*{DEGREES}"
SECONDS, FPS, SMALL = 12.0, 20, "resize 48x32"


@pytest.fixture(scope="module")
def play():
    return Play(SECONDS)


@pytest.fixture(scope="module")
def recorded(play, tmp_path_factory):
    """A video of uneven rate, odd size, turned on its side, whose first time stamp is not 0; its log."""
    folder = tmp_path_factory.mktemp("recorded")
    write_video(folder / "a.mp4", play, times(play, [0.012, 0.02, 0.045]), turned=90, begins=1.5)
    write_events(folder / "a.csv", play)
    return folder


@pytest.fixture(scope="module")
def made(recorded, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "game"
    return out, run_import([recorded], out=out, actions=ACTIONS)


def episodes(out):
    return list(lerobot.LeRobotFolder.open(out).rollouts())


# What is written --------------------------------------------------------------------------------------------


def test_the_folder_verifies_and_says_what_it_is(made):
    out, facts = made
    assert lerobot.verify(out).num_frames == facts["frames"]
    source = lerobot.LeRobotFolder.open(out).source
    assert source.action_space == ActionSpace(("w", "space"), facts["look_limit"], look_axes=1)
    assert (source.name, source.frame_size, source.fps) == ("game", (112, 160), FPS)
    described = lerobot.describe(out)
    assert described["lossy"] is True and described["dreamed"] == 0 and described["held_out_episodes"] == 1
    recorded, = facts["recordings"]
    assert abs(recorded["frames"] - SECONDS * FPS) <= 2 and recorded["damage"] is None
    assert (out / "contact-sheet.png").is_file() and str(out / "contact-sheet.png") == facts["contact_sheet"]


def test_a_key_is_down_in_the_frame_that_shows_it_and_turns_add_up(made, play):
    """The game answers at once, so what is lit at a frame's time is held in the action that led to it."""
    rollouts, num = episodes(made[0]), 0
    space = lerobot.LeRobotFolder.open(made[0]).source.action_space
    assert sum(is_held_out(rollout.seed) for rollout in rollouts) == 1
    for rollout in rollouts:
        held = [space.decode(vector).keys for vector in rollout.actions]
        for frame, before, keys, after in zip(rollout.frames[2:], held[1:], held[2:], [*held[3:], set()]):
            shown = {{"W": "w"}.get(key, key) for key in lit(frame)}
            assert shown <= keys | before  # its picture is the nearest one, up to 22 ms away
            assert keys <= shown | {key for key in keys if key not in after or key not in before}
            num += 1
    assert num > 100
    recorded, = made[1]["recordings"]
    assert recorded["search"]["clear"] and abs(recorded["search"]["offset"]) <= 0.03


def test_turns_of_an_interval_are_summed_and_what_is_beyond_the_limit_is_cut(tmp_path, play):
    write_video(tmp_path / "a.mp4", play, np.arange(0, SECONDS, 0.05))
    write_events(tmp_path / "a.jsonl", play)
    facts = run_import([tmp_path / "a.mp4"], out=tmp_path / "set", actions=ACTIONS, fps=10, fit=SMALL)
    first = episodes(tmp_path / "set")[0]
    space = lerobot.LeRobotFolder.open(tmp_path / "set").source.action_space
    turned = np.array([space.decode(vector).look[0] for vector in first.actions])
    edges = np.arange(len(turned)) / 10
    truth = np.diff([play.state(t - 1e-4)[1] for t in edges])  # an event at a border belongs to what follows
    assert np.abs(truth).max() > facts["look_limit"] / 2
    assert turned[1:] == pytest.approx(np.clip(truth, -facts["look_limit"], facts["look_limit"]), abs=1e-5)


@pytest.mark.parametrize("rows, turned", [
    ("t,w,dx\n0,1,9\n0.05,0,1\n0.1,0,2\n", [1, 2]),  # states: what was moved since the row before
    ("t,key,down,dx\n0,w,1,1\n0,,,3\n0.05,w,0,\n0.05,,,2\n0.1,,,9\n", [4, 2])])  # events: at that moment
def test_what_a_row_moved_is_of_the_stretch_that_it_tells_of(tmp_path, rows, turned):
    (tmp_path / "a.csv").write_text(rows)
    log = read_log(tmp_path / "a.csv")
    columns = ActionColumns.parse("w=w, look_yaw=dx", columns_of([log]))
    between = Inputs(log, columns, columns.space({})).between(np.array([0.0, 0.05, 0.1]))
    assert between[:, 0].tolist() == [1, 0] and between[:, 1].tolist() == turned


def test_a_log_as_documented_fits_its_video_as_it_is(tmp_path, play):
    write_video(tmp_path / "a.mp4", play, np.arange(0, SECONDS, 0.05))
    write_states(tmp_path / "a.csv", play, FPS)
    facts, = run_import([tmp_path], out=tmp_path / "set", time="ms*0.001", fit=SMALL,
                        actions="w=forward, space=jump, look_yaw=turned")["recordings"]
    assert facts["search"]["clear"] and abs(facts["search"]["offset"]) <= 0.01


def test_a_log_with_a_row_for_every_frame_gives_each_frame_its_row(tmp_path, play):
    """Row i holds the keys of the action taken at frame i, row i + 1 what it moved; what lies outside the log
    is left out.
    """
    write_video(tmp_path / "a.mp4", play, np.arange(0, SECONDS, 0.05))
    log = write_states(tmp_path / "a.csv", play, FPS)
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], *lines[11:]]) + "\n")
    facts = run_import([tmp_path / "a.mp4"], out=tmp_path / "set", time="ms*0.001", fit=SMALL,
                       actions="w=forward, space=jump, look_yaw=turned")
    assert facts["recordings"][0]["first_second"] == 0.5
    first, space = episodes(tmp_path / "set")[0], ActionSpace(("w", "space"), facts["look_limit"], 1)
    for vector, line, after in list(zip(first.actions[1:], lines[11:], lines[12:]))[:60]:
        (_, forward, jump, _), turned = line.split(","), after.split(",")[-1]
        action = space.decode(vector)
        assert (("w" in action.keys), ("space" in action.keys)) == (forward == "True", jump == "True")
        limit = facts["look_limit"]
        assert action.look[0] == pytest.approx(min(max(float(turned), -limit), limit), abs=1e-5)


def test_frames_of_ten_bits_are_read_and_a_torn_video_gives_what_comes_before(tmp_path, play):
    write_video(tmp_path / "a.mkv", play, np.arange(0, SECONDS, 0.05), codec="ffv1",
                pix_fmt="yuv420p10le")
    write_events(tmp_path / "a.parquet", play)
    whole = run_import([tmp_path / "a.mkv"], out=tmp_path / "whole", actions=ACTIONS)
    frames = episodes(tmp_path / "whole")[0].frames
    space = lerobot.LeRobotFolder.open(tmp_path / "whole").source.action_space
    held = [space.decode(vector).keys for vector in episodes(tmp_path / "whole")[0].actions]
    assert np.mean([{{"W": "w"}.get(key, key) for key in lit(frame)} <= keys
                    for frame, keys in zip(frames[1:], held[1:])]) == 1
    os.truncate(tmp_path / "a.mkv", int(0.85 * (tmp_path / "a.mkv").stat().st_size))
    torn = run_import([tmp_path / "a.mkv"], out=tmp_path / "torn", actions=ACTIONS)
    assert 100 < torn["recordings"][0]["frames"] < whole["recordings"][0]["frames"]
    lerobot.verify(tmp_path / "torn")


def test_it_is_trained_on_without_a_game(tmp_path, play):
    for name in "ab":
        write_video(tmp_path / f"{name}.mp4", play, np.arange(0, SECONDS, 0.05))
        write_events(tmp_path / f"{name}.json", play)
    run_import([tmp_path / "a.mp4", tmp_path / "b.mp4"], out=tmp_path / "set", actions=ACTIONS, name="toy",
               fit="resize 24x16", logs=[tmp_path / "a.json", tmp_path / "b.json"])
    assert begin(tmp_path / "run", tmp_path / "set").run()


# Offsets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys, mapping, measured", [
    (0.2, ACTIONS, "turns"), (1.0, "w=W, space=space", "motion"),
    (0.2, ACTIONS.replace("dx*", "dx*-"), "turns")])
def test_a_delay_is_found_and_only_applied_when_asked(keys, mapping, measured, tmp_path):
    play = Play(SECONDS, keys=keys)
    write_video(tmp_path / "a.mp4", play, np.arange(0, SECONDS, 0.05), delay=0.3)
    write_events(tmp_path / "a.csv", play)
    read = {"fit": SMALL, "actions": mapping}
    as_is, = run_import([tmp_path], out=tmp_path / "as_is", **read)["recordings"]
    found = as_is["search"]
    assert as_is["offset"] == 0 and (found["measured"], found["clear"]) == (measured, True)
    assert found["offset"] == pytest.approx(0.3, abs=0.06) and found["share"] > found["at_zero"]
    assert found["wrong_way"] == ("dx*-" in mapping)
    moved, = run_import([tmp_path], out=tmp_path / "moved", offset="auto", **read)["recordings"]
    assert moved["offset"] == found["offset"]


def test_the_log_of_another_recording_is_not_clear_and_auto_refuses_it(tmp_path, play):
    write_video(tmp_path / "a.mp4", play, np.arange(0, SECONDS, 0.05))
    write_events(tmp_path / "a.csv", Play(SECONDS, seed=5))
    with pytest.raises(ValueError, match="--offset auto: .*not clear.*nothing stands out"):
        run_import([tmp_path / "a.mp4"], out=tmp_path / "set", actions=ACTIONS, offset="auto")
    assert not (tmp_path / "set").exists()


# Named formats ----------------------------------------------------------------------------------------------


def vpt_line(i, play):
    held, yaw = play.state(i / 20)
    keys = [{"W": "key.keyboard.w", "space": "key.keyboard.space"}[key] for key in sorted(held)]
    return {"mouse": {"x": 0, "y": 0, "dx": (play.state((i + 1) / 20)[1] - yaw) / 0.15, "dy": 0.0,
                      "buttons": [0], "newButtons": [0] * (i in (0, 100))},
            "keyboard": {"keys": keys, "newKeys": [], "chars": ""}, "isGuiOpen": 120 <= i < 130, "hotbar": 0}


def test_a_vpt_recording_is_read_by_name(tmp_path, play):
    write_video(tmp_path / "v.mp4", play, np.arange(0, SECONDS, 0.05))
    lines = [vpt_line(i, play) for i in range(200)]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = run_import([tmp_path / "v.mp4"], out=tmp_path / "set", format="vpt", fit=SMALL)
    opened = lerobot.LeRobotFolder.open(tmp_path / "set")
    space, first = opened.source.action_space, episodes(tmp_path / "set")[0]
    assert facts["fps"] == 20 and space.look_axes == 2 and {"w", "e", "ctrl", "mouse_left"} <= set(space.keys)
    for i, vector in enumerate(first.actions[1:]):  # row i holds line i
        action = space.decode(vector)
        assert ("w" in action.keys) == ("key.keyboard.w" in lines[i]["keyboard"]["keys"])
        # an attack that is held from the start on was never pressed: it counts from line 100 on
        assert ("mouse_left" in action.keys) == (i >= 100)
        degrees = min(max(0.15 * lines[i]["mouse"]["dx"], -space.look_limit), space.look_limit)
        assert action.look[0] == pytest.approx(0 if 120 <= i < 130 else degrees, abs=1e-5)


def test_counter_strike_files_are_read_by_name(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "hdf5_dm_1.hdf5", "w") as file:
        for i in range(160):
            y = np.zeros(51)
            y[0], y[11] = i % 2, i % 3 == 0
            y[13 + (11 + (3 if i % 4 == 0 else 0))], y[13 + 23 + 7] = 1, 1  # x: 0 or 10 counts; y: 0
            file[f"frame_{i}_x"] = np.full((30, 56, 3), (0, 0, i), np.uint8)  # BGR: red
            file[f"frame_{i}_y"], file[f"frame_{i}_xaux"] = y, rng.random(54)
    run_import([tmp_path], out=tmp_path / "set", format="csgo", fit=SMALL)
    opened = lerobot.LeRobotFolder.open(tmp_path / "set")
    first, space = episodes(tmp_path / "set")[0], opened.source.action_space
    assert opened.source.fps == 16 and first.frames[7, 5, 5].tolist() == [7, 0, 0]
    actions = [space.decode(vector) for vector in first.actions[1:]]
    assert [("w" in action.keys, "mouse_left" in action.keys) for action in actions] == [
        (i % 2 == 1, i % 3 == 0) for i in range(len(actions))]
    assert [action.look[0] for action in actions] == pytest.approx(
        [0.55 if i % 4 == 0 else 0 for i in range(len(actions))], abs=1e-5)


# What is refused --------------------------------------------------------------------------------------------


def test_every_kind_of_file_holds_the_same_log(tmp_path, play):
    logs = [read_log(write_events(tmp_path / f"a{suffix}", play)) for suffix in (
        ".csv", ".json", ".jsonl", ".parquet")]
    assert logs[0].is_events and set(logs[0].rows) == {"W", "space", "dx"}
    for log in logs[1:]:
        assert log.times == pytest.approx(logs[0].times) and log.rows.keys() == logs[0].rows.keys()
        assert all((log.rows[name] == logs[0].rows[name]).all() for name in log.rows)


@pytest.mark.parametrize("log, options, words", [
    (None, {}, "no log of its input .* so a video alone is not enough"),
    ("t,forward\n0,1\n", {"actions": "w=jump"}, "there is no column 'jump'; the columns are 0 'forward'"),
    ("t,forward\n0,1\n", {}, "no key is named; the columns are 0 'forward'"),
    ("when,w\n0,1\n", {}, "no column is called t, time, .*the columns are 'when', 'w'"),
    ("when,w\n0,1\n", {"time": "then*2"}, "--time 'then.2': expected COLUMN .* 'when', 'w'"),
    ("t,key,down\n0,w,maybe\n", {}, "row 0: column 'down' is 'maybe', expected down or up"),
    ("t,name,act\n0,w,1\n", {"events": "name=what"}, "--events 'name=what': .* 't', 'name', 'act'"),
    ("t,w\n0,\n", {}, r"a.csv, row 0 .at 0 s.: column 'w' is empty or no finite .* out of --actions"),
    ("t,w,dx\n0,1,2\n1,0,nan\n", {"actions": "w=w, look_yaw=dx"}, r"a.csv, row 1 .at 1 s.: column 'dx'"),
    ("t,w,dx\n0,1,inf\n1,0,2\n", {"actions": "w=w, look_yaw=dx"}, r"a.csv, row 0 .at 0 s.: column 'dx'"),
    ("t,key,down,dx\n0,w,1,\n1,,,-inf\n", {"actions": "w=w, look_yaw=dx"}, r"a.csv, row 1 .*column 'dx'"),
    ("t,w\n0,1\n,0\n", {}, "row 1: column 't' holds no number of seconds"),
    *(("t,w\n0,1\n9,0\n", {"fps": fps}, f"--fps {fps}: expected frames a second, more than 0 and at most")
      for fps in (-5.0, 0.0, 1000.5, math.inf, math.nan)),
    *((f'{{"format": "worldplay take", "fps": {fps}}}\n{{"t": 0, "key": "w", "down": 1}}\n', {},
       "a.jsonl: fps .* in its first line: expected frames a second")
      for fps in ("-5", "0", '"20"', "Infinity")),
    ("t,w\n0,1,2\n", {}, "line 2: has another number of columns"),
    ("t,w\n1700000000,1\n1700000009,0\n", {}, "1700000000.00 to .* are not those of the video, 0 to"),
    ("t,w\n", {}, "no rows"),
    ("t,w\n0,1\n9,0\n", {"offset": "soon"}, "--offset soon: expected a number of seconds, or auto"),
    ("t,w\n0,1\n9,0\n", {"format": "csgo"}, "holds no .hdf5 or .h5 file"),
    ("t,w\n0,1\n9,0\n", {"logs": ["x.csv", "y.csv"]}, "2 logs for 1 videos"),
])
def test_what_does_not_fit_is_said_before_anything_is_written(log, options, words, tmp_path, recorded):
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes((recorded / "a.mp4").read_bytes())
    if log is not None:
        (folder / f"a.{'jsonl' if log.startswith('{') else 'csv'}").write_text(log)
    with pytest.raises(ValueError, match=words):
        run_import([folder], out=tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_a_blank_in_a_column_that_is_not_used_is_nothing(tmp_path, recorded):
    (tmp_path / "a.mp4").write_bytes((recorded / "a.mp4").read_bytes())
    rows = "".join(f"{0.5 * i},{i % 2},{'' if i else 'nan'}\n" for i in range(25))
    (tmp_path / "a.csv").write_text(f"t,w,health\n{rows}")
    assert run_import([tmp_path / "a.mp4"], out=tmp_path / "set", fit=SMALL)["actions"] == "w=w"


def test_vpt_and_counter_strike_say_what_is_missing(tmp_path, recorded, monkeypatch):
    (tmp_path / "a.mp4").write_bytes((recorded / "a.mp4").read_bytes())
    (tmp_path / "a.jsonl").write_text('{"t": 1}\n')
    with pytest.raises(ValueError, match="a.jsonl, line 1: no line of VPT's recorder"):
        run_import([tmp_path / "a.mp4"], out=tmp_path / "set", format="vpt")
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(ValueError, match="a.jsonl: no rows"):
        run_import([tmp_path / "a.mp4"], out=tmp_path / "set", format="vpt")
    (tmp_path / "b.hdf5").write_bytes(b"x")
    with pytest.raises(ValueError, match="b.hdf5: no HDF5 file that can be read"):
        run_import([tmp_path / "b.hdf5"], out=tmp_path / "set", format="csgo")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(WorldError, match="needs h5py, which is not installed: run pip install h5py"):
        run_import([tmp_path / "b.hdf5"], out=tmp_path / "set", format="csgo")


def test_pictures_of_an_odd_size_stay_so_where_they_are_not_fitted(tmp_path, play):
    write_video(tmp_path / "a.mp4", play, np.arange(0, SECONDS, 0.05))
    write_events(tmp_path / "a.csv", play)
    run_import([tmp_path / "a.mp4"], out=tmp_path / "set", actions="space=space",
               fit=f"pad {SIZE[1]}x{SIZE[0]}")
    first = episodes(tmp_path / "set")[0]
    assert first.frames.shape[1:] == (*SIZE, 3) and math.prod(first.actions.shape) == len(first.frames)
    error = np.abs(first.frames[20].astype(int) - play.frame(20 * 0.05)).mean()
    assert error < 12  # lossy, and upright


def test_the_key_t_is_kept_beside_a_column_of_times_called_t(tmp_path):
    lines = [{"format": "worldplay take", "version": 1, "fps": 20.0}, {"t": 0.0, "dx": 0, "dy": 0},
             {"t": 0.5, "key": "t", "down": 1}, {"t": 1.0, "key": "w", "down": 1},
             {"t": 1.5, "key": "t", "down": 0}]
    (tmp_path / "take.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log(tmp_path / "take.jsonl")
    assert log.rows["t"].tolist() == [0, 1, 1, 0] and log.rows["w"].tolist() == [0, 0, 1, 1]
    assert log.times.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert own_actions([log]) == "t=t, w=w"
