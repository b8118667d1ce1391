"""Recording a window: what becomes a take, what is never stored, and what a break leaves behind."""
import errno
import json
import shutil
import sys

import numpy as np
import pytest

from worldplay.capture import recorder as module
from worldplay.capture.inputs import Inputs
from worldplay.capture.recorder import Recorder, run_record
from worldplay.capture.takes import TakeWriter
from worldplay.capture.windows import Region
from worldplay.data import lerobot
from worldplay.data.import_play import run_import
from worldplay.data.importing import FrameFit
from worldplay.errors import WorldError

GAME, MAIL = 7, 8  # windows
PERIOD = 0.05


class Desktop:
    """Two windows, a screen that is white while w is held in the game, and devices; time goes by ticks."""

    def __init__(self, monkeypatch):
        self.now, self.front, self.held = 100.0, GAME, set()
        self.inputs = Inputs(lambda name: name in ("w", "f9", "space"))
        self.is_gone = False
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)

    def titles(self):
        return {GAME: "The Game 1.0", MAIL: "Mail"}

    def focused(self):
        return self.front

    def region(self, window):
        return None if self.is_gone else Region(0, 0, 64, 48)

    def grab(self, region):
        return np.full((region.height, region.width, 3), 255 if "w" in self.held else 0, np.uint8)

    def press(self, key, down=True):
        """Between two ticks."""
        self.held = self.held | {key} if down else self.held - {key}
        self.inputs.put_key(self.now + PERIOD / 2, key, down)

    def recorder(self, folder, **options):
        folder.mkdir(exist_ok=True, parents=True)
        return Recorder(folder, **{"desktop": self, "screen": self, "inputs": self.inputs, "window": GAME,
                                   "region": None, "fps": 20.0, "fit": FrameFit("resize", (16, 32)),
                                   "header": {"actions": None}, "hotkey": "f9"} | options)

    def play(self, recorder, num, **changes):
        """Tick that often; changes: {"at_TICK": function}."""
        for i in range(num):
            self.now += PERIOD
            if not recorder.tick():
                return False
            changes.get(f"at_{i}", lambda: None)()
        return True

    def hot(self):
        self.press("f9")
        self.press("f9", False)


@pytest.fixture
def desktop(monkeypatch):
    return Desktop(monkeypatch)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_take_becomes_a_data_set_with_the_key_at_the_frame_that_shows_it(desktop, tmp_path):
    recorder = desktop.recorder(tmp_path / "takes")
    changes = {f"at_{i}": lambda i=i: desktop.press("w", i % 20 == 0) for i in range(10, 200, 10)}
    desktop.play(recorder, 1, at_0=desktop.hot)
    desktop.play(recorder, 200, **changes)
    recorder._end_take()
    made = run_import([tmp_path / "takes"], out=tmp_path / "set")
    assert made["actions"] == "w=w" and made["fps"] == 20 and made["fit"] is None
    assert lerobot.describe(tmp_path / "set")["lossy"] is False  # what is stored is what was captured
    opened = lerobot.LeRobotFolder.open(tmp_path / "set")
    assert opened.source.frame_size == (16, 32)
    for rollout in opened.rollouts():
        was = np.concatenate([[False], rollout.actions[:-1, 0] > 0.5])
        for frame, down, before in list(zip(rollout.frames, rollout.actions[:, 0] > 0.5, was))[2:]:
            # held between the two frames, or let go of between them
            assert (frame.max() == 255) == down or (down and before and frame.max() == 0)


def test_what_is_typed_into_another_window_is_never_written(desktop, tmp_path):
    recorder = desktop.recorder(tmp_path / "takes")
    desktop.play(recorder, 40, at_0=desktop.hot)

    def leave():  # the focus goes within the tick in which a key is pressed
        desktop.press("w")
        desktop.front = MAIL
    desktop.play(recorder, 10, at_0=leave, at_3=lambda: desktop.press("space"))
    assert recorder.num_takes == 1 and recorder._take is None
    assert not any("key" in line for line in lines(tmp_path / "takes/take-001.jsonl"))
    desktop.front = GAME
    desktop.play(recorder, 40)
    recorder._end_take()
    assert recorder.num_takes == 2  # what is still held when the game is in front again is held there
    events = [line for line in lines(tmp_path / "takes/take-002.jsonl") if "key" in line]
    assert [(event["key"], event["t"]) for event in events] == [("space", 0.0), ("w", 0.0)]


def test_the_hot_key_starts_and_stops_and_is_not_stored(desktop, tmp_path):
    recorder = desktop.recorder(tmp_path / "takes")
    desktop.play(recorder, 5)
    assert recorder._take is None
    desktop.play(recorder, 40, at_0=desktop.hot)
    desktop.play(recorder, 5, at_0=desktop.hot)
    assert recorder.num_takes == 1 and recorder._take is None
    desktop.play(recorder, 20, at_0=desktop.hot, at_15=desktop.hot)
    assert recorder.num_takes == 1 and len(list((tmp_path / "takes").iterdir())) == 2  # too short: dropped
    assert "f9" not in (tmp_path / "takes/take-001.jsonl").read_text()


def test_a_window_that_closes_ends_the_recording_and_a_region_takes_the_window_in_front(desktop, tmp_path):
    recorder = desktop.recorder(tmp_path / "takes", window=None, region=Region(0, 0, 32, 32))
    desktop.play(recorder, 40, at_0=desktop.hot)
    desktop.front = MAIL
    assert desktop.play(recorder, 2) and recorder.num_takes == 1 and recorder.window == GAME
    other = desktop.recorder(tmp_path / "others")
    desktop.is_gone = True
    assert not desktop.play(other, 3)


def test_a_take_that_is_cut_off_is_read_up_to_its_last_quarter_second(desktop, tmp_path):
    """A copy of the files while they are written is what the end of the process would leave."""
    recorder = desktop.recorder(tmp_path / "takes")
    desktop.play(recorder, 202, at_0=desktop.hot, at_50=lambda: desktop.press("w"))
    shutil.copytree(tmp_path / "takes", tmp_path / "torn")
    with open(tmp_path / "torn/take-001.jsonl", "a") as file:
        file.write('{"t": 10.0, "ke')
    made = run_import([tmp_path / "torn"], out=tmp_path / "set")
    assert recorder._take.num_frames - made["recordings"][0]["frames"] <= 12 and made["actions"] == "w=w"
    lerobot.verify(tmp_path / "set")


@pytest.fixture
def on_desktop(desktop, monkeypatch):
    """run_record on the fake desktop."""
    monkeypatch.setattr(module, "open_desktop", lambda: desktop)
    monkeypatch.setattr(module, "Screen", lambda: desktop)
    monkeypatch.setattr(module, "open_inputs", lambda is_wanted: desktop.inputs)
    monkeypatch.setattr(module, "_require_platform", lambda: None)
    monkeypatch.setattr(module, "_require_packages", lambda: None)
    return desktop


def over(desktop, num):
    """A function that is true at its call number `num`; the hot key is pressed at the second one."""
    calls = []

    def is_over():
        desktop.now += PERIOD
        calls.append(None)
        if len(calls) == 2:
            desktop.hot()
        if len(calls) == 20:
            desktop.press("w")
        return len(calls) > num
    return is_over


def test_a_full_disk_is_one_line_and_leaves_whole_takes(on_desktop, tmp_path, monkeypatch):
    add = TakeWriter.add

    def full(self, *arguments):
        if self.num_frames == 150:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, *arguments)
    monkeypatch.setattr(TakeWriter, "add", full)
    with pytest.raises(OSError, match="the disk is full; .*dataset import .*takes --out OTHER") as failed:
        run_record(out=tmp_path / "set", window="game", is_over=over(on_desktop, 300))
    assert "\n" not in str(failed.value)
    assert run_import([tmp_path / "set/takes"], out=tmp_path / "other")["frames"] > 100
    with pytest.raises(ValueError, match="holds takes of a recording that was cut off; python -m worldplay"):
        run_record(out=tmp_path / "set", window="game")


def test_the_command_records_and_makes_the_data_set(on_desktop, tmp_path):
    made = run_record(out=tmp_path / "set", window="game", size="32x16", is_over=over(on_desktop, 200),
                      actions="w=w, space=space")
    assert made["takes"] == 1 and made["late"] == 0 and made["seconds"] == pytest.approx(9.9, abs=0.3)
    assert lerobot.verify(tmp_path / "set").num_frames == made["frames"]
    assert made["actions"] == "w=w, space=space"
    assert (tmp_path / "set/takes/take-001.mp4").is_file() and (tmp_path / "set/contact-sheet.png").is_file()


@pytest.mark.parametrize("options, words", [
    ({"window": "nothing"}, "no window is called so; there are 'The Game 1.0', 'Mail'"),
    ({"window": ""}, "say what to record"),
    ({"region": "1,2,3"}, "--region 1,2,3: expected X,Y,W,H"),
    ({"window": "game", "exclude": ("esc",)}, "--exclude esc: no key is called so"),
    ({"window": "game", "hotkey": "esc"}, "--hotkey esc: expected f1 to f12"),
    ({"window": "game", "size": "big"}, "expected pad, crop or resize"),
    ({"window": "game", "fps": 0.0}, "--fps 0.0: expected frames a second"),
    ({"window": "game", "fps": 2000.0}, "--fps 2000.0: expected frames a second"),
    ({"window": "game", "offset": "soon"}, "--offset soon: expected a number of seconds"),
    ({"window": "game", "actions": "w=jump"}, "there is no column 'jump'; the columns are 0 'a'"),
    ({"window": "game", "actions": "f=e", "exclude": ("e",)}, "there is no column 'e'"),
])
def test_what_cannot_be_recorded_is_said_before_anything_is_written(options, words, on_desktop, tmp_path):
    with pytest.raises(ValueError, match=words):
        run_record(out=tmp_path / "set", is_over=lambda: True, **options)
    assert not (tmp_path / "set").exists()


def test_keys_that_are_excluded_or_not_named_are_dropped_where_they_arrive():
    assert "e" not in module._wanted(None, ("e",), "f9") and "w" in module._wanted(None, ("e",), "f9")
    assert "x" not in module._wanted(None, (), "x")
    assert module._wanted("w=space, look_yaw=dx*0.1", (), "f9") == ["space"]
    inputs = Inputs({"w"}.__contains__)
    for seconds, name in ((2, "w"), (1, "q"), (3, "w"), (4, None)):
        inputs.put_key(seconds, name, True)
    inputs.put_key(5, "w", False)
    inputs.put_move(2.5, 3, 0)
    assert inputs.take() == ([(2, {"key": "w", "down": 1}), (2.5, {"dx": 3, "dy": 0}),
                              (5, {"key": "w", "down": 0})], frozenset())
    assert inputs.take() == ([], frozenset())


def test_a_session_or_a_machine_that_cannot_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(WorldError, match="X11, Windows and macOS, and this is a Wayland session"):
        run_record(out=tmp_path / "set", window="game")
    monkeypatch.delenv("WAYLAND_DISPLAY")
    monkeypatch.setenv("XDG_SESSION_TYPE", "x11")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(WorldError, match="DISPLAY is not set"):
        run_record(out=tmp_path / "set", window="game")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(WorldError, match="needs mss, which is not installed: run pip install"):
        run_record(out=tmp_path / "set", window="game")
