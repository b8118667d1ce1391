"""A session, wherever it is played: wait for the model, poll the input, step the world, show its frames."""
import logging
import queue
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

from worldplay.client import worker
from worldplay.client.commands import Commands
from worldplay.client.devices import KeyboardMouse
from worldplay.client.lateness import Lateness
from worldplay.client.pace import Pace
from worldplay.client.recorder import frame_record
from worldplay.client.recording import Recording
from worldplay.client.travel import KEEP_UP_TO
from worldplay.client.view import HUD_EVERY, Mode, View

log = logging.getLogger(__name__)

EVENT_PERIOD = 0.002  # the event queue is read at least this often, seconds
HIDDEN_PERIOD = 0.05  # and this often while nobody can see the window: the processor rests
LAST_ANSWER = 2.0  # seconds that the model is given when the player leaves
UNANSWERED_AFTER = 3.0  # seconds without an answer of the model that are worth saying


@dataclass(frozen=True, kw_only=True)
class Front:
    """Where a session is played: a window here, or a page in a browser.

    view       worldplay.client.view.View: what the player sees
    device     the input, of which the loop uses `poll`, `input_time`: as in worldplay.client.devices
    recording  worldplay.client.recording.Recording
    commands   worldplay.client.commands.Commands, which handles the events
    events     function -> list of what happened since its last call
    """
    view: View
    device: KeyboardMouse
    recording: Recording
    commands: Commands
    events: Callable[[], list]


class Loop:
    """Lives on the main thread and owns the front; `run` returns when the player leaves.

    A worker thread owns the model. It gets one request at a time, and its replies come in a queue.

    timing    worldplay.client.timing.Timing of the session
    world     for its facts only, once opened
    """

    def __init__(self, open_world, front, *, clock=time.perf_counter):
        """open_world() -> World runs on the worker."""
        self.timing, self.world, self._worker = front.view.timing, None, None
        self._open_world, self._clock = open_world, clock
        self._screen, self._recording, self._device = front.view, front.recording, front.device
        self._commands, self._events = front.commands, front.events
        self._travel, self._beside = front.commands.travel, front.commands.beside
        self._is_idle, self._frames = False, deque()  # FrameReady of the latest step that are yet to be shown
        self._has_ended = False  # the recording that is played is over; a reset plays it again
        self._pace, self._began, self._lateness = None, clock(), Lateness(clock=clock)

    @property
    def settings(self):
        """The player's choices as they were changed while playing."""
        return self._screen.settings

    def run(self):
        """Play until the player leaves; raises what made the world fail, unless a reset helped."""
        with _quick_thread_switches():
            # before anything loads: the first picture asks for fonts, and waits where a library is mapped
            self._screen.draw(Mode.LOADING)
            self._worker = worker.Worker(self._open_world, keep_up_to=KEEP_UP_TO)
            try:
                while not self._commands.is_over:
                    self._handle_events()
                    self._take_reply()
                    self._show_or_ask()
                    self._beside.follow()
                    self._recording.report_finished()
                    self._travel.report_finished()
                    self._screen.refresh(self._commands.mode)
            finally:
                self._close()
        if self._screen.failure:
            raise self._screen.failure

    def leave(self):
        """Let `run` return soon, as when the player closes the window; a signal handler may call it."""
        self._commands.is_over = True

    def _handle_events(self):
        now = self._clock()
        self.timing.served(now)
        for event in self._events():
            self._commands.handle(event, now)

    # Wait

    def _take_reply(self):
        """Wait for the worker's next reply, but not past the time at which something else is due."""
        now, until = self._clock(), self._next_show()
        is_resting = self._screen.is_hidden and self._is_idle
        if is_resting:
            self.timing.rest()
        period = HIDDEN_PERIOD if is_resting else EVENT_PERIOD
        if until is None:
            is_waiting_for_step = self._is_idle and self._commands.mode is Mode.PLAYING
            until = self._pace.due if is_waiting_for_step else now + period
        try:
            reply = self._worker.replies.get(timeout=min(max(until - now, 0.0), period))
        except queue.Empty:
            return
        match reply:
            case worker.FrameReady():
                self._frames.append(reply)
            case worker.Opened():
                self._open(reply.world)
            case worker.Failed():
                self._stop(reply.error, Mode.FAILED)
            case _:
                self._answered(reply)

    def _answered(self, reply):
        """The worker has done what it was asked for, or could not, and is idle."""
        self._is_idle = True
        self._screen.end_wait()
        match reply:
            case worker.StepDone():
                self._account(reply.at)
                self._travel.history.done(reply.state)
            case worker.Started():
                self._start(reply)
            case worker.Prompted():
                self._take_text(reply)
            case worker.Packed():
                self._travel.packed(reply.packed)
            case worker.Returned():
                self._return(reply)
            case worker.Ended():
                self._has_ended = True
                if not self._travel.is_rewinding:
                    self._commands.pause()
                self._screen.notify_ended(reply.message)
            case worker.RequestFailed():
                self._stop(reply.error, Mode.FAILED if self._commands.mode is Mode.LOADING else Mode.STOPPED)

    def _account(self, done):
        """A step is over, context commit included; it was late if it took longer than its frames last."""
        step = self._pace.step
        work = (done - step.polled) / (step.num_frames + len(self._frames))
        self.timing.worked(work, is_late=work > self._pace.period, threads=self.world.info.get("threads"))
        if reason := self._lateness.step(work, self._pace.period, self.world.info):
            self._screen.notify(reason)

    def _reopen(self, opening):
        """Close the world, whatever state it is in, and open another one in its place."""
        self._frames.clear()
        self._recording.interrupt()
        self._travel.close_world()
        self._beside.close_world()
        self.world, self._is_idle, self._has_ended = None, False, False
        self._screen.close_world(opening.title)
        old = self._worker
        old.close(patience=0.0)

        def open_world():
            old.wait()  # there may be no room for both
            return opening.open()
        self._worker = worker.Worker(open_world, keep_up_to=KEEP_UP_TO)

    def _open(self, world):
        self.world = world
        self._screen.open(world)
        self._commands.open(world)
        self._recording.open(world)
        self._pace = Pace(world.fps)
        self._ask(self._commands.request)

    def _start(self, started):
        """A reset is done: its last frame is shown, and the world waits for the first action."""
        self._screen.frame, self._screen.number, self._screen.is_dirty = started.frames[-1], 0, True
        self._screen.drift.begin(0)
        self._overcome("started again")
        if self.timing.loading is None:
            self.timing.loading = self._clock() - self._began
        if self._commands.mode in (Mode.LOADING, Mode.STOPPED) or (
                self._has_ended and self._commands.mode is Mode.PAUSED):
            self._commands.begin()
        self._has_ended = False
        self._commands.started(started.request)
        self._travel.history.begin(started.request, started.frames, started.state)
        self._recording.branch(self._travel.history.line, started.frames[-1])
        self._beside.branch(self._travel.history.line, started.frames[-1])
        self._pace.due = self._clock()

    def _return(self, returned):
        """The world is at an earlier or a saved place, or stays where it was."""
        if self._travel.returned(returned):
            self._screen.drift.begin(self._screen.number)
            self._overcome("went back")
            self._has_ended = False
            self._commands.request = self._travel.history.line.request
            self._beside.branch(self._travel.history.line, self._screen.frame)
        self._commands.arrive()
        self._pace.due = self._clock()

    def _overcome(self, how):
        """The world goes on after a failure, if there was one."""
        if self._screen.failure:
            log.warning("%s; %s", str(self._screen.failure).splitlines()[0], how)
            self._screen.failure = None

    def _take_text(self, prompted):
        """The world has read a text, or says why not."""
        if prompted.problem:
            log.warning("%s", prompted.problem)
            self._screen.notify(f"The text stays as it was: {prompted.problem}")
            return
        self._travel.history.line.write(prompted.text)
        self._commands.prompting.shown(prompted.text)

    def _stop(self, error, mode):
        """A request failed: what was recorded is finished, and the player reads what happened."""
        self._screen.failure = error
        self._frames.clear()
        self._commands.stop(mode)
        self._travel.failed()
        self._recording.interrupt()

    # Poll and step

    def _show_or_ask(self):
        """Do what is due now: show a frame, or give the idle worker its next request."""
        commands, now, show = self._commands, self._clock(), self._next_show()
        is_saving = self._travel.is_saving  # before the world goes anywhere else
        if commands.opening and not is_saving and (self._is_idle or commands.mode is Mode.FAILED):
            self._reopen(commands.take_opening())
        elif show is not None and now >= show:
            self._show(self._frames.popleft())
        elif not self._is_idle:
            return
        elif commands.prompting.pending is not None and commands.mode is not Mode.STOPPED:
            self._ask(worker.Prompt(commands.prompting.take_pending()))
        elif commands.reset and not is_saving:
            self._frames.clear()
            self._ask(commands.take_reset())
        elif self._travel.has_wish:  # whatever was pending is shown by now
            is_looking = self._travel.is_rewinding and not is_saving
            self._travel.look() if is_looking else self._ask(self._travel.take())
        elif not self._frames:
            if commands.wants_step or (commands.mode is Mode.PLAYING and now >= self._pace.due):
                self._begin_step()

    def _begin_step(self):
        """Poll at the last moment and hand the action over."""
        self._handle_events()
        commands = self._commands
        if commands.is_over or commands.reset or commands.prompting.pending is not None:
            return
        if self._travel.has_wish or not (commands.wants_step or commands.mode is Mode.PLAYING):
            return
        action, polled = commands.next_action(), self._clock()
        self._pace.begin(self._device.input_time if commands.mode is Mode.PLAYING else None, polled)
        commands.wants_step = False
        self._ask(worker.Step(action, self._travel.history.act(action)))
        self._beside.follow()

    def _ask(self, request):
        self._is_idle = False
        if isinstance(request, worker.Prompt):
            self._screen.wait_for("Reading the text...", after=HUD_EVERY)
        elif isinstance(request, worker.GoBack):
            self._screen.wait_for("Going back...", after=2 * HUD_EVERY)
        else:
            self._screen.wait_for("The model has not answered for", after=UNANSWERED_AFTER)
        self._worker.ask(request)

    # Show

    def _next_show(self):
        """When the next frame that is ready is due; None while none is ready, or play is paused.

        A pause also holds back the further frames of a step; its first one is shown as soon as it is ready.
        """
        if not self._frames:
            return None
        if self._travel.has_wish:
            return 0.0
        if self._commands.mode is Mode.PLAYING or not self._pace.step.num_frames:
            return self._pace.show_due
        return 0.0 if self._commands.wants_step else None

    def _show(self, ready):
        """Put a new frame on screen and on record."""
        self._screen.frame, self._screen.number = ready.frame, self._screen.number + 1
        self._screen.draw(self._commands.mode)
        flipped, step, is_further = self._clock(), self._pace.step, self._pace.step.num_frames > 0
        self._pace.shown(flipped)
        self._commands.wants_step &= not is_further  # else it asks for the step after this one
        self.timing.flipped(None if is_further else step.input_time, flipped)
        times = frame_record(self.world, self._began, input=step.input_time, polled=step.polled,
                             ready=ready.at, flipped=flipped)
        self._travel.history.show(ready.frame, times)
        self._recording.frame(ready.frame, times)
        self._beside.see(ready.frame, self._screen.number)
        self._screen.saw()

    def _finish_saving(self):
        """A place that was to be saved when the player left is saved, where the model answers in time."""
        until = self._clock() + LAST_ANSWER
        while self._travel.is_saving and self._clock() < until:
            self._take_reply()
            self._show_or_ask()

    def _close(self):
        """The view goes first; then, whatever became of it, clips are finished and the world is closed."""
        try:
            self._finish_saving()
            self._screen.close()
        finally:
            self._recording.close()
            self._travel.close()
            self._beside.close()
            # a world that is still opening cannot be closed
            self._worker.close(patience=LAST_ANSWER if self.world else 0.0)


@contextmanager
def _quick_thread_switches():
    """The worker's Python must not keep the main thread from its events."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(EVENT_PERIOD / 2)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
