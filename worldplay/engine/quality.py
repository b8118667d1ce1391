"""Sampling steps and window of play: lowered where a machine is too slow, raised again when there is room."""
import logging
from collections import deque
from typing import NamedTuple

import numpy as np

log = logging.getLogger(__name__)

LATE_OVER = 20    # frames that are judged together
ROOM_OVER = 60    # frames that must all have been made at one quality before a higher one is tried
ROOM = 0.85       # of the time of a frame: what a higher quality may be expected to take
WIDER = 1.2       # how much longer a frame may take from a window twice as long
PATIENCE = 2400   # frames at most until a quality that was too slow is tried again: over two minutes


class Quality(NamedTuple):
    """steps: sampling steps of a frame; window: frames that it is made from, itself included."""
    steps: int
    window: int


class Governor:
    """Chooses a Quality by the times that frames took, so that the machine keeps a rate.

    quality  the choice

    It is lowered when more than half of LATE_OVER frames took longer than their time, and raised after
    ROOM_OVER frames that leave room for the higher one. One that then is too slow again is tried later and
    later.
    """

    def __init__(self, target_fps, rungs):
        """rungs: Qualities, the highest first."""
        self._period, self._rungs, self._at = 1 / target_fps, rungs, 0
        self._seconds, self._patience, self._was_raised = deque(maxlen=ROOM_OVER), ROOM_OVER, False
        self._count = 0

    @property
    def quality(self):
        return self._rungs[self._at]

    def worked(self, seconds):
        """A frame took so long at `quality`."""
        self._seconds.append(seconds)
        self._count += 1
        latest = list(self._seconds)[-LATE_OVER:]
        if len(latest) == LATE_OVER and sum(x > self._period for x in latest) > LATE_OVER / 2:
            self._lower()
        elif self._at and self._count >= self._patience and self._has_room():
            self._change(-1)
            self._was_raised = True
        elif self._was_raised and self._count >= PATIENCE:  # it holds
            self._patience, self._was_raised = ROOM_OVER, False

    def _lower(self):
        if self._at == len(self._rungs) - 1:
            return
        if self._was_raised:
            self._patience, self._was_raised = min(2 * self._patience, PATIENCE), False
        self._change(1)

    def _has_room(self):
        higher = self._rungs[self._at - 1]
        passes = (higher.steps + 1) / (self.quality.steps + 1)  # the commit is one
        window = 1.0 if higher.window == self.quality.window else WIDER
        return np.median(self._seconds) * passes * window <= ROOM * self._period

    def _change(self, by):
        self._at += by
        self._seconds.clear()
        self._count = 0


class PlayQuality:
    """The Quality that one world is played at; without `govern` or `fix` it stays the world's own.

    A clip records it, as it records the number of threads.
    """

    def __init__(self, config, sampler, info):
        """info: the world's, with "steps" and "window"; it gets "max_steps" and "max_window"."""
        self._config, self._sampler, self._info, self._governor = config, sampler, info, None
        self._highest, self._fixed = Quality(info["steps"], info["window"]), None
        info["max_steps"], info["max_window"] = self._highest

    def govern(self, target_fps):
        """From the next step on lower the quality where it takes that to make so many frames a second."""
        self._governor = Governor(target_fps, self._rungs())

    def fix(self, *, steps=None, window=None):
        """From the next step on use these, whatever the machine can do; None leaves one as it is, both None
        end that.
        """
        if steps is None and window is None:
            self._fixed = None
        else:
            was = self._fixed or self._chosen()
            self._fixed = Quality(steps or was.steps, window or was.window)

    def worked(self, seconds):
        """A frame took so long."""
        if self._governor and not self._fixed:
            self._governor.worked(seconds)

    def update(self, state):
        """Call before each step: takes the choice over, also into the PlayState's cache."""
        wanted = self._fixed or self._chosen()
        if wanted != (self._info["steps"], self._info["window"]):
            log.debug("%d sampling steps and a window of %d from now on", *wanted)
        if wanted.steps != self._info["steps"]:
            self._sampler.set_steps(wanted.steps)
        self._info["steps"], self._info["window"] = wanted
        if state.cache.rule.window != wanted.window:
            state.cache = state.cache.resized(wanted.window)

    def _chosen(self):
        return self._governor.quality if self._governor else self._highest

    def _rungs(self):
        """The highest Quality, then fewer steps, then half the window where a cache can be resized."""
        rungs = [self._highest]
        while rungs[-1].steps > 1:
            rungs.append(rungs[-1]._replace(steps=rungs[-1].steps // 2))
        size = self._config.frames_per_chunk
        half = -(-self._highest.window // (2 * size)) * size
        if self._config.sink == 0 and not self._config.transformer.has_camera and size < half:
            rungs.append(rungs[-1]._replace(window=half))
        return rungs
