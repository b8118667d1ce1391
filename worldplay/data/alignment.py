"""Whether a log belongs to the pictures beside it: motion of the picture against the inputs, by offset."""
from dataclasses import dataclass

import numpy as np

REACH = 2.0  # seconds searched to each side
_STEP = 0.01  # seconds
_ROUNDING = 1e-9  # of a correlation of the same numbers
_APART = 0.5  # seconds: offsets farther away than this from the best one are other places
_MAX_SHIFT = 24  # columns of 160
_MAX_FRAMES = 12_000  # of a recording that are compared: ten minutes at 20 a second
_MIN_TURNS = 0.02  # share of frames that turn, from which the turn alone is compared
# Of twelve seconds of toy play the log of the same recording scores 1.0, 4 times as much as elsewhere; logs
# of other recordings 0.21 to 0.46, at most 1.6 times as much.
CLEAR, CLEARER = 0.3, 1.8


@dataclass(frozen=True, eq=False)
class Motion:
    """How the picture moved before each frame of a recording.

    energy  float64 [n], mean change of brightness, 0 to 255; 0 at the first frame
    shift   float64 [n], columns of 160 by which the picture moved to the right
    """
    energy: np.ndarray
    shift: np.ndarray

    @classmethod
    def of(cls, tiny):
        """The Motion of pictures, an iterable of float32 [24 160]."""
        energy, shift, before = [], [], None
        for picture in tiny:
            energy.append(0.0 if before is None else float(np.abs(picture - before).mean()))
            shift.append(0.0 if before is None else _shift(before, picture))
            before = picture
        return cls(np.array(energy), np.array(shift))


@dataclass(frozen=True)
class Offset:
    """What a search found.

    seconds   to add to the log's times
    score     correlation there, 0 to 1; at_zero: without an offset; elsewhere: the best one farther away
    measured  what was compared: "turns" or "motion"
    is_wrong_way  whether the picture moves with the turn there, as it must not
    """
    seconds: float
    score: float
    at_zero: float
    elsewhere: float
    measured: str
    is_wrong_way: bool

    @property
    def is_clear(self):
        """Whether the best offset stands out."""
        return self.score >= CLEAR and self.score >= CLEARER * self.elsewhere

    def __str__(self):
        return (f"{self.seconds:+.2f} s (correlation of {self.measured} {self.score:.2f}, at 0 s "
                f"{self.at_zero:.2f}, elsewhere up to {self.elsewhere:.2f}: "
                f"{'clear' if self.is_clear else 'not clear'})")


def search(motion, inputs, times):
    """The Offset at which inputs fit the motion of the picture best.

    motion  Motion of n frames
    inputs  Inputs of the log
    times   float64 [n], seconds of those frames

    Where the view turns often enough, its yaw is compared with the shift of the picture; else all inputs,
    held or just changed, with the change of the picture, by least squares. Of offsets that fit alike, as over
    a row's time where a log has a row a frame, it is the one nearest to 0.
    """
    times, keys = times[:_MAX_FRAMES], inputs.num_keys
    energy, shift = motion.energy[1:len(times)], motion.shift[1:len(times)]
    look = inputs.between(times)[:, keys:]
    turns = bool(look.shape[1]) and (look[:, 0] != 0).mean() > _MIN_TURNS
    offsets = np.round(np.arange(-REACH, REACH + _STEP / 2, _STEP), 6)
    scores = np.empty(len(offsets))
    for i, seconds in enumerate(offsets):
        actions = inputs.between(times - seconds)
        if turns:
            scores[i] = _correlation(actions[:, keys], -shift)
        else:
            scores[i] = _fit(_stirs(actions, keys), energy)
    sizes = np.abs(scores)
    alike = np.flatnonzero(sizes >= sizes.max() - _ROUNDING)
    best, zero = int(alike[np.abs(offsets[alike]).argmin()]), int(np.abs(offsets).argmin())
    apart = np.abs(offsets - offsets[best]) > _APART
    return Offset(float(offsets[best]), float(sizes[best]), float(sizes[zero]), float(sizes[apart].max()),
                  "turns" if turns else "motion", bool(turns and scores[best] < 0))


def _shift(before, after):
    """Columns by which the picture moved to the right, by the least mean difference of the overlap."""
    width = before.shape[1]
    # the upper half: the floor also moves with every step, and many games show a weapon there
    a, b = before[2:len(before) // 2 + 2], after[2:len(after) // 2 + 2]
    costs = [np.abs(b[:, max(0, d):width + min(0, d)] - a[:, max(0, -d):width - max(0, d)]).mean()
             for d in range(-_MAX_SHIFT, _MAX_SHIFT + 1)]
    best = int(np.argmin(costs))
    if 0 < best < len(costs) - 1:  # the bottom of a parabola through three costs: parts of a column
        left, middle, right = costs[best - 1:best + 2]
        curve = left - 2 * middle + right
        return best - _MAX_SHIFT + (0.5 * (left - right) / curve if curve > 0 else 0.0)
    return float(best - _MAX_SHIFT)


def _correlation(a, b):
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0


def _stirs(actions, keys):
    """float64 [n c]: what may move the picture, keys that are held, keys that change, and turns."""
    changes = np.abs(np.diff(actions[:, :keys], axis=0, prepend=actions[:1, :keys]))
    return np.concatenate([np.abs(actions), changes], axis=1)


def _fit(inputs, values):
    """Multiple correlation of `values` [n] with the columns of `inputs` [n c]."""
    total = values.std()
    if not total > 0:
        return 0.0
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    weights = np.linalg.lstsq(inputs.T @ inputs, inputs.T @ values, rcond=None)[0]
    return _correlation(inputs @ weights, values)
