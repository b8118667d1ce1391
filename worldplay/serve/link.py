"""How fast a link is: which picture may be sent now, in which quality, and how many messages are too many."""
import math

QUALITIES = (92, 80, 65, 50, 35, 20)  # of JPEG, the best first
MAX_IN_FLIGHT = 6
WORSE_AFTER, BETTER_AFTER = 3, 40  # pictures in a row that came too late, or in good time
DRAWING = 0.03  # seconds that a page may take to decode and draw a picture

RATE, BURST = 400, 1200  # messages a second that a page may send in the long run, and at once


class Flow:
    """Pictures on their way to one page: no more of them than the link itself holds, so none waits in it.

    A picture may be sent while fewer are in flight than last as long as the way there and back, and one more:
    on a quick link that is one. A link that is too narrow so drops pictures, and then gets smaller ones.

    quality  of the next picture
    """

    def __init__(self, period):
        """period: seconds between two pictures of the world."""
        self.period, self.base, self._in_flight = period, 0.0, {}  # {picture: sent at}
        self._step, self._late, self._good = 0, 0, 0

    def measured(self, seconds):
        """The way there and back of a small message, while no picture was under way."""
        self.base = seconds

    @property
    def quality(self):
        return QUALITIES[self._step]

    @property
    def may_send(self):
        return len(self._in_flight) < min(MAX_IN_FLIGHT, 1 + math.floor(self.base / self.period))

    def sent(self, picture, now):
        self._in_flight[picture] = now

    def acked(self, picture, now):
        """A picture was drawn, and with it all that were sent before it."""
        sent = self._in_flight.get(picture)
        if sent is None:
            return
        self._in_flight = {number: at for number, at in self._in_flight.items() if at > sent}
        queued = now - sent - self.base
        self.base = min(self.base, now - sent)
        is_late = queued > DRAWING + self.period
        self._late = self._late + 1 if is_late else 0
        self._good = 0 if queued > DRAWING + self.period / 2 else self._good + 1
        if self._late >= WORSE_AFTER:
            self._step, self._late = min(self._step + 1, len(QUALITIES) - 1), 0
        elif self._good >= BETTER_AFTER:
            self._step, self._good = max(self._step - 1, 0), 0


class Limit:
    """A bucket of messages that fills at RATE a second, up to BURST."""

    def __init__(self, now):
        self._left, self._at = float(BURST), now

    def allows(self, now):
        """Whether one more message is not too many."""
        self._left, self._at = min(BURST, self._left + RATE * (now - self._at)), now
        self._left -= 1
        return self._left >= 0
