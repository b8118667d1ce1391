"""Commands as processes: closed streams, readers that leave, signals, folders that cannot be written."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import ROOT
from worldplay.data.clip import read_clip

PATIENCE = 300  # seconds; only a machine that is busy with other things needs them


def shell(command, tmp_path, **environment):
    """What a shell makes of a command line in which $PY is Python and any part of a pipe may fail."""
    folders = {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("STATE", "CONFIG", "CACHE")}
    env = os.environ | {"PYTHONPATH": str(ROOT), "PY": sys.executable} | folders | environment
    return subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, text=True, env=env,
                          capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize("command", [
    "$PY play.py --version >&-", "$PY play.py --version 2>&-", "$PY play.py --help | true",
    "$PY play.py --help 2>&1 | head -1",
    "$PY -m worldplay worlds | head -c 5", "$PY -u -m worldplay worlds | head -c 5",
    "$PY -m worldplay worlds <&- >&- 2>&-",
    "$PY train_world.py --help | true", "$PY -m worldplay --help >&- 2>&-"])
def test_nobody_has_to_read_what_is_printed(command, tmp_path):
    done = shell(command, tmp_path)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("streams", [">&- 2>&-", "<&- >&- 2>&-", "2>&1 | true"])
def test_a_script_is_played_to_its_end_whoever_reads(streams, tmp_path):
    clip = tmp_path / "clip.mp4"
    world = tmp_path / "fake.py"
    world.write_text("import sys\nfrom tests.client.fake_worlds import FakeWorld\n"
                     "from worldplay.cli import play\nfrom worldplay.cli.process import run_process\n"
                     "run_process(lambda: play.main(sys.argv[1:], open_world=lambda config: FakeWorld()))\n")
    done = shell(f"$PY {world} --headless --script 'w*40' --out {clip} {streams}", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert len(list(read_clip(clip).frames())) == 41, "no file took the number of a closed stream"


def test_what_cannot_be_printed_for_want_of_room_is_a_failure(tmp_path):
    done = shell("$PY -m worldplay worlds > /dev/full", tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_a_defect_ends_the_process_whatever_its_threads_do(tmp_path):
    defect = ("import threading\nfrom worldplay.cli.process import run_process\n"
              "threading.Thread(target=threading.Event().wait).start()\n"
              "def main(): raise RuntimeError('a defect')\nrun_process(main)")
    done = shell(f'$PY -c "{defect}"', tmp_path)
    assert done.returncode == 1 and "RuntimeError: a defect" in done.stderr


def test_bad_usage_stays_bad_usage_without_streams(tmp_path):
    assert shell("$PY play.py --nonsense >&- 2>&-", tmp_path).returncode == 2


def test_play_goes_on_where_no_log_cache_setting_or_temporary_file_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "folder")
    names = ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR", "HOME")
    environment = dict.fromkeys(names, nowhere)
    clip = tmp_path / "clip.mp4"
    done = shell(f"$PY play.py --headless --script 'w*3' --out {clip} --json", tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 3 and read_clip(clip).num_frames == 4
    assert "Traceback" not in done.stderr


def test_where_no_home_is_known_play_makes_no_folder_of_that_name(tmp_path):
    code = ("import os, pwd, sys\n\ndef unknown(uid): raise KeyError(uid)\n"
            "pwd.getpwuid = unknown\nos.environ.pop('HOME', None)\n"
            "for name in ('STATE', 'CONFIG', 'CACHE'): os.environ.pop(f'XDG_{name}_HOME', None)\n"
            "from tests.client.fake_worlds import FakeWorld\nfrom worldplay.cli import play\n"
            "from worldplay.cli.process import run_process\n"
            "run_process(lambda: play.main(sys.argv[1:], open_world=lambda config: FakeWorld()))\n")
    done = subprocess.run([sys.executable, "-c", code, "--headless", "--script", "w*3", "--out", "clip.mp4"],
                          cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
                          capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.json", "clip.mp4"]


HELD = """import signal, sys, threading, time
from tests.client.fake_worlds import FakeWorld
from worldplay.cli import play
from worldplay.cli.process import run_process
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where some are ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)
def delay(n):
    if n == 6:
        open(sys.argv[1], "w").close()
    return 0.01 if n < 6 else 0.2
run_process(lambda: play.main(sys.argv[2:], open_world=lambda config: FakeWorld(fps=50.0, delay=delay{more})))
"""


@pytest.mark.parametrize("name, status", [("SIGHUP", 1), ("SIGTERM", 1), ("SIGINT", 1)])
def test_a_signal_leaves_the_whole_clip_of_a_script(tmp_path, name, status):
    process = start(tmp_path, "--headless", "--script", "w*1000", "--out", tmp_path / "clip.mp4")
    process.send_signal(getattr(signal, name))
    process.send_signal(getattr(signal, name) if name != "SIGINT" else 0)  # a closing terminal may send two
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == status and "interrupted" in said and "Traceback" not in said
    assert len(list(read_clip(tmp_path / "clip").frames())) >= 5 and not list(tmp_path.glob("*.part.*"))


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_a_second_signal_breaks_off_nothing_that_is_finished_after_the_first(name):
    program = f"""
import os, signal, sys
from worldplay.cli.process import at_end_signal, run_process
def interrupt():
    raise KeyboardInterrupt
def main():
    try:
        with at_end_signal(interrupt):
            os.kill(os.getpid(), signal.{name})
    finally:
        os.kill(os.getpid(), signal.{name})
        print("finished")
run_process(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, "finished\n"), done.stderr


@pytest.mark.parametrize("name, status", [("SIGHUP", 0), ("SIGTERM", 0), ("SIGINT", 1)])
def test_a_signal_leaves_the_whole_clip_and_the_figures_of_a_window(tmp_path, name, status):
    process = start(tmp_path, "--record", tmp_path / "clips", "--stats", tmp_path / "stats.json")
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == status and "Traceback" not in said, said
    [clip] = (tmp_path / "clips").glob("*.mp4")
    assert read_clip(clip).num_frames >= 5 and not list(tmp_path.glob("clips/*.part.*"))
    assert json.loads((tmp_path / "stats.json").read_text())["frames"] >= 5


def test_the_figures_of_a_model_that_failed_are_written(tmp_path):
    process = start(tmp_path, "--stats", tmp_path / "stats.json", more=", fail_at=20")
    while "the world failed" not in (tmp_path / "worldplay" / "play.log").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and "plug it in" in said
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["world"] == "fake" and stats["frames"] == 19 and stats["work_ms"]["p50"] > 0


def test_the_figures_of_a_world_that_never_opened_say_so(tmp_path):
    process = start(tmp_path, "--stats", tmp_path / "stats.json",
                    more=") if open(sys.argv[1], 'w') and 0 else time.sleep(3600")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=PATIENCE)
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["world"] is None and stats["frames"] == 0 and stats["loading_ms"] is None


def start(tmp_path, *arguments, more=""):
    """Play a fake world in a process; returns it once its sixth step is under way, or it opens."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path),
                        "XDG_CONFIG_HOME": str(tmp_path), "SDL_VIDEODRIVER": "dummy"}
    mark = tmp_path / "under_way"
    command = [sys.executable, "-c", HELD.replace("{more}", more), str(mark), *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process
