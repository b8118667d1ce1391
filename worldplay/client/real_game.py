"""The real game in a process of its own: it may fail, hang or change folders, and play goes on."""
import logging
import multiprocessing
import queue
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import psutil

from worldplay.errors import WorldError

log = logging.getLogger(__name__)

LEAVE = 5.0  # seconds that the process is given to end by itself: an engine may be about to start
LOOK_EVERY = 0.2  # seconds, at the answer of a game that may hang and at whether it is still wanted
PIECE = 10   # actions that are played without a rest between them
# While it catches up it rests, so that the threads of the learned world keep their cores (worldplay.cores):
REST = 2.0   # times as long as it has worked, which makes a third of a core,
LEFT = 0.5   # but this share of what is left of the frames it has played at most: a slow game catches up, too
AT_MOST = 0.4  # seconds until what is played is shown, and another request can come


@dataclass(frozen=True)
class Follow:
    """Play a list of Actions, from the start of `scene`, or from where the game is where that is None."""
    scene: str | None
    actions: list


@dataclass(frozen=True)
class Followed:
    """The first of them, one at least, are played: the frames of the last one, or of the start, uint8
    [n H W 3].

    num         of the actions that were played
    seconds     that the last one took, None of a start
    difference  as in worldplay.envs.twin.Twin
    """
    frames: np.ndarray
    num: int
    seconds: float | None
    difference: int


@dataclass(frozen=True)
class Lost:
    """There is no real game any more, for a problem in one line.

    is_end  whether its episode is over: another game would come to the same
    """
    problem: str
    is_end: bool = False


class RealGame:
    """Runs a worldplay.envs.twin.Twin; one request at a time, and no call waits.

    is_idle  whether `ask` may be called: the request before it is answered
    """

    def __init__(self, twin):
        self.is_idle, self._requests, self._replies = True, queue.SimpleQueue(), queue.SimpleQueue()
        self._is_wanted = True
        # to begin a process, and to hand over a request, takes longer than the window's events may wait
        self._thread = threading.Thread(target=self._run, args=(twin,), name="real game", daemon=True)
        self._thread.start()

    def ask(self, request):
        """Hand over a Follow."""
        self.is_idle = False
        self._requests.put(request)

    def take(self):
        """The Followed or Lost that has come since the last call, or None."""
        try:
            reply = self._replies.get_nowait()
        except queue.Empty:
            return None
        self.is_idle = isinstance(reply, Followed)
        return reply

    def close(self):
        """Let the game end; it is not waited for."""
        self._is_wanted = False
        self._requests.put(None)

    def wait(self):
        """Wait until it has ended, after `close`, or was made to."""
        self._thread.join(2 * LEAVE + LOOK_EVERY)

    def _run(self, twin):
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_play, args=(twin, theirs), name="real game", daemon=True)
        try:
            process.start()
            theirs.close()  # so that its end is seen here
            while (request := self._requests.get()) is not None:
                ours.send(request)
                while not ours.poll(LOOK_EVERY):
                    if not self._is_wanted:
                        return
                self._replies.put(reply := ours.recv())
                if isinstance(reply, Lost):
                    return
        except (OSError, EOFError) as error:
            log.debug("the real game is gone", exc_info=error)
            self._replies.put(Lost("The real game has stopped"))
        finally:
            ours.close()
            if process.pid:
                _end(process)


def _end(process):
    """Wait until a process ends, or after LEAVE make it and what it has begun end."""
    process.join(LEAVE)
    if process.is_alive():
        with suppress(psutil.Error):
            for begun in psutil.Process(process.pid).children(recursive=True):
                begun.kill()
        process.kill()


def _play(twin, connection):
    """The process: answer every Follow, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the client, which then ends this
    for name in ("SIGTERM", "SIGHUP"):  # which may reach all processes of a terminal: the engine must end too
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _leave)
    try:
        while True:
            connection.send(_follow(twin, connection.recv(), connection))
    except (EOFError, ConnectionError):  # nobody listens any more
        pass
    except Exception as error:
        problem = str(error) if isinstance(error, (WorldError, OSError, ValueError)) else \
            f"the real game failed ({type(error).__name__}: {error})"
        is_end = isinstance(error, WorldError) and error.kind == "ended"
        with suppress(ConnectionError):
            connection.send(Lost("The real game has ended here" if is_end else " ".join(problem.split()),
                                 is_end))
    finally:
        twin.close()


def _leave(*_):
    raise SystemExit


def _follow(twin, request, connection):
    """The Followed of a Follow, which is broken off after AT_MOST, and where the other side is gone."""
    frames, seconds, num, period = None, None, 0, twin.frames_per_step / twin.fps
    if request.scene is not None:
        frames = twin.reset(request.scene)[-1:]
    passed, until = request.actions[:-1], time.perf_counter() + AT_MOST
    while num < len(passed):
        begun, piece = time.perf_counter(), passed[num:num + PIECE]
        twin.skip(piece)
        num, took = num + len(piece), time.perf_counter() - begun
        rest = min(REST * took, LEFT * max(0.0, len(piece) * period - took))
        if connection.poll(rest) or time.perf_counter() > until:
            break
    for action in request.actions[num:num + 1]:
        begun = time.perf_counter()
        frames = np.stack(list(twin.step(action)))
        seconds = time.perf_counter() - begun
    return Followed(frames, num + (seconds is not None), seconds, twin.difference)
