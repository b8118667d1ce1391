"""A command as a process of its own: its standard streams, the signals that end it, and its exit status."""
import errno
import io
import os
import signal
import sys
from contextlib import contextmanager

from worldplay.log import leave

# What writing raises once the reader of a pipe, or the terminal, has gone; EINVAL is Windows' word for it.
_GONE = {errno.EPIPE, errno.EIO, errno.EINVAL} if os.name == "nt" else {errno.EPIPE, errno.EIO}
_ends_with_command = False  # whether this process does nothing after the command that it runs


def run_process(main):
    """Call main() -> exit status and end this process with that status.

    The work is done whether or not somebody reads what is printed: what goes to a stream that was closed
    before the start, or whose reader has gone, is dropped.
    """
    global _ends_with_command
    _ends_with_command = True
    _open_streams()
    if os.path.expanduser("~") == "~":  # else what belongs there would go into a folder named "~" here
        os.environ["HOME"] = os.devnull
    try:
        status = main()
    except SystemExit as left:
        status = left.code or 0
    except KeyboardInterrupt:
        status = 1
    except Exception:  # a defect of ours; the interpreter would unwind other threads after it, see `leave`
        sys.excepthook(*sys.exc_info())
        status = 1
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"what was printed is not complete ({error.strerror})", file=sys.stderr)
        status = status or 1
    leave(status)


@contextmanager
def at_end_signal(act, *, interrupt=False):
    """Inside, the signals that end a process call act() once instead: SIGTERM, SIGHUP of a closing terminal.

    interrupt  whether SIGINT of Ctrl-C does too

    A signal that is ignored, as after nohup, stays so. Once one came, a process of `run_process` ignores them
    to its end: a second one must not break off what it still finishes. On the main thread only.
    """
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in [signal.SIGINT] * interrupt + numbers}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def set_all(handler):
        for number in before:
            signal.signal(number, handler)

    def handle(number, frame):
        set_all(signal.SIG_IGN)  # nothing breaks off what `act` sets going, such as finishing a clip
        act()
    set_all(handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if not _ends_with_command or signal.getsignal(number) is handle:
                signal.signal(number, handler)


def _open_streams():
    """Connect standard streams that are closed, or missing for want of a console, to the null device.

    Else the next files that are opened would get their numbers, and with them all that libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif mode == "w":
            setattr(sys, name, _unbreakable(getattr(sys, name)))


def _unbreakable(stream):
    """The stream, as one that goes on into the null device once its reader has gone."""
    raw = _Unbreakable(stream.fileno(), "wb", closefd=False)
    is_unbuffered = stream.write_through
    return io.TextIOWrapper(raw if is_unbuffered else io.BufferedWriter(raw), stream.encoding, stream.errors,
                            line_buffering=stream.line_buffering, write_through=is_unbuffered)


class _Unbreakable(io.FileIO):
    def write(self, data):
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())  # for what libraries print, too
        os.close(null)
        return super().write(data)
