"""Measures from a key to its frame: python -m tests.serve.delays window|browser WORLD."""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import ROOT
from tests.client.fake_worlds import FakeWorld

TAPS, FLAGS = 150, ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--window-size=1000,860")


class PlainWorld(FakeWorld):
    """Of any size, quickly made: `fake-120x160`, `fake-480x832`."""

    def __init__(self, size):
        super().__init__(delay=0.01, fps=20.0)
        self.frame_size = size


def serve_or_show(arguments):
    """The play command, with a world of this file where one is named."""
    from worldplay.cli import play
    name = arguments[0]
    if name.startswith("fake-"):
        size = tuple(int(length) for length in name[5:].split("x"))
        return play.main(arguments[1:], open_world=lambda config: PlainWorld(size))
    return play.main(arguments)


def start(folder, world, *arguments, **env):
    env = {**os.environ, **{f"XDG_{name}_HOME": str(folder) for name in ("STATE", "CONFIG", "DATA")}, **env}
    return subprocess.Popen([sys.executable, "-m", "tests.serve.delays", "play", world, *arguments,
                             "--stats", str(folder / "stats.json")], cwd=ROOT, env=env, text=True,
                            stdout=subprocess.PIPE)


def tap_for(press, seconds_between=(0.1, 0.2)):
    """Call press("W" or "D", down) for TAPS taps at times that have nothing to do with the frames."""
    draw = random.Random(3)
    for i in range(TAPS):
        press("wd"[i % 2], True)
        time.sleep(0.03)
        press("wd"[i % 2], False)
        time.sleep(draw.uniform(*seconds_between))


def at_window(folder, world):
    """Xvfb, openbox and xdotool, as in tests/client/test_window.py."""
    read, write = os.pipe()
    screen = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x900x24"],
                              pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as said:
        display = f":{said.readline().strip()}"
    env = {**os.environ, "DISPLAY": display}
    manager = subprocess.Popen(["openbox"], env=env, stderr=subprocess.DEVNULL)
    player = start(folder, world, DISPLAY=display)
    time.sleep(6)  # the world opens
    hand = subprocess.Popen(["xdotool", "-"], env=env, stdin=subprocess.PIPE, text=True)

    def press(key, down):
        hand.stdin.write(f"{'keydown' if down else 'keyup'} {key}\n")
        hand.stdin.flush()
    tap_for(press)
    player.send_signal(signal.SIGTERM)
    player.wait()
    for process in (hand, manager, screen):
        process.kill()


def in_browser(folder, world):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    player = start(folder, world, "--serve", "127.0.0.1:0")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={folder / 'chromium'}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    browser.get(player.stdout.readline().strip())
    time.sleep(6)

    def press(key, down):
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {
            "type": "keyDown" if down else "keyUp", "code": f"Key{key.upper()}", "key": key})
    tap_for(press)
    time.sleep(0.5)
    player.send_signal(signal.SIGTERM)
    player.wait()
    browser.quit()


if __name__ == "__main__":
    where, world = sys.argv[1:3]
    if where == "play":
        sys.exit(serve_or_show(sys.argv[2:]))
    with tempfile.TemporaryDirectory() as folder:
        {"window": at_window, "browser": in_browser}[where](Path(folder), world)
        stats = json.loads((Path(folder) / "stats.json").read_text())
    print(where, world, {name: stats.get(name) for name in (
        "frames", "late", "work_ms", "key_flip_ms", "key_shown_ms", "pictures", "events_gap_max_ms")})
