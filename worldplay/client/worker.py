"""The thread that owns the world: it opens, resets and steps it, and reports every frame with its time."""
import logging
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from worldplay.action import Action
from worldplay.data.file_start import file_scene
from worldplay.errors import WorldError
from worldplay.world import World

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A world to be opened in place of the one that is played.

    open   function -> World, called on the worker's thread
    title  what the loading screen says is being opened
    start  the Reset to begin with
    """
    open: Callable[[], World]
    title: str
    start: "Reset"


@dataclass(frozen=True)
class Reset:
    """Start again from a scene (None: the first), from a file or from frames, uint8 [n H W 3].

    file     of a picture, a video or a clip, see worldplay.data.file_start; `at`: the clip's frame, None: its
             last
    actions  n Actions of the frames; None: standing still
    ahead    Actions that are played by themselves from there on, until the player presses a key of the world
    seed     of the randomness from then on; None leaves it
    """
    scene: str | None = None
    file: Path | None = None
    at: int | None = None
    frames: np.ndarray | None = field(default=None, compare=False)
    actions: tuple[Action, ...] | None = None
    ahead: tuple[Action, ...] = field(default=(), repr=False)
    seed: int | None = None

    @property
    def is_scene(self):
        return self.file is None and self.frames is None


@dataclass(frozen=True)
class Prompt:
    """Give the world another text, or a .safetensors file of its rows; the next step is made under it."""
    text: str


@dataclass(frozen=True)
class Step:
    """Make the frames of one action.

    keep_up_to  bytes of a snapshot that may come with the answer; 0 asks for none
    """
    action: Action
    keep_up_to: int = 0


@dataclass(frozen=True)
class GoBack:
    """Go on from another place: one of this world's past, or a saved one.

    request   how its line began, which is done again where there is no state
    prompt    the text of that start, None of a world that reads none
    state     a snapshot on the way there; or
    packed    (fields, arrays) of the world's `pack`
    steps     worldplay.client.line.PastSteps from the start or the state to the place, made again unseen
    begun_as  how that start ran: path, threads, sampling steps, window, each None where it is not known
    """
    request: Reset
    prompt: str | None
    steps: list = field(repr=False)
    begun_as: tuple = (None, None, None, None)
    state: object = None
    packed: tuple | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Pack:
    """Give the state of now for a file."""


@dataclass(frozen=True)
class Opened:
    """The world is there; only its facts may be read outside the worker."""
    world: World


@dataclass(frozen=True)
class Started:
    """A reset is done, of which the file was read; frames is the context shown, uint8 [n H W 3]."""
    request: Reset
    frames: np.ndarray
    state: object = None


@dataclass(frozen=True)
class Returned:
    """The world is at the place of a GoBack, with a snapshot; or it stays where it was, for a `problem`."""
    request: GoBack
    state: object = None
    problem: str = ""


@dataclass(frozen=True)
class Packed:
    """(fields, arrays) of the world's `pack`; None of a world that is taken back by its actions."""
    packed: tuple | None


@dataclass(frozen=True)
class Prompted:
    """The world has read the text; or it could not, says `problem`, and keeps the one it had."""
    text: str
    problem: str = ""


@dataclass(frozen=True)
class FrameReady:
    """A frame, uint8 [H W 3], that came into being at `at` (time.perf_counter() seconds)."""
    frame: np.ndarray
    at: float


@dataclass(frozen=True)
class StepDone:
    """The step is over, context commit included, at `at`; with a snapshot after it, if one was asked for."""
    at: float
    state: object = None


@dataclass(frozen=True)
class Ended:
    """A recording is over; a reset plays it again."""
    message: str


@dataclass(frozen=True)
class RequestFailed:
    """A Reset, GoBack or Step raised; a Reset may help."""
    error: Exception


@dataclass(frozen=True)
class Failed:
    """The world could not be opened, or is gone; error says why."""
    error: BaseException


def read(world, request):
    """The Reset of which the file, if it has one, is read: it has the frames and the actions."""
    if request.file is None:
        return request
    num = world.info.get("max_window") or world.info.get("window") or 1
    scene = file_scene(request.file, world.frame_size, world.action_space, at=request.at, num=num)
    return replace(request, file=None, at=None, frames=scene.frames, actions=tuple(scene.actions))


def begin(world, request):
    """Carry out a Reset that was `read`; returns the context shown at the start, uint8 [n H W 3]."""
    if request.is_scene:
        return world.reset(request.scene, seed=request.seed)
    actions = request.actions or [Action()] * len(request.frames)
    return world.reset(frames=request.frames, actions=list(actions), seed=request.seed)


def snapshot(world, max_bytes):
    """The state of a world between two steps; None where it has none to give, or one of more bytes."""
    has_one = hasattr(world, "snapshot") and world.state.nbytes <= max_bytes
    return world.snapshot() if has_one else None


def go_back(world, request):
    """Carry out a GoBack.

        Raises WorldError("bad_save") before anything is changed where the world cannot take what was packed.
    """
    state = request.state if request.packed is None else world.unpack(*request.packed)
    run_as = getattr(world, "run_as", lambda *how: None)
    try:
        if state is not None:
            world.restore(state)
        else:
            if request.prompt is not None and request.prompt != world.info.get("prompt"):
                world.set_prompt(request.prompt)
            run_as(*request.begun_as)  # its context is committed, or a first chunk sampled
            begin(world, request.request)
        for step in request.steps:
            if step.prompt is not None:
                world.set_prompt(step.prompt)
            run_as(step.path, step.threads, step.sampling, step.window)
            deque(world.step(step.action), maxlen=0)
    finally:
        run_as()


class Worker:
    """One request at a time through a one-slot queue; `replies` carries what comes of it, in order."""

    def __init__(self, open_world, *, keep_up_to=0):
        """open_world() -> World is called on the worker's thread, which starts at once.

        keep_up_to  bytes of a snapshot that may come with the answer to a Reset or GoBack
        """
        self._keep_up_to = keep_up_to
        # Not a SimpleQueue, whose `get` waits for ever where its time is over before it begins to wait, or in
        # a signal handler (CPython 3.11). The window stood still on a busy machine
        self.replies = queue.Queue()
        self._requests = queue.Queue(maxsize=1)
        # A daemon: a model that is loading cannot be interrupted, and must not outlive a closed window.
        self._thread = threading.Thread(target=self._run, args=(open_world,), name="world", daemon=True)
        self._thread.start()

    def ask(self, request):
        """Hand over a Reset, GoBack, Prompt, Pack or Step; the one before must have been answered in full."""
        self._requests.put_nowait(request)

    def wait(self):
        """Wait until the world is closed, after `close`."""
        self._thread.join()

    def close(self, patience):
        """Let the world close, and wait for it at most `patience` seconds."""
        try:
            self._requests.put(None, timeout=patience)
        except queue.Full:
            return
        self._thread.join(patience)

    def _run(self, open_world):
        try:
            world = open_world()
            try:
                self.replies.put(Opened(world))
                while (request := self._requests.get()) is not None:
                    self._serve(world, request)
            finally:
                world.close()  # also when it failed: its compiler may be running
        except BaseException as error:  # crosses to the main thread, which shows it and raises it there
            log.debug("the world failed", exc_info=error)
            self.replies.put(Failed(error))

    def _serve(self, world, request):
        try:
            match request:
                case Reset():
                    request = read(world, request)
                    frames = begin(world, request)
                    self.replies.put(Started(request, frames, snapshot(world, self._keep_up_to)))
                case GoBack():
                    self._go_back(world, request)
                case Pack():
                    self.replies.put(Packed(world.pack() if hasattr(world, "pack") else None))
                case Prompt():
                    self.replies.put(Prompted(request.text, _problem(world, request.text)))
                case Step():
                    self._step(world, request)
        except Exception as error:
            log.debug("the world failed", exc_info=error)
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that failed
            self.replies.put(RequestFailed(error))

    def _go_back(self, world, request):
        try:
            go_back(world, request)
        except WorldError as error:
            if error.kind != "bad_save":
                raise
            self.replies.put(Returned(request, problem=str(error)))
            return
        self.replies.put(Returned(request, snapshot(world, self._keep_up_to)))

    def _step(self, world, request):
        try:
            for frame in world.step(request.action):
                self.replies.put(FrameReady(frame, time.perf_counter()))
        except WorldError as error:
            if error.kind != "ended":
                raise
            self.replies.put(Ended(str(error)))
            return
        done = time.perf_counter()
        self.replies.put(StepDone(done, snapshot(world, request.keep_up_to) if request.keep_up_to else None))


def _problem(world, text):
    """Why the world cannot read a text, in one line; "" once it has."""
    try:
        world.set_prompt(text)
    # a text encoder is larger than the world: torch says by RuntimeError that there is no room for it
    except (WorldError, OSError, ValueError, MemoryError, RuntimeError) as error:
        log.debug("the text was not read", exc_info=error)
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""
