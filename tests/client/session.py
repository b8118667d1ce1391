"""A session of the client under scripted events, on a window without a screen."""
import contextlib
import os
import time
from pathlib import Path

os.environ["SDL_VIDEODRIVER"] = "dummy"

import numpy as np
import pygame

from worldplay.client.desktop import SessionOptions, window_front
from worldplay.client.loop import Loop
from worldplay.client.settings import Settings
from worldplay.client.window import Window

PATIENCE = 120  # seconds until a session that does not end is a failure, also on a busy machine
FOCUS_LOST, QUIT = pygame.event.Event(pygame.WINDOWFOCUSLOST), pygame.event.Event(pygame.QUIT)


class SeenWindow(Window):
    """A window without a screen that remembers every frame it drew, with its time."""

    def __init__(self):
        super().__init__((640, 480))
        self.seen, self.captured = [], []

    def draw(self, *frames):
        boxes = super().draw(*frames)
        if not self.seen or self.seen[-1][0] is not frames[0]:
            self.seen.append((frames[0], time.perf_counter()))
        return boxes

    def capture_mouse(self, is_captured):
        self.captured.append(is_captured)


class Session:
    """Runs a Loop with scripted events (when, *events).

    when  int: so many frames were seen since the entry before; float: seconds since it; a function: it is so
    """

    def __init__(self, world, script, *, settings=None, **options):
        self.world, self.script, self.window = world, list(script), SeenWindow()
        self.served, self.waited, self.modes = [], [], []
        self._deadline = time.perf_counter() + PATIENCE
        self._entry_done()
        front = window_front(self.window, settings or Settings(), SessionOptions(title="fake", **options),
                             events=self._events)
        self.loop = Loop(world if callable(world) else lambda: world, front)

    def run(self):
        self.loop.run()
        return self

    def _events(self):
        now = time.perf_counter()
        assert now < self._deadline, f"the session did not end: {self.script}"
        self.served.append(now)
        self.waited.append(seconds_waited())
        self.modes.append(self.mode)
        if not self.script or not self._is_due(self.script[0][0], now):
            return []
        _, *events = self.script.pop(0)
        self._entry_done()
        return events

    def _entry_done(self):
        self._at, self._count = time.perf_counter(), len(self.window.seen)

    def _is_due(self, when, now):
        if callable(when):
            return when()
        if isinstance(when, float):
            return now - self._at >= when
        return len(self.window.seen) - self._count >= when

    @property
    def mode(self):
        return self.loop._commands.mode

    @property
    def notice(self):
        return self.loop._screen.notice

    @property
    def frames(self):
        return [frame for frame, _ in self.window.seen]

    @property
    def gaps(self):
        """Seconds between two looks at the event queue, less what other programs took of the processor.

        The two clocks are not read at one instant, so the waits of the neighbouring gaps count too.
        """
        return np.diff(self.served) - np.convolve(np.diff(self.waited), np.ones(3), "same")


def seconds_waited():
    """Seconds our threads could have run while the processor was another's; 0 where the system does not say.

    All threads count: one that is kept waiting while it holds the interpreter's lock holds up the others.
    """
    waited = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            waited += int(file.read_text().split()[1])
    return waited / 1e9


def steps_of(world):
    return [at for what, _, at in world.calls if what == "step"]
