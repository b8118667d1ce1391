"""One sitting at the window: wait, poll, step, show; the worker makes the frames meanwhile."""
import logging
import queue
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pygame

from worldplay.client import worker
from worldplay.client.devices import KeyboardMouse, command_of
from worldplay.client.entry import Entry
from worldplay.client.pace import Pace
from worldplay.client.recorder import Recorder, frame_record, log_clip
from worldplay.client.screen import Mode, Screen
from worldplay.client.timing import Timing
from worldplay.data.clip import ClipWorld

log = logging.getLogger(__name__)

SERVE = 0.002  # the event queue is read at least this often, seconds


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """title      what the loading screen says is being opened
    progress   function -> what takes long there, one line; "" is nothing in particular
    start      where the world begins
    record_in  folder to record into from the first frame on; None waits for F9
    log_hint   shown under a failure: where its details are
    """
    title: str
    progress: Callable[[], str] = lambda: ""
    start: worker.Reset = field(default_factory=worker.Reset)
    record_in: Path | None = None
    log_hint: str = ""


class Loop:
    """Lives on the main thread and owns the window; `run` returns when the player leaves.

    timing    worldplay.client.timing.Timing of the sitting
    world     for its facts only, once opened
    """

    def __init__(self, open_world, window, settings, sitting, *, events=pygame.event.get,
                 clock=time.perf_counter):
        self.window, self.sitting, self.timing, self.world = window, sitting, Timing(), None
        self._screen = Screen(window, settings, self.timing, title=sitting.title, progress=sitting.progress,
                              log_hint=sitting.log_hint, clock=clock)
        self._open_world, self._events, self._clock = open_world, events, clock
        self._mode, self._is_over, self._failure = Mode.LOADING, False, None
        self._device, self._recorder = None, None
        self._is_idle, self._held = False, deque()
        self._wanted, self._text = None, None  # a Reset and a text to ask for as soon as the world is idle
        self._draft = None  # the text last written, until the world shows it
        self._left = None  # the Mode in which F2 was pressed
        self._closing_key = None  # what closed the line, until it is let go: it may repeat once more
        self._has_ended = False  # a recording is over; a reset plays it again
        self._is_away = False  # the focus was lost; a window that is about to get it is not away
        self._wants_single_step, self._pace = False, None
        self._began, self._request = clock(), sitting.start

    @property
    def settings(self):
        """The player's choices as they were changed while playing."""
        return self._screen.settings

    def _choose(self, **choices):
        self._screen.settings = replace(self.settings, **choices)

    def run(self):
        """Play until the player leaves; raises what made the world fail, after the player has seen it."""
        switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SERVE / 2)  # the worker's Python must not keep the main thread from its events
        # before anything loads: the first picture asks for fonts, and waits where a library is mapped
        self._screen.draw(self._mode)
        self._worker = worker.Worker(self._open_world)
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
        until = self._next_show()
        if until is None:
            until = self._pace.due if self._is_idle and self._mode is Mode.PLAYING else now + SERVE
        try:
            reply = self._worker.replies.get(timeout=min(max(until - now, 0.0), SERVE))
        except queue.Empty:
            return
        match reply:
            case worker.Opened():
                self._open(reply.world)
            case worker.Started():
                self._start(reply)
            case worker.FrameReady():
                self._held.append(reply)
            case worker.Prompted():
                self._is_idle = True
                self._take_text(reply)
            case worker.StepDone():
                self._is_idle = True
                self._account(reply.at)
            case worker.Ended():
                self._is_idle = self._has_ended = True
                self._mode = Mode.PAUSED
                self._screen.tell(reply.message)
            case worker.Failed():
                self._fail(reply.error)

    def _account(self, done):
        """A step is over, commit included; it was late if it took longer than its frames last."""
        step = self._pace.step
        work = (done - step.polled) / (step.num_frames + len(self._held))
        self.timing.work.append(work)
        self.timing.num_late += work > self._pace.period

    def _open(self, world):
        self.world = self._screen.world = world
        space = world.action_space.over(world.info.get("frames_per_chunk", 1))
        self._device = KeyboardMouse(space, self.settings.degrees_per_count)
        self._recorder = self._screen.recorder = Recorder(world)
        self._pace = Pace(world.fps)
        self.window.set_title(f"{world.name} - worldplay")
        self._worker.ask(self._request)

    def _start(self, started):
        """A reset is done: its frame is shown, and the world waits for the first action."""
        self._is_idle, self._request = True, started.request
        self._screen.frame, self._screen.number = started.frames[-1], 0
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
            self._screen.tell(str(error))
        self._pace.due, self._screen.is_dirty = self._clock(), True

    def _take_text(self, prompted):
        """The world has read a text, or says why not."""
        self._screen.tell_reading(False)
        if prompted.problem:
            log.warning("%s", prompted.problem)
            self._screen.tell(f"The text stays as it was: {prompted.problem}")
            return
        self._recorder.prompt(prompted.text)
        if self._draft == prompted.text:
            self._draft = None

    def _fail(self, error):
        log.debug("the world failed", exc_info=error)
        self._failure = self._screen.failure = error
        self._mode, self._is_idle, self._screen.is_dirty = Mode.FAILED, False, True
        self._held.clear()
        self._end_entry()
        self.window.capture_mouse(False)
        if self._recorder:
            self._recorder.stop()

    # What is due

    def _advance(self):
        """Whatever the clock asks for now: a frame to show, a step to begin, a screen to draw again."""
        now, show = self._clock(), self._next_show()
        if show is not None and now >= show:
            self._show(self._held.popleft())
        elif self._is_idle and self._text is not None:
            self._give_text()
        elif self._is_idle and self._wanted:
            self._reset()
        elif self._is_idle and not self._held:
            if self._wants_single_step or (self._mode is Mode.PLAYING and now >= self._pace.due):
                self._begin_step()
        if self._recorder:
            self._tell_finished_clips()
        self._screen.refresh(self._mode)

    def _next_show(self):
        """When the next frame that is there is due; None while there is none, or the picture stands.

        A pause comes between the frames of one step too; but what is only just being made is shown once it is there.
        """
        if not self._held:
            return None
        if self._mode is Mode.PLAYING or not self._pace.step.num_frames:
            return self._pace.show_due
        return 0.0 if self._wants_single_step else None

    def _reset(self):
        self._request, self._wanted, self._is_idle = self._wanted, None, False
        self._held.clear()
        self._device.forget()
        self._worker.ask(self._request)

    def _give_text(self):
        self._worker.ask(worker.Prompt(self._text))
        self._text, self._is_idle = None, False
        self._screen.tell_reading(True)

    def _begin_step(self):
        """Poll at the last moment and hand the action over."""
        self._serve_events()
        if self._is_over or self._wanted or self._text is not None:
            return
        if not (self._wants_single_step or self._mode is Mode.PLAYING):
            return
        action, polled = self._device.poll(), self._clock()
        self._pace.begin(self._device.input_time if self._mode is Mode.PLAYING else None, polled)
        self._is_idle, self._wants_single_step = False, False
        self._recorder.step(action)
        self._worker.ask(worker.Step(action))

    def _show(self, ready):
        """Put a new frame on screen and on record."""
        self._screen.frame, self._screen.number = ready.frame, self._screen.number + 1
        self._screen.draw(self._mode)
        flipped, step, is_further = self._clock(), self._pace.step, self._pace.step.num_frames > 0
        self._pace.shown(flipped)
        self._wants_single_step &= not is_further  # else it asks for the step after this one
        self.timing.flipped(None if is_further else step.input_time, flipped)
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
        if event.type in (pygame.KEYDOWN, pygame.KEYUP) and event.key == self._closing_key:
            self._closing_key = event.key if event.type == pygame.KEYDOWN else None
        elif event.type == pygame.QUIT:
            self._is_over = True
        elif event.type == pygame.WINDOWRESIZED:
            self.window.resized((event.x, event.y))
            self._screen.is_dirty = True
        elif event.type == pygame.WINDOWEXPOSED:
            self._screen.is_dirty = True
        elif event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED):
            self._focus(event.type == pygame.WINDOWFOCUSLOST)
        elif self._mode is Mode.WRITING:
            self._write(event, now)
        elif command in ("escape", "fullscreen", "scaling") or (command and self._has_begun):
            name = f"on_{command}"
            getattr(self if hasattr(self, name) else self._screen, name)()
            self._screen.is_dirty = True
        elif self._has_begun:
            if event.type == pygame.MOUSEBUTTONDOWN and self._mode is Mode.MENU:
                self._resume()
                return
            self._device.feed(event, now)

    def _focus(self, is_away):
        self._is_away, self._closing_key = is_away, None
        if is_away and self._has_begun:
            self._device.release_all()
            if self._mode is not Mode.WRITING:  # what is to be written may come from another window
                self._open_menu()

    def _write(self, event, now):
        """An event while the line is open: the world is told of no key but those that are let go."""
        entry, self._screen.is_dirty = self._screen.entry, True
        if event.type in (pygame.KEYUP, pygame.MOUSEBUTTONUP):
            self._device.feed(event, now)
        elif event.type == pygame.KEYDOWN and event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            if entry.is_changed or self._draft is not None:
                self._text = self._draft = entry.text
            self._leave_entry(event.key, Mode.PAUSED if self._left is Mode.PAUSED else Mode.PLAYING)
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
            self._leave_entry(event.key, self._left)
        else:
            entry.feed(event)

    def _leave_entry(self, key, mode):
        self._closing_key = key
        self._end_entry()
        self._open_menu() if mode is Mode.MENU else self._resume()
        self._mode = mode

    def _end_entry(self):
        self._screen.entry = None
        self.window.take_text(False)

    def _resume(self):
        self._mode, self._screen.is_dirty, self._pace.due = Mode.PLAYING, True, self._clock()
        self._device.forget()
        space = self.world.action_space
        self.window.capture_mouse(bool(space.look_axes or any(key.startswith("mouse") for key in space.keys)))

    def _open_menu(self):
        self._mode, self._screen.is_dirty, self._wants_single_step = Mode.MENU, True, False
        self.window.capture_mouse(False)

    def on_prompt(self):
        if "prompt" not in self.world.info:
            self._screen.tell("There is no text to change here")
            return
        self._left, self._mode = self._mode, Mode.WRITING
        self._wants_single_step, self._closing_key = False, None
        prompt = self.world.info["prompt"] if self._draft is None else self._draft
        self._screen.entry = Entry(prompt, self.window.clipboard)
        self.window.capture_mouse(False)
        self.window.take_text(True)

    def on_escape(self):
        if self._mode in (Mode.PLAYING, Mode.PAUSED):
            self._open_menu()
        else:
            self._is_over = True

    def on_pause(self):
        if self._mode is Mode.PLAYING:
            self._mode = Mode.PAUSED
        else:
            self._resume()

    def on_single_step(self):
        if self._mode is not Mode.MENU:
            self._mode, self._wants_single_step = Mode.PAUSED, True

    def on_reset(self):
        self._wanted = self._request

    def on_next_scene(self):
        scenes, request = self.world.scenes, self._wanted or self._request
        here = -1 if request.image else scenes.index(request.scene or scenes[0])
        self._wanted = worker.Reset(scenes[(here + 1) % len(scenes)])
        self._screen.tell(f"Scene {self._wanted.scene}")

    def on_record(self):
        if self._recorder.is_recording:
            self._recorder.stop()
        elif isinstance(self.world, ClipWorld):
            self._screen.tell("This is a recording already; play its world to record")
        else:
            try:
                self._recorder.start_in(self.sitting.record_in or Path(self.settings.record_folder))
            except OSError as error:
                self._screen.tell(str(error))

    def on_slower_mouse(self):
        self._set_mouse(self.settings.degrees_per_count / 1.15)

    def on_faster_mouse(self):
        self._set_mouse(self.settings.degrees_per_count * 1.15)

    def _set_mouse(self, degrees_per_count):
        degrees_per_count = min(max(round(degrees_per_count, 4), 0.005), 5.0)
        self._choose(degrees_per_count=degrees_per_count)
        self._device.degrees_per_count = degrees_per_count
        self._screen.tell(f"Mouse: {degrees_per_count:.3f} degrees per count")

    def _tell_finished_clips(self):
        for writer in self._recorder.finished():
            self._screen.tell(str(writer.error) if writer.error else f"Saved {writer.path}.mp4")
            log_clip(writer)

    def _close(self):
        """The window goes first; then clips are finished and the world is closed."""
        self.window.capture_mouse(False)
        self.window.close()
        if self._recorder:
            for writer in self._recorder.close():
                log_clip(writer)
        self._worker.close(patience=2.0 if self.world else 0.0)  # what is still opening cannot be asked to close
        try:
            self._choose(window_size=self.window.window_size)
        except ValueError:
            log.debug("a window of %s pixels is too small to be remembered", self.window.window_size)
