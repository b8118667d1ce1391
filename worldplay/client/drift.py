"""Whether the picture has left the look of its world: measured in play against its own scenes."""
from collections import deque

import pygame

from worldplay.errors import WorldError
from worldplay.eval.statistics import compare, statistics
from worldplay.worlds import zoo

EVERY = 8  # frames from one that is measured to the next
RECENT = 12  # of them are averaged: 5 s at 17.5 frames per second
MOMENT = 3  # of them make a moment that is good or not: one alone may look at a wall
REMEMBERED = 512  # good moments, more than time can go back
SIDE = 160  # pixels of the middle that are measured, so that it takes 1 to 4 ms however large the frame is
# What walks of 10 000 frames in doom-maze stay within (README), and the real game on the same ways too
LEAST_RATIO, MOST_RATIO, MOST_DISTANCE = 0.6, 1.7, 0.45


class Drift:
    """Figures of the latest frames over those of real ones.

    is_away  whether they are out of what the world looks like
    good     numbers of the frames that ended a moment within it, rising
    """

    def __init__(self, real):
        """real: list of real frames of the world, uint8 [H W 3]; without any nothing is measured."""
        self._real = [statistics(_middle(frame)) for frame in real]
        self._recent, self._newest, self._was_away = deque(maxlen=RECENT), -1, False
        self.good = deque(maxlen=REMEMBERED)

    def see(self, frame, number):
        """A frame was shown; number: its place since the start. Returns whether the picture has just left."""
        if not self._real or number % EVERY:
            return False
        if number <= self._newest:  # a reset, or time went back
            self._recent.clear()
            self.good = deque((each for each in self.good if each < number), maxlen=REMEMBERED)
        self._newest = number
        self._recent.append(statistics(_middle(frame)))
        if _is_within(compare(list(self._recent)[-MOMENT:], self._real)):
            self.good.append(number)
        was_away, self._was_away = self._was_away, self.is_away
        return self._was_away and not was_away

    @property
    def figures(self):
        """As worldplay.eval.statistics.compare gives them, or None while there are too few frames."""
        return compare(self._recent, self._real) if len(self._recent) == RECENT else None

    @property
    def is_away(self):
        figures = self.figures
        return figures is not None and not _is_within(figures)

    @property
    def is_good(self):
        """Whether the moment that was measured last is good; None while none was."""
        return None if self._newest < 0 else bool(self.good) and self.good[-1] == self._newest

    @property
    def row(self):
        """The line of the F3 panel, as a list of none or one."""
        figures = self.figures
        return [] if figures is None else [("sharp, bright, colour off", "{:.2f}, {:.2f}, {:.2f}".format(
            figures["sharpness_ratio"], figures["brightness_ratio"], figures["histogram_distance"]))]


def _is_within(figures):
    return (LEAST_RATIO <= figures["sharpness_ratio"] <= MOST_RATIO
            and LEAST_RATIO <= figures["brightness_ratio"] <= MOST_RATIO
            and figures["histogram_distance"] <= MOST_DISTANCE)


def scenes_of(world):
    """The last real frame of each scene of a learned world, uint8 [H W 3]; none where they are not here."""
    if "world_hash" not in world.info:
        return []
    try:
        paths = sorted((zoo.find(world.name) / "scenes").glob("*.png"))
        # by pygame: to import Pillow here would keep the window from its events for a tenth of a second
        return [pygame.surfarray.array3d(pygame.image.load(path)).swapaxes(0, 1) for path in paths]
    except (WorldError, OSError, pygame.error):
        return []


def _middle(frame):
    top, left = (max(0, (length - SIDE) // 2) for length in frame.shape[:2])
    return frame[top:top + SIDE, left:left + SIDE]
