"""Why frames are late, and what would help, in one line for the player."""
import time

from worldplay.cores import BUSY, OtherPrograms, allowed_cores

NUM_STEPS = 30    # are judged together
LATE_SHARE = 0.5  # of them: then it is worth saying
AGAIN_AFTER = 300.0  # seconds until it is said again: some machines are always late


class Lateness:
    """Watches the steps of a session, NUM_STEPS at a time; the loop reports each one."""

    def __init__(self, *, measure=None, clock=time.perf_counter):
        """measure() -> cores that other programs used since its last call; clock() -> seconds."""
        self._measure, self._clock = measure or OtherPrograms().cores, clock
        self._work, self._num_late, self._said = [], 0, None

    def step(self, work, period, info):
        """A step took `work` seconds a frame, and `period` was its due; returns a line to show, or "".

        info  of the world: its device and its sampling steps
        """
        self._work.append(work)
        self._num_late += work > period
        if len(self._work) < NUM_STEPS:
            return ""
        mean, is_late = sum(self._work) / NUM_STEPS, self._num_late >= LATE_SHARE * NUM_STEPS
        now = self._clock()
        others = self._measure()  # also when nothing is said: the next measure then begins here
        self._work, self._num_late = [], 0
        if not is_late or (self._said is not None and now - self._said < AGAIN_AFTER):
            return ""
        self._said = now
        return _reason(mean, period, info, others)


def _reason(work, period, info, others):
    steps = info.get("steps")
    fewer = f"fewer sampling steps (--steps {steps // 2}) would help" if steps and steps > 1 else ""
    if info.get("device") == "cpu" and others >= BUSY:
        return (f"Late frames: other programs keep {others:.1f} of {allowed_cores()} processor cores busy; "
                f"closing some{' or ' + fewer if fewer else ' would help'}")
    return (f"Late frames: one takes {1000 * work:.0f} ms here and should take {1000 * period:.0f}; "
            f"{fewer or 'a faster machine or a smaller world would help'}")
