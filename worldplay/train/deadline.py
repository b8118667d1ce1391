"""When a call of a training ends, with work left that the same command takes up."""
import logging
import math
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Deadline:
    """The end of a call: at a time, or sooner once `interrupt` is called.

    is_interrupted  whether it was
    """

    def __init__(self, at=math.inf):
        """at: of the clock of time.monotonic, seconds."""
        self._at, self._is_awaited, self.is_interrupted = at, False, False

    def passed(self, now):
        """Whether the call should end, now being the time."""
        return self.is_interrupted or now >= self._at

    @contextmanager
    def awaited(self):
        """Inside, whoever works asks `passed` between steps, and saves."""
        self._is_awaited = True
        try:
            yield
        finally:
            self._is_awaited = False

    def interrupt(self):
        """End the call: after the step going on where it is awaited, by KeyboardInterrupt elsewhere."""
        self.is_interrupted = True
        if not self._is_awaited:
            raise KeyboardInterrupt
        log.info("stops after this step and saves")
