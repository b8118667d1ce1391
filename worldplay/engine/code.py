"""Code for a world's passes: loaded by a thread, and made by a subprocess where it is not on disk yet."""
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import worldplay
from worldplay.errors import WorldError

log = logging.getLogger(__name__)


class Code:
    """What native and compiled code share; a subclass says what is made, loaded and installed.

    problem  why there is no code; "" while it is made or loaded, and once it can be installed
    module   the module that makes it when it is run, given `recipe`
    kind     what it is called
    loads_at_once  whether loading takes milliseconds
    """
    module, kind, loads_at_once = None, "", False

    def __init__(self, *, gives_way=False):
        """Starts the thread and returns at once; gives_way: whether it is made in time that play leaves."""
        self.problem, self._gives_way = "", gives_way
        self._process, self._is_closed = None, False
        # a daemon: at exit it may be importing torch's compiler, which cannot be interrupted
        self._thread = threading.Thread(target=self._run, name="code", daemon=True)
        self._thread.start()

    # What a subclass has: folder() of it on disk; hindrance() -> why none can be had, or ""; is_cached();
    # load(), which keeps what it loads and raises; room() -> why none can be made at present, or "";
    # recipe(): JSON for `module`; install(transformer): put it in place of written methods, until
    # worldplay.engine.code_choice.uninstall.

    def is_ready(self):
        """Whether the code can be installed."""
        return not self._thread.is_alive() and not self.problem

    def join(self):
        """Wait until it can be installed or `problem` says why not."""
        self._thread.join()

    def wait(self):
        """Wait until the code can be installed.

            Raises WorldError("device") where it cannot be made or loaded.
        """
        self._thread.join()
        if self.problem:
            raise WorldError("device", f"there is no compiled code here ({self.problem}); --path eager needs "
                             "none")

    def close(self):
        """Stop what is making it, and wait for its end."""
        self._is_closed = True
        if self._process is not None:
            self._process.terminate()
            self._thread.join()

    def _run(self):
        try:
            # loading compiled code needs compilers too
            if reason := self.hindrance():
                raise ChildProcessError(reason)
            if not self.is_cached():
                self._make()
            self.load()
        except Exception as error:
            log.debug("there is no code", exc_info=error)
            self.problem = first_line(error)

    def _make(self):
        """Run `module` in a subprocess, so that neither its memory nor its locks hold up play."""
        if reason := self.room():
            raise ChildProcessError(reason)
        log.info("code for this world is being compiled, and kept for the next time")
        with tempfile.TemporaryFile() as file:
            # `python -m` searches cwd first: there may be another worldplay installed, or a random.py where
            # play was started
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, json.dumps(self.recipe())],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                cwd=Path(worldplay.__file__).parent.parent)
            if self._gives_way:
                _give_way(self._process.pid)
            if self._is_closed:
                self._process.terminate()
            self._process.wait()
            file.seek(0)
            output = file.read().decode(errors="replace").strip()
        if not self.is_cached():
            log.debug("the code was not compiled:\n%s", output)
            raise ChildProcessError(output.splitlines()[-1] if output
                                    else "its process ended without a message")


def _give_way(pid):
    """Let all else on this machine run before a process that has just begun, and before what it begins.

    Where the system has no class for that (Linux: SCHED_IDLE), it gets the lowest priority.
    """
    with suppress(OSError):  # a container may forbid it, and the process may have ended
        if hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, pid, 19)
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def first_line(error):
    """The first line of what an exception says, or its name."""
    return (str(error) or type(error).__name__).splitlines()[0]
