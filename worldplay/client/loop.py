"""One sitting at the window: wait, poll, step, show; the worker makes the frames meanwhile."""
import logging
import queue
import sys
import time
from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from statistics import median

import pygame

from worldplay.client import hud, menu
from worldplay.client.devices import KeyboardMouse, command_of, help_rows
from worldplay.client.recorder import Recorder, frame_record, log_clip
from worldplay.client.timing import StepTimes, Timing
from worldplay.client.worker import Ended, Failed, FrameReady, Opened, Reset, Started, Step, StepDone, Worker
from worldplay.clip import ClipWorld
from worldplay.world import WorldError

log = logging.getLogger(__name__)

SERVE = 0.002  # the event queue is read at least this often, seconds
SLACK = 0.004  # a wait that ends this much too late is our own doing, and the next one is shorter for it
HURRY = 0.75  # of a frame's time: two frames never follow each other closer, so a late one is not made up
LOADING_FPS = 30
HUD_EVERY = 0.25  # figures that change faster cannot be read
NOTICE_SECONDS = 4.0


class Mode(Enum):
    LOADING = auto()
    PLAYING = auto()
    PAUSED = auto()  # P: the picture stands, the mouse stays taken, single steps
    MENU = auto()    # Esc, or the focus went elsewhere: the mouse is free
    FAILED = auto()


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """title      what the loading screen says is being opened
    start      where the world begins
    record_in  folder to record into from the first frame on; None waits for F9
    log_hint   shown under a failure: where its details are
    """
    title: str
    start: Reset = field(default_factory=Reset)
    record_in: Path | None = None
    log_hint: str = ""


class Loop:
    """Lives on the main thread and owns the window; `run` returns when the player leaves.

    settings  the player's choices as they were changed while playing
    timing    worldplay.client.timing.Timing of the sitting
    world     for its facts only, once opened
    """

    def __init__(self, open_world, window, settings, sitting, *, events=pygame.event.get,
                 clock=time.perf_counter):
        self.window, self.settings, self.sitting = window, settings, sitting
        self.timing, self.world = Timing(), None
        self._open_world, self._events, self._clock = open_world, events, clock
        self._mode, self._is_over, self._failure = Mode.LOADING, False, None
        self._device, self._recorder = None, None
        self._is_idle, self._held, self._wanted = False, deque(), None
        self._has_ended = False  # a recording is over; a reset plays it again
        self._is_away = False  # the focus was lost; a window that is about to get it is not away
        self._latencies = deque(maxlen=9)  # of the latest steps, from poll to flip
        self._due, self._show_due, self._wants_single_step = 0.0, 0.0, False
        self._began, self._next_draw, self._is_dirty = clock(), 0.0, True
        self._frame, self._number, self._request, self._step = None, 0, sitting.start, None
        self._shows_help, self._notice, self._hud = False, ("", 0.0), ([], 0.0)

    def run(self):
        """Play until the player leaves; raises what made the world fail, after the player has seen it."""
        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SERVE / 2)  # the worker's Python must not keep the main thread from its events
        self._draw()  # before anything loads: the first picture asks for fonts, and waits where a library is mapped
        self._worker = Worker(self._open_world)
        try:
            while not self._is_over:
                self._serve_events()
                self._take_reply()
                self._advance()
        finally:
            self._close()
            sys.setswitchinterval(switch_interval)
        if self._failure:
            raise self._failure

    # What the world says

    def _take_reply(self):
        """Wait for the world's next word, but no longer than until there is something else to do."""
        now = self._clock()
        until = now + SERVE
        if self._held:
            until = self._show_due
        elif self._is_idle and self._mode is Mode.PLAYING:
            until = self._due
        try:
            reply = self._worker.replies.get(timeout=min(max(until - now, 0.0), SERVE))
        except queue.Empty:
            return
        match reply:
            case Opened():
                self._open(reply.world)
            case Started():
                self._start(reply)
            case FrameReady():
                self._held.append(reply)
            case StepDone():
                self._is_idle = True
                self._account(reply.at)
            case Ended():
                self._is_idle = self._has_ended = True
                self._mode = Mode.PAUSED
                self._tell(reply.message)
            case Failed():
                self._fail(reply.error)

    def _account(self, done):
        """A step is over, commit included; it was late if it took longer than its frames last."""
        num_frames = self._step.num_frames + len(self._held)
        work = (done - self._step.polled) / num_frames
        self.timing.work.append(work)
        self.timing.num_late += work > 1 / self.world.fps

    def _open(self, world):
        self.world = world
        self._device = KeyboardMouse(world.action_space, self.settings.degrees_per_count)
        self._recorder = Recorder(world)
        self.window.set_title(f"{world.name} - worldplay")
        self._worker.ask(self._request)

    def _start(self, started):
        """A reset is done: its frame is shown, and the world waits for the first action."""
        self._is_idle, self._request, self._frame, self._number = True, started.request, started.frames[-1], 0
        is_first = self._mode is Mode.LOADING
        if is_first:
            self.timing.loading = self._clock() - self._began
        if is_first or (self._has_ended and self._mode is Mode.PAUSED):
            self._open_menu() if self._is_away else self._resume()
        self._has_ended = False
        try:
            self._recorder.branch(started.request, started.frames)
            if is_first and self.sitting.record_in:
                self._recorder.start_in(self.sitting.record_in)
        except OSError as error:
            self._tell(str(error))
        self._due, self._is_dirty = self._clock(), True

    def _fail(self, error):
        log.debug("the world failed", exc_info=error)
        self._failure, self._mode, self._is_idle, self._is_dirty = error, Mode.FAILED, False, True
        self._held.clear()
        self.window.capture_mouse(False)
        if self._recorder:
            self._recorder.stop()

    # What is due

    def _advance(self):
        """Whatever the clock asks for now: a frame to show, a step to begin, a screen to draw again."""
        now = self._clock()
        if self._held and now >= self._show_due:
            self._show(self._held.popleft())
        elif self._is_idle and not self._held:
            if self._wanted:
                self._reset()
            elif self._wants_single_step or (self._mode is Mode.PLAYING and now >= self._due):
                self._begin_step()
        if self._recorder:
            self._tell_finished_clips()
        if self._mode is Mode.LOADING and now >= self._next_draw:
            self._next_draw, self._is_dirty = now + 1 / LOADING_FPS, True
        if self._notice[0] and now >= self._notice[1]:
            self._notice, self._is_dirty = ("", 0.0), True
        if self._is_dirty:
            self._draw()

    def _reset(self):
        self._request, self._wanted, self._is_idle = self._wanted, None, False
        self._device.forget()
        self._worker.ask(self._request)

    def _begin_step(self):
        """Poll at the last moment and hand the action over; what is late shifts all that follows."""
        self._serve_events()
        if self._is_over or self._wanted or not (self._wants_single_step or self._mode is Mode.PLAYING):
            return
        action, polled = self._device.poll(), self._clock()
        self._due = max(self._due, polled - SLACK) + 1 / self.world.fps
        input_time = self._device.input_time if self._mode is Mode.PLAYING else None
        self._step, self._is_idle, self._wants_single_step = StepTimes(input_time, polled), False, False
        self._show_due = 0.0  # the first frame is shown as soon as it is there
        self._recorder.step(action)
        self._worker.ask(Step(action))

    def _show(self, ready):
        """Put a new frame on screen and on record; further frames of one step are spread over world time."""
        self._frame, self._number = ready.frame, self._number + 1
        self._draw()
        flipped, step, period = self._clock(), self._step, 1 / self.world.fps
        if step.num_frames:
            self._due += period
        else:
            self._latencies.append(flipped - step.polled)
        self._due = max(self._due, flipped + HURRY * period - median(self._latencies))
        self._show_due = flipped + period
        self.timing.flipped(None if step.num_frames else step.input_time, flipped)
        step.num_frames += 1
        self._recorder.frame(ready.frame, frame_record(
            self.world, self._began, input=step.input_time, polled=step.polled, ready=ready.at,
            flipped=flipped))

    # What the player does

    def _serve_events(self):
        now = self._clock()
        self.timing.served(now)
        for event in self._events():
            self._handle(event, now)

    @property
    def _has_begun(self):
        return self._mode not in (Mode.LOADING, Mode.FAILED)

    def _handle(self, event, now):
        command = command_of(event, self.world and self.world.action_space)
        if event.type == pygame.QUIT:
            self._is_over = True
        elif event.type == pygame.WINDOWRESIZED:
            self.window.resized((event.x, event.y))
            self._is_dirty = True
        elif event.type == pygame.WINDOWEXPOSED:
            self._is_dirty = True
        elif event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            self._focus(event.type == pygame.WINDOWFOCUSLOST)
        elif command in ("escape", "fullscreen", "scaling") or (command and self._has_begun):
            getattr(self, f"_on_{command}")()
            self._is_dirty = True
        elif self._has_begun:
            if event.type == pygame.MOUSEBUTTONDOWN and self._mode is Mode.MENU:
                self._resume()
                return
            self._device.feed(event, now)

    def _focus(self, is_away):
        self._is_away = is_away
        if is_away and self._has_begun:
            self._device.release_all()
            self._open_menu()

    def _resume(self):
        self._mode, self._is_dirty, self._due = Mode.PLAYING, True, self._clock()
        self._device.forget()
        space = self.world.action_space
        self.window.capture_mouse(bool(space.look_axes or any(key.startswith("mouse") for key in space.keys)))

    def _open_menu(self):
        self._mode, self._is_dirty, self._wants_single_step = Mode.MENU, True, False
        self.window.capture_mouse(False)

    def _on_escape(self):
        if self._mode in (Mode.PLAYING, Mode.PAUSED):
            self._open_menu()
        else:
            self._is_over = True

    def _on_pause(self):
        if self._mode is Mode.PLAYING:
            self._mode = Mode.PAUSED
        else:
            self._resume()

    def _on_single_step(self):
        if self._mode is not Mode.MENU:
            self._mode, self._wants_single_step = Mode.PAUSED, True

    def _on_reset(self):
        self._wanted = self._request

    def _on_next_scene(self):
        scenes, request = self.world.scenes, self._wanted or self._request
        here = -1 if request.image else scenes.index(request.scene or scenes[0])
        self._wanted = Reset(scenes[(here + 1) % len(scenes)])
        self._tell(f"Scene {self._wanted.scene}")

    def _on_help(self):
        self._shows_help = not self._shows_help

    def _on_hud(self):
        self.settings = replace(self.settings, show_hud=not self.settings.show_hud)

    def _on_record(self):
        if self._recorder.is_recording:
            self._recorder.stop()
        elif isinstance(self.world, ClipWorld):
            self._tell("This is a recording already; play its world to record")
        else:
            try:
                self._recorder.start_in(self.sitting.record_in or Path(self.settings.record_folder))
            except OSError as error:
                self._tell(str(error))

    def _on_scaling(self):
        other = "whole" if self.window.scaling == "smooth" else "smooth"
        self.window.scaling = other
        self.settings = replace(self.settings, scaling=other)
        self._tell("Smooth scaling" if other == "smooth" else "Scaling in whole steps")

    def _on_fullscreen(self):
        self.window.toggle_fullscreen()

    def _on_slower_mouse(self):
        self._set_mouse(self.settings.degrees_per_count / 1.15)

    def _on_faster_mouse(self):
        self._set_mouse(self.settings.degrees_per_count * 1.15)

    def _set_mouse(self, degrees_per_count):
        degrees_per_count = min(max(round(degrees_per_count, 4), 0.005), 5.0)
        self.settings = replace(self.settings, degrees_per_count=degrees_per_count)
        self._device.degrees_per_count = degrees_per_count
        self._tell(f"Mouse: {degrees_per_count:.3f} degrees per count")

    # What the player sees

    def _tell(self, text):
        self._notice, self._is_dirty = (text, self._clock() + NOTICE_SECONDS), True

    def _tell_finished_clips(self):
        for writer in self._recorder.finished():
            self._tell(str(writer.error) if writer.error else f"Saved {writer.path}.mp4")
            log_clip(writer)

    def _draw(self):
        self._is_dirty = False
        surface = self.window.surface
        if self._mode is Mode.FAILED:
            menu.draw_failure(surface, _message(self._failure), self.sitting.log_hint)
        elif self._frame is None:
            menu.draw_loading(surface, self.sitting.title, self._clock() - self._began)
        else:
            self.window.draw(self._frame)
            self._draw_over(surface)
        self.window.flip()

    def _draw_over(self, surface):
        if self._mode is Mode.MENU:
            menu.draw_pause(surface, *help_rows(self.world.action_space), self._choices())
            return
        if self._mode is Mode.PAUSED:
            hud.draw_badge(surface, "Paused", "P goes on, . makes one frame")
        if self._shows_help:
            hud.draw_help(surface, *help_rows(self.world.action_space))
        elif self.settings.show_hud:
            hud.draw_figures(surface, self._figures())
        if self._recorder.is_recording:
            hud.draw_recording(surface, self._recorder.seconds)
        if self._notice[0]:
            hud.draw_notice(surface, self._notice[0])

    def _choices(self):
        return (f"Mouse {self.settings.degrees_per_count:.3f} degrees per count     "
                f"Scaling {'smooth' if self.window.scaling == 'smooth' else 'in whole steps'}")

    def _figures(self):
        rows, until = self._hud
        now = self._clock()
        if not rows or now >= until:
            rows = hud.figures(self.timing, self.world.info, self._number, now)
            self._hud = rows, now + HUD_EVERY
        return rows

    def _close(self):
        """The window goes first; then clips are finished and the world is closed."""
        self.window.capture_mouse(False)
        self.window.close()
        if self._recorder:
            for writer in self._recorder.close():
                log_clip(writer)
        self._worker.close(patience=2.0 if self.world else 0.0)  # what is still opening cannot be asked to close
        try:
            self.settings = replace(self.settings, window_size=self.window.window_size)
        except ValueError:
            log.debug("a window of %s pixels is too small to be remembered", self.window.window_size)


def _message(error):
    is_ours = isinstance(error, (WorldError, OSError, ValueError))
    return str(error) if is_ours else f"An unexpected {type(error).__name__}: {error}"
