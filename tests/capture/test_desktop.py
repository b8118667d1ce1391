"""Recording a real window under a real X server: its pixels, and what is pressed and moved in it."""
import json
import os
import struct
import subprocess
import sys
import time

import pytest

from tests import ROOT
from tests.client.test_window import PATIENCE, display  # noqa: F401
from worldplay.data import lerobot

GAME = """
import pygame
pygame.display.init()
window = pygame.display.set_mode((320, 224))
pygame.display.set_caption("A game")
pygame.mouse.set_visible(False)
clock = pygame.time.Clock()
while not any(event.type == pygame.QUIT for event in pygame.event.get()):
    window.fill("white" if pygame.key.get_pressed()[pygame.K_w] else "black")
    pygame.display.flip()
    pygame.event.set_grab(pygame.key.get_focused())  # holds the pointer, as games do
    clock.tick(60)
"""


def raw_event(axes):
    """The bytes of a raw motion event: axes {number: (accelerated, of the device)}."""
    mask = sum(1 << axis for axis in axes)
    values = b"".join(struct.pack("=iI", int(v // 1), int(v % 1 * 2**32)) for part in (0, 1)
                      for v in (axes[axis][part] for axis in sorted(axes)))
    return struct.pack("=HIIHHII", 2, 1000, 0, 4, 1, 0, 0) + struct.pack("=I", mask) + values


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11")
def test_raw_motion_is_what_the_mouse_itself_gives():
    from worldplay.capture.x11_inputs import raw_motion
    assert raw_motion(raw_event({0: (9.0, 5.0), 1: (-4.5, -2.25)})) == (5.0, -2.25)
    assert raw_motion(raw_event({1: (1.0, 7.0)})) == (0.0, 7.0)
    assert raw_motion(raw_event({3: (1.0, 1.0)})) == (0.0, 0.0)  # a wheel


def run(display, *words, check=True):
    return subprocess.run([*map(str, words)], env={**os.environ, "DISPLAY": display}, check=check, text=True,
                          capture_output=True, timeout=PATIENCE).stdout


def test_positions_leave_out_the_jumps_of_a_game_that_holds_the_pointer(display):
    """In a process with a display, which pynput wants when it is imported."""
    code = ("from worldplay.capture.pynput_inputs import PynputInputs, canonical\\n"
            "from pynput.keyboard import Key, KeyCode\\n"
            "inputs = PynputInputs(lambda name: True); inputs.take(); inputs.center = (100, 100)\\n"
            "for x, y in [(100, 100), (130, 95), (100, 100), (90, 100), (100, 100), (101, 100), (900, 7)]:\\n"
            "    inputs.move(x, y)\\n"
            "moves = [(e['dx'], e['dy']) for _, e in inputs.take()[0]]\\n"
            "print(moves, [canonical(k) for k in (Key.shift_r, Key.f9, Key.esc, KeyCode(char='W'), "
            "KeyCode(char='!'), KeyCode(char=';'))])\\n").replace("\\n", "\n")
    said = run(display, sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code)
    assert said.split("] ")[0] == "[(30, -5), (-10, 0), (1, 0)"
    assert said.split("] ")[1].strip() == "['shift', 'f9', None, 'w', '1', None]"


def test_a_window_is_recorded_while_it_has_the_focus(display, tmp_path):
    env = {**os.environ, "DISPLAY": display, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    env.pop("SDL_VIDEODRIVER", None)
    game = start_game(display, env)
    try:
        command = [sys.executable, "-m", "worldplay", "record-desktop", "--window", "A game", "--size",
                   "32x16", "--out", str(tmp_path / "set"), "--exclude", "e", "--json"]
        with open(tmp_path / "said", "w") as said:
            recorder = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=said)
        wait(lambda: "F9 records 'A game'" in (tmp_path / "said").read_text())
        run(display, "xdotool", "key", "F9")
        for _ in range(3):
            run(display, "xdotool", "keydown", "w", "sleep", 1, "keyup", "w", "sleep", 1)
            run(display, "xdotool", "key", "e", "key", "1")
            run(display, "xdotool", *["mousemove_relative", 5, 2, "sleep", 0.02] * 10, "sleep", 0.5)
        wait(lambda: moved(tmp_path / "set/takes/take-001.jsonl") == 150)
        run(display, "xdotool", "key", "F9", "sleep", 1)
        recorder.terminate()
        made = json.loads(recorder.communicate(timeout=PATIENCE)[0])
    finally:
        game.kill()
    assert recorder.returncode == 0, (tmp_path / "said").read_text()
    log = [json.loads(line) for line in (tmp_path / "set/takes/take-001.jsonl").read_text().splitlines()]
    assert sum(line.get("dx", 0) for line in log) == 150 and sum(line.get("dy", 0) for line in log) == 60
    assert {line["key"] for line in log if "key" in line} == {"w", "1"}
    opened = lerobot.LeRobotFolder.open(tmp_path / "set")
    assert lerobot.verify(tmp_path / "set").num_frames == made["frames"]
    assert opened.source.action_space.keys == ("w", "1") and opened.source.action_space.look_axes == 2
    shown, held = [], []
    for rollout in opened.rollouts():
        shown += (rollout.frames.mean((1, 2, 3)) > 128).tolist()[1:]
        held += (rollout.actions[1:, 0] > 0.5).tolist()
    assert sum(shown) > 10 and sum(a == b for a, b in zip(shown, held)) > 0.7 * len(shown)


def start_game(display, env):
    """The process of the game, its window in front."""
    game = subprocess.Popen([sys.executable, "-c", GAME], env=env, stdout=subprocess.DEVNULL)

    def is_in_front():  # a window manager need not give a new window the focus; a click into it does
        run(display, "xdotool", "mousemove", 640, 420, "click", 1, "sleep", 1)
        return "A game" in run(display, "xdotool", "getactivewindow", "getwindowname", check=False)
    wait(is_in_front)
    return game


def wait(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def moved(log):
    """Columns by which the mouse moved in a take so far."""
    lines = log.read_text().splitlines() if log.is_file() else ()
    return sum(json.loads(line).get("dx", 0) for line in lines)
