"""Whether the picture has left the look of its world: measured in play, against real frames of it."""
from collections import deque

import pygame

from worldplay.eval.look import EVERY, RECENT, look_of, measured
from worldplay.eval.statistics import compare

MOMENT = 3  # measured frames that make a moment, which is good or not: one alone may look at a wall
REMEMBERED = 512  # good moments, more than time can go back
# What walks of 10 000 frames in doom-maze stay within (README), and the real game on the same ways too; where
# real play of a world reaches further, that is its limit, and a tenth beyond
LEAST_RATIO, MOST_RATIO, MOST_DISTANCE = 0.6, 1.7, 0.45
BEYOND = 0.1


class Drift:
    """Figures of the latest frames over those of real ones.

    is_away  whether they are out of what the world looks like
    good     numbers of the frames that ended a moment within it, rising
    """

    def __init__(self, look):
        """look: worldplay.worlds.look.Look of the world; without one, None, nothing is measured."""
        self._look, self._real = look, look and [look.row]
        self._recent, self._newest, self._was_away = deque(maxlen=RECENT), -1, False
        self.good = deque(maxlen=REMEMBERED)

    def begin(self, number):
        """The world was brought to the frame of this number, by a reset, back in time or from a saved place:
        nothing that was measured holds for what follows.
        """
        self._recent.clear()
        self._newest, self._was_away = -1, False
        self.good = deque((each for each in self.good if each < number), maxlen=REMEMBERED)

    def see(self, frame, number):
        """A frame was shown; number: its place since the start. Returns whether the picture has just left."""
        if self._look is None or number % EVERY:
            return False
        self._newest = number
        self._recent.append(measured(frame))
        if self._is_within(compare(list(self._recent)[-MOMENT:], self._real)):
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
        return figures is not None and not self._is_within(figures)

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

    def _is_within(self, figures):
        """Whether figures of `compare` are those of a picture of this world."""
        for name in ("sharpness_ratio", "brightness_ratio"):
            least, most = getattr(self._look, name)
            if not min(LEAST_RATIO, (1 - BEYOND) * least) <= figures[name] <= max(MOST_RATIO,
                                                                                  (1 + BEYOND) * most):
                return False
        return figures["histogram_distance"] <= max(MOST_DISTANCE,
                                                    (1 + BEYOND) * self._look.histogram_distance)


def look_for(world):
    """The Look that a learned world is measured against: its config's, or that of the last frames of its
    scenes, where it was made before there was one; None where there is neither.
    """
    config, folder = getattr(world, "config", None), getattr(world, "folder", None)
    if config is None or config.look or not folder:
        return config and config.look
    try:
        # by pygame: to import Pillow here would keep the window from its events for a tenth of a second
        pictures = [pygame.surfarray.array3d(pygame.image.load(path)).swapaxes(0, 1)
                    for path in sorted((folder / "scenes").glob("*.png"))]
    except (OSError, pygame.error):
        return None
    return look_of(picture[None] for picture in pictures)
