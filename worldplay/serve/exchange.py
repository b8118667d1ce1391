"""Between the loop's thread and the server's: what is to be seen goes one way, what happens the other."""
import io
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from worldplay.client.timing import MAX_FRAMES, summary_ms
from worldplay.serve.protocol import Input, header


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame, uint8 [H W 3]; `number` counts pictures, `frame_number` since the reset.

    answers  protocol.Input: the oldest that is new in it, or None
    """
    frame: np.ndarray
    number: int
    frame_number: int
    answers: Input | None
    _encoded: dict = field(default_factory=dict, repr=False)

    def message(self, quality):
        """Header and JPEG at a quality of 1 to 95; the pages that want the same one share it."""
        if quality not in self._encoded:
            file = io.BytesIO()
            Image.fromarray(self.frame).save(file, "JPEG", quality=quality,
                                             subsampling=0 if quality >= 90 else 2)
            self._encoded[quality] = header(self.number, self.frame_number, self.answers) + file.getvalue()
        return self._encoded[quality]


@dataclass(frozen=True)
class Joined:
    """A player is there."""


@dataclass(frozen=True)
class Left:
    """The player went, or the link is dead."""


class Exchange:
    """Every attribute is replaced whole by one thread and read by the other.

    picture    Picture, the newest; None while the world opens
    state      dict for the pages, as JSON takes it: what changes while playing
    world      dict for the pages: what holds as long as the world is open; None until then
    downloads  {file's name: Path} of the clips of this session; nothing else is given out
    wake       called when there is something new to be seen, from the loop's thread
    """

    def __init__(self, *, clock=time.perf_counter):
        self.picture, self.state, self.world, self.downloads = None, {}, None, {}
        self.wake, self._happened, self._clock = lambda: None, deque(), clock
        self._delays, self.num_sent, self.num_dropped = deque(maxlen=MAX_FRAMES), 0, 0

    # The loop's side

    def publish(self, picture, state):
        """Let every page see this."""
        self.picture, self.state = picture, state
        self.wake()

    def take(self):
        """[(what happened, when)] since the last call, in order; when in seconds of the clock."""
        return [self._happened.popleft() for _ in range(len(self._happened))]

    def to_json(self):
        """What --stats has of the pages, besides the loop's own figures."""
        return {"key_shown_ms": summary_ms(list(self._delays)),
                "pictures": {"sent": self.num_sent, "dropped": self.num_dropped}}

    # The server's side

    def happen(self, what):
        """A message of the player, Joined or Left."""
        self._happened.append((what, self._clock()))

    def shown(self, ms):
        """The player's page measured a delay from an input to its frame."""
        self._delays.append(ms / 1000)
