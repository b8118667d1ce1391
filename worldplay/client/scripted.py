"""Scripted play through the client's own loop, in a window that no screen shows: what its stamps come to."""
import os
import time
from contextlib import contextmanager
from itertools import cycle

import numpy as np
import pygame

from worldplay.client.desktop import SessionOptions, window_front
from worldplay.client.inputs import is_pad
from worldplay.client.loop import Loop
from worldplay.client.settings import Settings
from worldplay.client.view import Mode
from worldplay.client.window import Window

SECONDS = 5.0
_PRESSES = (0.06, 0.2)  # seconds from a key down to its release, and from that to the next; evenly drawn


def stamped(world, seconds=SECONDS):
    """Play an open World with keys pressed in turn and return what worldplay.client.timing stamps; closes it.

    Returns  {key_flip_ms, inputs, frames, late, work_ms, path, threads}, names as in `--stats`
             (docs/play.md); inputs is how many frames, each the first to show an input, key_flip_ms is of

        Raises what makes the world fail.
    """
    with _no_screen():
        window = Window(Settings().window_size)
        presses = _Presses(seconds)
        front = window_front(window, Settings(), SessionOptions(title=world.name), events=presses)
        presses.front = front
        loop = Loop(lambda: world, front)
        loop.run()
    figures = loop.timing.to_json()
    return {"key_flip_ms": figures["key_flip_ms"], "inputs": len(loop.timing.key_flip),
            **{name: figures[name] for name in ("frames", "late", "work_ms")},
            "path": world.info.get("path"), "threads": figures["threads"]}


class _Presses:
    """Events for the loop: the world's keys and turns down and up, one after another, then the end.

    Times are drawn, so that they fall anywhere in a frame. A world that fails, or ends, ends it as well; a
    slow one is given the time for its first frame.
    """

    def __init__(self, seconds, clock=time.perf_counter):
        self.front, self._seconds, self._clock = None, seconds, clock
        self._rng, self._codes, self._down = np.random.default_rng(0), None, None
        self._due = self._until = 0.0

    def __call__(self):
        mode, now = self.front.commands.mode, self._clock()
        if mode is Mode.LOADING:
            return []
        if self._codes is None:
            space = self.front.device.space
            self._codes = cycle([code for code in self.front.view.bindings.played(space) if not is_pad(code)])
            self._due, self._until = now, now + self._seconds
        if mode is not Mode.PLAYING or (now >= self._until and self.front.view.timing.num_frames):
            return [pygame.event.Event(pygame.QUIT)]
        if now < self._due:
            return []
        self._due = now + self._rng.uniform(*_PRESSES)
        if self._down is not None:
            event, self._down = _event(self._down, is_down=False), None
            return [event]
        self._down = next(self._codes, None)  # nothing may trigger what a world has
        return [] if self._down is None else [_event(self._down, is_down=True)]


def _event(code, *, is_down):
    """pygame's event of an input of keyboard or mouse (worldplay.client.inputs)."""
    if isinstance(code, int):
        return pygame.event.Event(pygame.KEYDOWN if is_down else pygame.KEYUP, scancode=code,
                                  key=pygame.K_UNKNOWN, mod=0, unicode="")
    return pygame.event.Event(pygame.MOUSEBUTTONDOWN if is_down else pygame.MOUSEBUTTONUP, button=code[1],
                              pos=(0, 0))


@contextmanager
def _no_screen():
    """Inside, windows are opened on SDL's driver without a screen."""
    before = os.environ.get("SDL_VIDEODRIVER")
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        del os.environ["SDL_VIDEODRIVER"]
        if before is not None:
            os.environ["SDL_VIDEODRIVER"] = before
