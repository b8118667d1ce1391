"""A real window: X server, window manager, keys and mouse from outside, screenshots of what a person sees."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests import ROOT
from tests.client.fake_worlds import BLOCK, SPACE

PATIENCE = 180  # seconds; only a machine that is busy with other things needs them
TOOLS = {"Xvfb": "xvfb", "openbox": "openbox", "xdotool": "xdotool", "import": "imagemagick",
         "setxkbmap": "x11-xkb-utils"}


@pytest.fixture(scope="module")
def display():
    """The name of a fresh X display with a window manager, so that focus is real."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"apt install {' '.join(missing)}")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as said:
        name = f":{said.readline().strip()}"
    manager = subprocess.Popen(["openbox", "--sm-disable"], env={**os.environ, "DISPLAY": name},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield name
    for process in (manager, server):
        process.terminate()
        process.wait()


@pytest.fixture
def play(display, tmp_path):
    """A function that starts a Player; whatever still runs at the end of the test is ended."""
    players = []

    def start(*arguments, **options):
        players.append(Player(display, tmp_path, *arguments, **options))
        return players[-1]
    yield start
    for player in players:
        player.process.kill()


class Player:
    """play.py in a process of its own with a fake world, and hands to work it with."""

    def __init__(self, display, folder, *arguments, world="FakeWorld()"):
        self.folder = folder
        self.env = {**os.environ, "DISPLAY": display, "XDG_STATE_HOME": str(folder),
                    "XDG_CONFIG_HOME": str(folder)}
        self.env.pop("SDL_VIDEODRIVER", None)
        code = (f"import sys, time\nsys.path.insert(0, {str(ROOT)!r})\n"
                "from tests.client.fake_worlds import *\nfrom worldplay.cli import play as app\n"
                "from worldplay.cli.process import run_process\n"
                f"run_process(lambda: app.main(sys.argv[1:], open_world=lambda config: {world}))")
        self.process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=self.env,
                                        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        # the window manager takes a new window off the screen for a moment to frame it; keys before the focus
        # are lost
        self.wait(self.has_focus, "a window with the focus")

    def has_focus(self):
        """Whether the window is there and has the focus; keeps its number."""
        assert self.process.poll() is None, self.process.communicate()
        found = self.ask("search", "--onlyvisible", "--class", "worldplay").split()
        self.window = found[0] if found else None
        return found and self.ask("getactivewindow") == self.window

    def ask(self, *words):
        """What xdotool says, '' where it finds nothing."""
        return subprocess.run(["xdotool", *words], env=self.env, text=True, capture_output=True,
                              timeout=PATIENCE).stdout.strip()

    def do(self, *words):
        return subprocess.run(["xdotool", *map(str, words)], env=self.env, check=True, capture_output=True,
                              text=True, timeout=PATIENCE).stdout.strip()

    def set_layout(self, name):
        """Give the keyboard another layout."""
        subprocess.run(["setxkbmap", name], env=self.env, check=True, timeout=PATIENCE)

    def wait_for_title(self, title):
        self.wait(lambda: title in self.do("getwindowname", self.window), f"a title with {title!r}")

    @staticmethod
    def wait(is_so, what):
        deadline = time.time() + PATIENCE
        while not is_so():
            assert time.time() < deadline, f"waited in vain for {what}"
            time.sleep(0.05)

    def screenshot(self, name):
        """uint8 [H W 3] of the window, also kept as a PNG."""
        path = self.folder / f"{name}.png"
        subprocess.run(["import", "-window", self.window, str(path)], env=self.env, check=True,
                       timeout=PATIENCE)
        from PIL import Image
        return np.asarray(Image.open(path).convert("RGB"))

    def is_lit(self, key, name="lit"):
        """Whether the fake world's square of a key is lit on the screen."""
        picture = self.screenshot(name)
        scale = picture.shape[1] / 128
        x = round((SPACE.keys.index(key) + 0.5) * BLOCK * scale)
        y = round(picture.shape[0] - BLOCK * scale / 2)
        return picture[y, x].mean() > 128

    def stands_still(self):
        """Whether nothing changes over several frames of the fake world."""
        first = self.screenshot("still")
        return all(np.array_equal(first, self.screenshot(f"still{i}")) for i in range(4))

    def is_veiled(self, name="veil"):
        """Whether the pause screen darkens the fake world's clock; so far up it writes nothing itself."""
        return self.screenshot(name)[:10].max() < 150

    def end(self):
        """Wait for the process to end by itself; returns (exit status, stderr)."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


def difference(first, second):
    """How far two pictures of the window are apart, pixel by pixel."""
    return np.abs(first.astype(int) - second)


def test_a_person_plays(play, tmp_path):
    player = play("--stats", tmp_path / "stats.json", "--record", tmp_path / "clips")
    player.wait_for_title("fake - worldplay")
    player.do("mousemove", 640, 400)
    assert not player.is_lit("w", "idle")
    player.do("keydown", "w")
    player.wait(lambda: player.is_lit("w", "key_w"), "the square of W")
    assert not player.is_lit("d")
    player.do("keyup", "w")
    player.wait(lambda: not player.is_lit("w"), "W to be up")
    before = player.screenshot("before_turn")
    for _ in range(5):
        player.do("mousemove_relative", 30, 0)
    player.wait(lambda: difference(before, player.screenshot("after_turn"))[:500].mean() > 5, "the turn")
    player.do("key", "F3")
    player.wait(lambda: player.screenshot("hud")[30:150, 30:250].mean() < 70, "the figures")
    after = player.screenshot("before_help")
    player.do("key", "F1")
    player.wait(lambda: difference(after, player.screenshot("help")).mean() > 10, "the help")
    player.do("key", "F1")
    player.do("key", "F11")
    player.wait(lambda: player.screenshot("fullscreen").shape == (800, 1280, 3), "fullscreen")
    player.do("key", "F11")
    player.wait(lambda: player.screenshot("window").shape == (720, 960, 3), "the window again")
    player.wait(player.has_focus, "the focus")
    player.do("key", "Escape")
    player.wait(lambda: player.is_veiled("pause"), "the pause")
    player.do("click", 1)
    player.wait(lambda: not player.is_veiled("resumed"), "play to go on")
    player.do("key", "Escape")
    player.do("key", "Escape")
    status, said = player.end()
    assert status == 0, said
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["world"] == "fake" and stats["frames"] > 20
    assert stats["key_flip_ms"]["p50"] > 0 and stats["loading_ms"] > 0
    assert len(list((tmp_path / "clips").glob("*.mp4"))) == 1 and "saved" in said
    assert json.loads((tmp_path / "worldplay" / "settings.json").read_text())["show_hud"] is True


def test_a_person_changes_the_text(play, tmp_path):
    player = play("--record", tmp_path / "clips", world="FakeWorld(prompt='a hall', reading=1.5)")
    player.wait_for_title("fake - worldplay")
    player.do("keydown", "w")
    player.wait(lambda: player.is_lit("w"), "the square of W")
    player.do("key", "F2")
    player.do("keyup", "w")
    player.wait(player.stands_still, "a world that stands still")
    player.do("key", "ctrl+a")
    player.do("type", "--delay", 40, "Waves. Tap r, d!")
    player.screenshot("entry")
    player.do("keydown", "BackSpace")
    # the key repeats until no letter is left
    player.wait(lambda: player.screenshot("deleted")[-60:-25, 60:-60].max() < 100, "an empty line")
    player.do("keyup", "BackSpace")
    player.do("type", "--delay", 40, "Rain, p. R")
    player.do("key", "Return")
    player.wait(lambda: not player.stands_still(), "play to go on")
    player.do("key", "F2")
    player.wait(player.stands_still, "a world that stands still")
    player.do("keydown", "Escape")
    for _ in range(20):  # frames while it repeats: a second one would open the menu, a third one quit
        shown = player.screenshot("held")
        player.wait(lambda: not np.array_equal(shown, player.screenshot("held")), "another frame")
    player.do("keyup", "Escape")
    assert not player.stands_still() and not player.is_lit("w")
    player.do("key", "Escape")
    player.wait(player.is_veiled, "the pause")
    player.screenshot("menu")
    player.do("key", "Escape")
    status, said = player.end()
    assert status == 0, said
    [sidecar] = (tmp_path / "clips").glob("*.json")
    [[step, text]] = json.loads(sidecar.read_text())["prompts"]
    assert step > 1 and text == "Rain, p. R"


X_KEYS = {"w": 25, "a": 38, "s": 39, "d": 40}  # places on the keyboard, by the numbers that X gives them


def test_keys_play_by_their_place_under_every_layout(play):
    player = play()
    player.wait_for_title("fake - worldplay")
    for layout in ("ru", "gr", "fr", "us"):
        player.set_layout(layout)
        for key, code in X_KEYS.items():
            player.do("keydown", code)
            player.wait(lambda: player.is_lit(key), f"the square of {key} under {layout}")
            player.do("keyup", code)
            player.wait(lambda: not player.is_lit(key), f"{key} to be up")
    player.do("keydown", X_KEYS["w"])
    player.wait(lambda: player.is_lit("w"), "the square of W")
    player.set_layout("ru")
    player.do("keyup", X_KEYS["w"])
    player.wait(lambda: not player.is_lit("w"), "W to be up after the layout changed")
    player.do("key", "Escape")
    player.wait(player.is_veiled, "the pause")
    russian = player.screenshot("menu_ru")
    player.set_layout("us")
    player.wait(lambda: not np.array_equal(russian, player.screenshot("menu_us")), "the other labels")
    player.do("key", "Escape")
    assert player.end()[0] == 0


def test_a_remembered_size_larger_than_the_desktop_opens_on_the_screen_with_its_title_bar(play, tmp_path):
    (tmp_path / "worldplay").mkdir()
    (tmp_path / "worldplay" / "settings.json").write_text('{"window_size": [3840, 2160]}')
    player = play()
    player.wait_for_title("fake - worldplay")
    lines = player.do("getwindowgeometry", "--shell", player.window).splitlines()
    place = dict(line.split("=") for line in lines)
    x, y, width, height = (int(place[name]) for name in ("X", "Y", "WIDTH", "HEIGHT"))
    assert x >= 0 and y > 0 and x + width <= 1280 and y + height <= 800, place
    player.do("key", "Escape", "key", "Escape")
    assert player.end()[0] == 0


def test_losing_the_focus_to_another_window_pauses(play):
    player = play()
    player.wait_for_title("fake - worldplay")
    player.do("keydown", "w")
    player.wait(lambda: player.is_lit("w"), "the square of W")
    code = "import pygame\npygame.display.set_mode((200, 100))\nwhile True: pygame.event.wait(20)"
    other = subprocess.Popen([sys.executable, "-c", code], env=player.env, stdout=subprocess.DEVNULL)
    player.wait(lambda: "pygame" in player.ask("getactivewindow", "getwindowname"), "the other window")
    player.wait(player.stands_still, "a world that stands still")
    other.kill()
    other.wait()
    player.do("keyup", "w")
    player.wait(player.has_focus, "the focus to come back")  # until then the click is the other window's
    player.do("mousemove", 640, 400, "click", 1)
    player.wait(lambda: not player.is_veiled() and not player.is_lit("w"), "W released")
    player.do("key", "Escape")
    player.do("key", "Escape")
    assert player.end()[0] == 0


def test_the_window_lives_while_a_world_loads_and_closes_at_once(play):
    player = play(world="time.sleep(3600)")
    player.wait(lambda: not player.stands_still(), "the bar to move")
    player.screenshot("loading")
    player.do("key", "Escape")
    status, said = player.end()
    assert status == 0, said


@pytest.mark.parametrize("library", ["", "libtorch_cpu", "libtorch_python", "safetensors"])
def test_leaving_while_the_real_world_opens_is_no_crash(play, library):
    """The thread that opens it is inside torch then and cannot be stopped; it loads library by library."""
    player = play(world="app.load(config)")
    maps = Path(f"/proc/{player.process.pid}/maps")
    player.wait(lambda: library in maps.read_text(), f"{library} in the process")
    player.do("key", "Escape")
    player.do("key", "Escape")
    status, said = player.end()
    assert status == 0 and "terminate" not in said, said


def test_a_failure_is_on_the_screen_and_one_line_in_the_terminal(play):
    player = play("moon", world="(_ for _ in ()).throw(WorldError('not_found', 'there is no world "
                    "named moon here; there are doom-maze and doom-arena; see: python -m worldplay worlds'))")
    log = player.folder / "worldplay" / "play.log"
    player.wait(lambda: log.exists() and "the world failed" in log.read_text(), "the failure")
    player.wait(player.stands_still, "the failure's screen")
    assert player.screenshot("failure").std() > 5
    player.do("key", "Escape")
    status, said = player.end()
    assert status == 1
    assert said.startswith("play: there is no world named moon here")
    assert said.count("\n") == 1 and "play.log" in said
