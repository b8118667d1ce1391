"""When the next step begins and the next frame is shown, so that frames keep the rate of the world."""
from collections import deque
from dataclasses import dataclass
from statistics import median

SLACK = 0.004  # seconds of timer lateness that the next wait makes up for
HURRY = 0.75  # of a frame's time: two frames never follow each other closer, so a late one is not made up


@dataclass
class StepTimes:
    """When the step under way got its input, and how many of its frames were shown."""
    input_time: float | None
    polled: float
    num_frames: int = 0


class Pace:
    """Times in seconds of the loop's clock.

    step      StepTimes of the latest step
    due       when the next step begins
    show_due  when the next frame of the latest step is shown; its first one as soon as it is there
    """

    def __init__(self, fps):
        self.period, self.step, self.due, self.show_due = 1 / fps, None, 0.0, 0.0
        self._latencies = deque(maxlen=9)  # of the latest steps, from poll to flip

    def begin(self, input_time, polled):
        """A step begins; what is late shifts all that follows."""
        self.step, self.show_due = StepTimes(input_time, polled), 0.0
        self.due = max(self.due, polled - SLACK) + self.period

    def shown(self, flipped):
        """A frame of the step is on the screen; further ones are spread over world time."""
        if self.step.num_frames:
            self.due += self.period
        else:
            self._latencies.append(flipped - self.step.polled)
        self.due = max(self.due, flipped + HURRY * self.period - median(self._latencies))
        self.show_due = flipped + self.period
        self.step.num_frames += 1
