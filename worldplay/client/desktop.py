"""A session at the window: its parts, put together for the loop."""
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pygame

from worldplay.client.devices import KeyboardMouse
from worldplay.client.loop import Front
from worldplay.client.recording import Recording
from worldplay.client.screen import Screen
from worldplay.client.settings_page import Reopening
from worldplay.client.timing import Timing
from worldplay.client.window_commands import WindowCommands
from worldplay.client.worker import Reset


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """title      what the loading screen says is being opened
    progress   function -> what takes long there, one line; "" is nothing in particular
    start      where the world begins
    record_in  folder to record into from the first frame on; None waits for F9
    log_hint   shown under a failure: where its details are
    reopening  worldplay.client.settings_page.Reopening; None where no other world can be opened
    env        the real game beside a world where the user named it, as worldplay.envs.twin.Twin takes it
    """
    title: str
    progress: Callable[[], str] = lambda: ""
    start: Reset = field(default_factory=Reset)
    record_in: Path | None = None
    log_hint: str = ""
    reopening: Reopening | None = None
    env: str | None = None


def window_front(window, settings, options, *, events=pygame.event.get, clock=time.perf_counter):
    """The loop.Front of a Window; settings are a Settings, options a SessionOptions."""
    screen = Screen(window, settings, Timing(), title=options.title, progress=options.progress,
                    log_hint=options.log_hint, clock=clock)
    recording = screen.recording = Recording(screen, options.record_in or settings.clip_folder,
                                             bool(options.record_in))
    device = KeyboardMouse(None, settings.degrees_per_count, bindings=screen.bindings)
    device.take(settings)
    device.pads.start()
    commands = WindowCommands(window, device, screen, recording, options.start, options.reopening)
    commands.beside.env = options.env
    return Front(view=screen, device=device, recording=recording, commands=commands, events=events)
