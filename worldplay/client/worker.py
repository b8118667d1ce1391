"""The thread that owns the world: it opens, resets and steps it, and reports every frame with its time."""
import logging
import queue
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldplay.action import Action
from worldplay.errors import WorldError
from worldplay.world import World
from worldplay.worlds.scene import image_scene

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reset:
    """Start again from a scene (None: the first) or from a picture file."""
    scene: str | None = None
    image: Path | None = None


@dataclass(frozen=True)
class Prompt:
    """Give the world another text, or a .safetensors file of its rows; the next step is made under it."""
    text: str


@dataclass(frozen=True)
class Step:
    """Make the frames of one action."""
    action: Action


@dataclass(frozen=True)
class Opened:
    """The world is there; only its facts may be read outside the worker."""
    world: World


@dataclass(frozen=True)
class Started:
    """A reset is done; frames is the context shown at the start, uint8 [n H W 3]."""
    request: Reset
    frames: np.ndarray


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
    """The step is over, context commit included, at `at`."""
    at: float


@dataclass(frozen=True)
class Ended:
    """A recording is over; a reset plays it again."""
    message: str


@dataclass(frozen=True)
class RequestFailed:
    """A Reset or Step raised; a Reset may help."""
    error: Exception


@dataclass(frozen=True)
class Failed:
    """The world could not be opened, or is gone; error says why."""
    error: BaseException


def begin(world, request):
    """Carry out a Reset; returns the context shown at the start, uint8 [n H W 3]."""
    if request.image is None:
        return world.reset(request.scene)
    start = image_scene(request.image, world.frame_size)
    return world.reset(frames=start.frames, actions=start.actions)


class Worker:
    """One request at a time through a one-slot queue; `replies` carries what comes of it, in order."""

    def __init__(self, open_world):
        """open_world() -> World is called on the worker's thread, which starts at once."""
        self.replies = queue.SimpleQueue()
        self._requests = queue.Queue(maxsize=1)
        # A daemon: a model that is loading cannot be interrupted, and must not outlive a closed window.
        self._thread = threading.Thread(target=self._run, args=(open_world,), name="world", daemon=True)
        self._thread.start()

    def ask(self, request):
        """Hand over a Reset, Prompt or Step; the one before must have been answered in full."""
        self._requests.put_nowait(request)

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
                    self.replies.put(Started(request, begin(world, request)))
                case Prompt():
                    self.replies.put(Prompted(request.text, _problem(world, request.text)))
                case Step():
                    self._step(world, request.action)
        except Exception as error:
            log.debug("the world failed", exc_info=error)
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step that failed
            self.replies.put(RequestFailed(error))

    def _step(self, world, action):
        try:
            for frame in world.step(action):
                self.replies.put(FrameReady(frame, time.perf_counter()))
        except WorldError as error:
            if error.kind != "ended":
                raise
            self.replies.put(Ended(str(error)))
            return
        self.replies.put(StepDone(time.perf_counter()))


def _problem(world, text):
    """Why the world cannot read a text, in one line; "" once it has."""
    try:
        world.set_prompt(text)
    # a text encoder is larger than the world: torch says by RuntimeError that there is no room for it
    except (WorldError, OSError, ValueError, MemoryError, RuntimeError) as error:
        log.debug("the text was not read", exc_info=error)
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""
