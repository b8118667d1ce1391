"""What the clock says of the frames shown: rates and percentiles for the HUD, --stats and --json."""
from collections import Counter, deque
from itertools import islice

import numpy as np

MAX_FRAMES = 100_000  # 95 minutes at 17.5 frames per second


def summary_ms(seconds, percentiles=(50, 95, 99)):
    """{"p50": ms, ..., "max": ms} of a list of durations in seconds; None where there is none."""
    if not len(seconds):
        return None
    values = 1000 * np.asarray(seconds, np.float64)
    figures = {f"p{p}": float(np.percentile(values, p)) for p in percentiles} | {"max": float(values.max())}
    return {name: round(value, 3) for name, value in figures.items()}


class Timing:
    """Times of the frames of one session, in seconds of time.perf_counter(); the loop alone writes them.

    work         from an action handed over to its step's end, context commit included, per frame made
    key_flip     from the oldest input in a frame's action, as it left the queue, to the flip that shows it;
                 both of the latest MAX_FRAMES, so that a long session does not fill the memory
    threads      {number: steps made by so many of torch's threads}; empty where a world does not say
    longest_gap  the longest time between two looks at the event queue
    loading      from the open window to the world in it; None until then
    """

    def __init__(self):
        self.work, self.key_flip = deque(maxlen=MAX_FRAMES), deque(maxlen=MAX_FRAMES)
        self.num_frames, self.num_late, self.longest_gap = 0, 0, 0.0
        self.loading = None
        self._flips = deque(maxlen=120)
        self._served, self.threads = None, Counter()

    def served(self, now):
        """The event queue was read."""
        if self._served is not None:
            self.longest_gap = max(self.longest_gap, now - self._served)
        self._served = now

    def rest(self):
        """Nobody waits: the time until the queue is read again is no gap."""
        self._served = None

    def worked(self, seconds, *, is_late, threads=None):
        """A step is over; it took so long for each of its frames, with so many of torch's threads."""
        if threads is not None:
            self.threads[threads] += 1
        self.work.append(seconds)
        self.num_late += is_late

    def flipped(self, input_time, now):
        """A new frame is on the screen; input_time is None when nothing new was in its action."""
        self.num_frames += 1
        self._flips.append(now)
        if input_time is not None:
            self.key_flip.append(now - input_time)

    def recent_work(self, num):
        """Seconds of the latest `num` frames at most, the oldest first."""
        return list(islice(reversed(self.work), num))[::-1]

    def fps(self, now, over=2.0):
        """Frames shown per second during the last `over` seconds."""
        recent = [flip for flip in self._flips if flip > now - over]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0

    def to_json(self):
        return {"loading_ms": self.loading and round(1000 * self.loading, 3), "frames": self.num_frames,
                "late": self.num_late, "work_ms": summary_ms(self.work),
                "key_flip_ms": summary_ms(self.key_flip),
                "events_gap_max_ms": round(1000 * self.longest_gap, 3),
                "threads": {str(number): steps for number, steps in sorted(self.threads.items())}}
