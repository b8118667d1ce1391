"""How every command ends: a log file in the platform's state folder, and one clear line for every error."""
import atexit
import errno
import logging
import logging.handlers
import os
import sys
from contextlib import suppress

import platformdirs
from tqdm import tqdm

from worldplay.errors import WorldError

log = logging.getLogger(__name__)


class _LogFile(logging.handlers.RotatingFileHandler):
    """The log; a disk that is full costs lines of it, and is no reason to print anything amid a command."""

    def handleError(self, record):
        pass


class _OneLine(logging.Formatter):
    """What the terminal gets of a record: never its traceback, which the file holds."""

    def format(self, record):
        return record.getMessage()


def run_command(name, body):
    """Run `body()` as the command `name` and return its exit status: 0 done, 1 failed, 2 bad usage.

    WorldError and OSError are failures and ValueError is bad usage, each one line on stderr that names the
    log file; anything else is a defect of ours: also one line and status 1, with its traceback in the file.
    """
    path = _start_log(name)
    where = f" (log: {path})" if path else ""

    def unexpected(kind, error, trace):
        log.debug("unexpected failure", exc_info=(kind, error, trace))
        print(f"{name}: unexpected {kind.__name__}: {_first_line(error)}{where}", file=sys.stderr)

    sys.excepthook = unexpected
    try:
        body()
    except (WorldError, OSError) as error:
        return _fail(name, error, where, 1)
    except ValueError as error:
        return _fail(name, error, where, 2)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 1
    return 0


def leave(status):
    """End this process with `status` now, as the last thing an entry point does.

    The interpreter's own end would unwind a thread that is inside torch by then (one that still opens a
    world, or talks to another process) through C++, which aborts.
    """
    atexit._run_exitfuncs()  # what is registered still runs: game engines are stopped, logs are written out
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe whose reader has gone, a stream that is closed
            stream.flush()
    os._exit(status)


def track(iterable=None, **options):
    """tqdm on stderr at a fitting rate; nothing is shown where there is no stderr or it is closed."""
    is_open = sys.stderr is not None and not sys.stderr.closed
    usual = {"file": sys.stderr, "mininterval": redraw_seconds(), "disable": not is_open}
    return tqdm(iterable, **usual | options)


def redraw_seconds():
    """How often progress is shown: a terminal is redrawn often, a log file gets a line now and then."""
    return 0.2 if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty() else 10


def current_log():
    """The file that the running command writes its log to; None where it has none."""
    files = [handler for handler in logging.getLogger("worldplay").handlers if isinstance(handler, _LogFile)]
    return files[0].baseFilename if files else None


def _fail(name, error, where, status):
    log.debug("failed", exc_info=error)
    print(f"{name}: {_first_line(error)}{where}", file=sys.stderr)
    return status


def _first_line(error):
    return (str(error) or type(error).__name__).splitlines()[0]


def _start_log(name):
    """Send debug records to a file, info records to stderr; returns the file's path, None if unwritable."""
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(_OneLine())
    root = logging.getLogger("worldplay")
    root.setLevel(logging.DEBUG)
    root.handlers = [terminal]
    path = platformdirs.user_state_path("worldplay", appauthor=False) / f"{name}.log"
    try:
        if not path.is_absolute():  # where the home is not known it stays "~", which would be a folder here
            raise OSError(errno.ENOENT, "no home folder is known")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, maxBytes=2**20, backupCount=1, encoding="utf-8")
    except OSError as error:
        print(f"{name}: no log file, {path} cannot be written ({error.strerror})", file=sys.stderr)
        return None
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(file)
    log.debug("%s", " ".join(sys.argv))
    return path
