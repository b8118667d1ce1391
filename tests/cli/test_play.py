"""The play command: figures, exit codes, one line for every mistake, and no package loaded in vain."""
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import ROOT
from tests.client.fake_worlds import FakeWorld, keys_shown
from worldplay import __version__
from worldplay.action import Action, parse_script
from worldplay.cli.play import __dict__, _with_address, main
from worldplay.data.clip import read_clip

SCRIPT = "w*12, d+look(4,0)*8, idle*5"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Log and settings go to the test's folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def run(*arguments, world=FakeWorld):
    return main([str(argument) for argument in arguments], open_world=lambda config: world())


def headless(folder, *arguments, script=SCRIPT, world=FakeWorld):
    return run("--headless", "--script", script, "--out", folder / "clip.mp4", *arguments, world=world)


def test_headless_prints_one_json_object_and_writes_the_clip(tmp_path, capsys):
    assert headless(tmp_path, "--json", world=lambda: FakeWorld(delay=0.004, commit=0.006)) == 0
    printed = capsys.readouterr().out
    report = json.loads(printed)
    assert printed.count("\n") == 1
    assert {"world", "device", "dtype", "steps", "seed", "frames", "fps", "frame_ms", "out"} <= set(report)
    assert set(report["frame_ms"]) == {"p50", "p95", "p99", "max"}
    assert report["frames"] == 25 and report["frame_ms"]["p50"] >= 10, "context commit included"
    assert report["fps"] <= 100 and report["world_fps"] == 20.0
    clip = read_clip(report["out"])
    assert clip.actions == [Action(), *parse_script(SCRIPT, clip.action_space)]
    assert [keys_shown(frame) for frame in clip.frames()] == [action.keys for action in clip.actions]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.json", "clip.mp4", "state"]


def test_headless_without_json_keeps_stdout_empty(tmp_path, capsys):
    assert headless(tmp_path) == 0
    said = capsys.readouterr()
    assert said.out == "" and "25 frames" in said.err


def test_a_clip_is_watched_like_a_world(tmp_path, capsys):
    assert headless(tmp_path) == 0
    (tmp_path / "again").mkdir()
    status = main([str(tmp_path / "clip.mp4"), "--headless", "--script", "idle*25", "--out",
                   str(tmp_path / "again" / "clip.mp4"), "--json"])
    assert status == 0 and json.loads(capsys.readouterr().out)["device"] == "playback"
    first, second = (np.stack(list(read_clip(tmp_path / name).frames())) for name in ("clip", "again/clip"))
    assert np.abs(first.astype(int) - second).mean((1, 2, 3)).max() < 4


def test_a_picture_is_a_start(tmp_path):
    assert headless(tmp_path, "--image", ROOT / "assets" / "icon.png") == 0
    clip = read_clip(tmp_path / "clip")
    assert clip.sidecar["scene"] is None and clip.start.shape == (1, 96, 128, 3)
    assert np.abs(next(clip.frames()).astype(int) - clip.start[0]).mean() < 4


@pytest.mark.parametrize("arguments, status, says", [
    (["--headless", "--script", "", "--out", "clip.mp4"], 2, "the script is empty"),
    (["--headless", "--script", "w*-3", "--out", "clip.mp4"], 2, "count must be at least 1"),
    (["--headless", "--script", "zz*3", "--out", "clip.mp4"], 2, "unknown key 'zz'"),
    (["--headless", "--script", "look(99,0)*3", "--out", "clip.mp4"], 2, "at most 12 degrees"),
    (["--headless", "--script", "w*9, w*99999999999", "--out", "clip.mp4"], 2,
     "segment 2 'w*99999999999': a script has at most 1000000 steps"),
    (["--headless", "--script", "w*600000, idle*400001", "--out", "clip.mp4"], 2, "segment 2 'idle*400001'"),
    (["--headless", "--script", "w*3", "--out", "folder.mp4"], 1, "folder.mp4: it is a folder; give"),
    (["--headless", "--script", "w*3"], 2, "--headless needs --out"),
    (["--headless", "--out", "clip.mp4"], 2, "--headless needs --script"),
    (["--headless", "--script", "w*3", "--out", "clip.avi"], 2, "ends in .mp4"),
    (["--headless", "--script", "w*3", "--out", "clip.mp4", "--record", "x"], 2, "--record needs a window"),
    (["--headless", "--script", "w*3", "--out", "there.mp4"], 1, "or --overwrite to replace the clip"),
    (["--headless", "--script", "w*3", "--out", "half.mp4"], 1, "half.json is there already"),
    (["--headless", "--script", "w*3", "--out", "clip.mkv"], 2, "--out clip.mkv: expected a name that ends"),
    (["--serve", "here:http"], 2, "--serve 'here:http': expected HOST:PORT"),
    (["--serve", "--fullscreen"], 2, "--fullscreen has no effect with --serve"),
    (["--serve", "--headless", "--script", "w*3", "--out", "clip.mp4"], 2, "--serve needs a window"),
    (["--serve", "--env", "x"], 2, "--env has no effect with --serve"),
    (["doom-maze", "--real", "--env", "x"], 2, "--env has no effect on the real game"),
    (["--overwrite"], 2, "--overwrite has an effect only with --headless"),
    (["--script", "w*3"], 2, "--script has an effect only with --headless"),
    (["--json"], 2, "--json has an effect only with --headless"),
    (["a.mp4", "--steps", "2"], 2, "--steps has no effect on a recording (a.mp4)"),
    (["a.mp4", "--seed", "7"], 2, "--seed has no effect on a recording"),
    (["a.mp4", "--device", "cpu"], 2, "--device has no effect on a recording"),
    (["a.mp4", "--record", "x"], 2, "--record has no effect on a recording"),
    (["--scene", "one", "--image", "x.png"], 2, "exclude each other"),
    (["--real"], 2, "--real needs the name of an environment, for example doom-maze"),
    (["doom-maze", "--real", "--image", "x.png"], 2, "--image has no effect on the real game"),
    (["doom-maze", "--real", "--scene", "x.mp4"], 2, "--scene x.mp4: the real game begins from no file"),
    (["doom-maze", "--real", "--steps", "1"], 2, "--steps has no effect on the real game"),
    (["doom-maze", "--real", "--seed", "-3"], 2, "--seed -3: expected at least 0"),
    (["doom-maze", "--real", "--device", "cpu"], 2, "--device has no effect on the real game"),
    (["--headless", "--script", "w*3", "--out", "clip.mp4", "--scene", "moon"], 1, "'moon'; it has one, two"),
    (["--headless", "--script", "w*3", "--out", "clip.mp4", "--image", "moon.png"], 1, "moon.png does not"),
    (["--headless", "--script", "w*3", "--out", "clip.mp4", "--scene", "moon.mp4"], 1, "moon.mp4 does not"),
    (["--headless", "--script", "w*3", "--out", "file/clip.mp4"], 1, "cannot be written"),
    (["--record", "file/clips"], 1, "clips cannot be written to file/clips"),
    (["--stats", "file/stats.json"], 1, "stats.json cannot be written to file"),
])
def test_mistakes_are_one_line_that_names_the_log(tmp_path, monkeypatch, capsys, arguments, status, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "there.mp4").touch()
    (tmp_path / "half.json").touch()
    assert run(*arguments) == status
    said = capsys.readouterr()
    assert said.out == "" and says in said.err and said.err.count("\n") == 1
    log = tmp_path / "state" / "worldplay" / "play.log"
    assert str(log) in said.err and "Traceback" in log.read_text() and "Traceback" not in said.err


@pytest.mark.parametrize("typed, understood", [
    (["--serve"], ["--serve", "127.0.0.1:8765"]),
    (["--serve", "doom"], ["--serve", "127.0.0.1:8765", "doom"]),
    (["doom", "--serve", "--seed", "3"], ["doom", "--serve", "127.0.0.1:8765", "--seed", "3"]),
    (["--serve", "0.0.0.0:80", "doom"],) * 2, (["--serve", "0"],) * 2, (["doom"],) * 2])
def test_an_address_may_be_left_out(typed, understood):
    assert _with_address(typed) == understood


@pytest.mark.parametrize("script", ["", "w*0", "zz*3", "w3", "w*9999999", "look(1,2*3"])
def test_a_script_that_no_world_understands_opens_none(tmp_path, script):
    opened = []
    assert headless(tmp_path, script=script, world=lambda: opened.append(1) or FakeWorld()) == 2
    assert not opened


@pytest.mark.parametrize("fails", [{"fail_at": 6}, None])
def test_play_that_breaks_off_says_in_one_line_what_is_kept(tmp_path, capsys, fails):
    (tmp_path / "again").mkdir()
    arguments = ["--headless", "--script", "idle*25", "--out", str(tmp_path / "again" / "clip.mp4")]
    if fails:
        status, reason = main(arguments, open_world=lambda config: FakeWorld(**fails)), "the device went"
    else:
        assert headless(tmp_path) == 0
        data = (tmp_path / "clip.mp4").read_bytes()
        (tmp_path / "clip.mp4").write_bytes(data[:len(data) // 2])
        capsys.readouterr()
        status = main([str(tmp_path / "clip.mp4"), *arguments])
        reason = "its video is damaged (a packet is damaged) after"
    assert status == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "|" not in line]
    assert reason in line and f"{tmp_path / 'again' / 'clip.mp4'} holds what was shown before" in line
    clip = read_clip(tmp_path / "again" / "clip")
    assert len(list(clip.frames())) == clip.num_frames > 1


def test_a_finished_clip_is_replaced_only_by_overwrite(tmp_path, capsys):
    assert headless(tmp_path, script="w*5") == 0
    before = (tmp_path / "clip.mp4").read_bytes(), (tmp_path / "clip.json").read_bytes()
    opened = []
    assert headless(tmp_path, script="a*3", world=lambda: opened.append(1) or FakeWorld()) == 1
    assert not opened
    assert ((tmp_path / "clip.mp4").read_bytes(), (tmp_path / "clip.json").read_bytes()) == before
    assert "--overwrite" in capsys.readouterr().err
    assert headless(tmp_path, "--overwrite", script="a*3") == 0
    assert [action.keys for action in read_clip(tmp_path / "clip").actions] == [set(), {"a"}, {"a"}, {"a"}]


def test_choices_are_said_in_order(capsys):
    with pytest.raises(SystemExit):
        run("--steps", "3")
    assert "('1', '2', '4')" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("arguments", [
    ["--steps", "3"], ["--nonsense"], ["--seed", "x"], ["--device", "gpu"]])
def test_unknown_flags_and_values_are_bad_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"worldplay {__version__}\n"


def play_process(tmp_path, *arguments, code=None):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")}
    folders = {"XDG_STATE_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code] if code else [sys.executable, str(ROOT / "play.py")]
    return subprocess.run([*command, *arguments], env=environment | folders, cwd=tmp_path, text=True,
                          capture_output=True, timeout=240)


def test_without_a_display_one_line_says_so(tmp_path):
    done = play_process(tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stdout == ""
    assert "no display" in done.stderr and "--headless" in done.stderr


def test_an_unexpected_failure_is_one_line_with_its_traceback_in_the_log(tmp_path):
    done = play_process(tmp_path, "--headless", "--script", "w*3", "--out", "c.mp4", code=(
        "import sys\nfrom worldplay.cli.play import main\ndef broken(config): return 1 / 0\n"
        "sys.exit(main(sys.argv[1:], open_world=broken))"))
    assert done.returncode == 1 and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
    assert "unexpected ZeroDivisionError" in done.stderr
    assert "in broken" in (tmp_path / "worldplay" / "play.log").read_text()


def test_headless_needs_no_pygame_and_the_client_no_torch(tmp_path):
    assert headless(tmp_path) == 0
    done = play_process(tmp_path, code=(
        "import sys\nfrom worldplay.cli.play import main\n"
        f"main([{str(tmp_path / 'clip.mp4')!r}, '--headless', '--script', 'w*5', '--out', 'again.mp4'])\n"
        "assert not {'torch', 'pygame'} & set(sys.modules)\n"
        "import worldplay.client.desktop, worldplay.client.window\n"
        "assert 'torch' not in sys.modules and 'pygame' in sys.modules"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.mp4").exists()


def test_a_recording_cut_off_before_is_recovered_at_the_start(tmp_path, capsys):
    clips = tmp_path / "clips"
    kill = ("import os, time\nfrom tests.client.fake_worlds import FakeWorld\n"
            "from tests.client.tape import Tape\nfrom worldplay.client.worker import Reset\n"
            "world = FakeWorld(); recorder = Tape(world); recorder.begin(Reset(), world.reset())\n"
            f"recorder.start_in({str(clips)!r})\n"
            "for i in range(60):\n"
            "    recorder.step(world.action_space.decode([0] * 6))\n"
            "    for frame in world.step(world.action_space.decode([0] * 6)): recorder.frame(frame, {})\n"
            "time.sleep(1.0)\nos.kill(os.getpid(), 9)")
    assert play_process(tmp_path, code=kill).returncode == -9
    assert len(list(clips.glob("*.part.*"))) == 2
    assert run("--headless", "--script", "w*2", "--out", clips / "new.mp4") == 0
    assert "recovered" in capsys.readouterr().err and not list(clips.glob("*.part.*"))
    [old] = [path for path in clips.glob("*.mp4") if path.stem != "new"]
    assert read_clip(old).num_frames > 40


def test_a_recovered_clip_of_the_name_asked_for_is_not_replaced(tmp_path, capsys):
    assert headless(tmp_path, script="w*5") == 0
    for suffix in ("mp4", "json"):  # what a crash right before the last renaming leaves
        (tmp_path / f"clip.{suffix}").rename(tmp_path / f"old.{suffix}")
    header = json.loads((tmp_path / "old.json").read_text())
    frames, actions = header.pop("frames"), header.pop("actions")
    lines = [header | {"first": 0, "actions": actions[:1]},
             *({"action": actions[frame["step"]], **frame} for frame in frames)]
    (tmp_path / "clip.part.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "old.mp4").rename(tmp_path / "clip.part.mp4")
    opened = []
    assert headless(tmp_path, script="a*3", world=lambda: opened.append(1) or FakeWorld()) == 1
    assert not opened and "is there already; give another name" in capsys.readouterr().err
    assert read_clip(tmp_path / "clip").num_frames == 6


def test_the_figures_name_the_clip_that_was_written(tmp_path, capsys):
    class Slow(FakeWorld):
        def step(self, action):  # another program writes a clip of that name meanwhile
            (tmp_path / "clip.mp4").write_bytes(b"theirs")
            return super().step(action)
    assert headless(tmp_path, "--json", script="w*5", world=Slow) == 0
    out = json.loads(capsys.readouterr().out)["out"]
    assert read_clip(out).num_frames == 6 and (tmp_path / "clip.mp4").read_bytes() == b"theirs"


def test_a_recording_that_cannot_be_recovered_is_a_warning_and_play_goes_on(tmp_path, capsys):
    (tmp_path / "old.part.jsonl").mkdir()
    assert headless(tmp_path) == 0
    assert "cannot be recovered" in capsys.readouterr().err and (tmp_path / "clip.mp4").exists()


def test_torch_is_mapped_before_it_is_imported(tmp_path):
    done = play_process(tmp_path, code=(
        "from worldplay.cli import play as app\napp._load_torch_unlocked()\nimport torch\n"
        "assert torch.ones(2).sum() == 2"))
    assert done.returncode == 0, done.stderr
    assert "torch" not in __dict__


def test_a_world_opens_without_torchs_compiler_which_takes_a_second_to_import(tmp_path):
    done = play_process(tmp_path, code=(
        "import gc, sys\nfrom worldplay.cli import play as app\nfrom worldplay.action import Action\n"
        "world = app.load(app.PlayConfig())\nworld.reset()\nlist(world.step(Action()))\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)\n"
        "assert gc.isenabled() and gc.get_freeze_count() > 100_000"))
    assert done.returncode == 0, done.stderr
