"""Whether a log belongs to the pictures beside it: motion of the picture against the inputs, by offset."""
from dataclasses import dataclass

import numpy as np

REACH = 2.0  # seconds searched to each side
_STEP = 0.01  # seconds
_ROUNDING = 1e-9  # of shares: equal ones may differ by so much
_APART = 0.5  # seconds: offsets farther away than this from the best one are other places
_MAX_SHIFT = 24  # columns of 160
_MAX_FRAMES = 12_000  # of a recording that are compared: ten minutes at 20 a second
_MIN_TURNS = 0.02  # share of frames that turn, from which the turn alone is compared
# columns by which a turn of the usual size might move the picture
_COLUMNS = np.array([0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12, 16])
# a clear share and how much larger it is than any elsewhere; measured: docs/results/2026-11-27-own-game.md
_CLEAR, CLEARER = {"turns": 0.02, "motion": 0.09}, 3.0


@dataclass(frozen=True, eq=False)
class Motion:
    """How the picture moved before each frame of a recording.

    energy  float64 [n], mean change of brightness, 0 to 255; 0 at the first frame
    costs   float32 [m 49], of the first m frames: mean difference to the frame before, were that moved to the
            right by -24 to 24 columns of 160
    """
    energy: np.ndarray
    costs: np.ndarray

    @classmethod
    def of(cls, tiny):
        """The Motion of pictures, an iterable of float32 [24 160]."""
        energy, costs, before = [], [], None
        for picture in tiny:
            if len(costs) < _MAX_FRAMES:
                costs.append(_costs(picture if before is None else before, picture))
            energy.append(0.0 if before is None else float(np.abs(picture - before).mean()))
            before = picture
        return cls(np.array(energy), np.array(costs, np.float32))


@dataclass(frozen=True)
class Offset:
    """What a search found.

    seconds   to add to the log's times
    share     of the picture's change that the inputs explain there, 0 to 1; at_zero: without an offset;
              elsewhere: the most farther away
    measured  what was compared: "turns" or "motion"
    columns   of 160 by which a degree to the right moves the picture to the left; None with "motion"
    """
    seconds: float
    share: float
    at_zero: float
    elsewhere: float
    measured: str
    columns: float | None

    @property
    def is_clear(self):
        """Whether the best offset stands out."""
        return self.share >= _CLEAR[self.measured] and self.share >= CLEARER * self.elsewhere

    @property
    def is_wrong_way(self):
        """Whether the picture moves with the turn, as it must not."""
        return self.is_clear and self.columns is not None and self.columns < 0

    def __str__(self):
        what = "turns" if self.measured == "turns" else "keys"
        return (f"{self.seconds:+.2f} s ({what} explain {self.share:.1%} of the picture's change, at 0 s "
                f"{self.at_zero:.1%}, elsewhere up to {self.elsewhere:.1%}: "
                f"{'clear' if self.is_clear else 'not clear'})")


def search(motion, inputs, times):
    """The Offset at which inputs fit the motion of the picture best.

    motion  Motion of n frames
    inputs  Inputs of the log
    times   float64 [n], seconds of those frames

    Where the view turns often enough: how much closer the frame before comes when it is moved to the left in
    proportion to the turn. Else what least squares make of all inputs, held or just changed, for the change
    of the picture. Of offsets that fit alike, as over a row's time where a log has a row a frame, it is the
    one nearest to 0.
    """
    times, keys = times[:_MAX_FRAMES], inputs.num_keys
    look = inputs.between(times)[:, keys:]
    turned = np.abs(look[:, 0]) if look.shape[1] else np.zeros(1)
    turns = (turned > 0).mean() > _MIN_TURNS
    # a turn of the usual size moves the picture by something in _COLUMNS, whatever a degree of the log is
    scales = np.outer((-1, 1), _COLUMNS / np.median(turned[turned > 0])).ravel() if turns else None
    offsets = np.round(np.arange(-REACH, REACH + _STEP / 2, _STEP), 6)
    shares, scale = np.empty(len(offsets)), np.zeros(len(offsets))
    for i, seconds in enumerate(offsets):
        actions = inputs.between(times - seconds)
        if turns:
            shares[i], scale[i] = _moved(motion.costs[1:len(times)], actions[:, keys], scales)
        else:
            shares[i] = _fit(_stirs(actions, keys), motion.energy[1:len(times)])
    alike = np.flatnonzero(shares >= shares.max() - _ROUNDING)
    best, zero = int(alike[np.abs(offsets[alike]).argmin()]), int(np.abs(offsets).argmin())
    apart = np.abs(offsets - offsets[best]) > _APART
    share, at_zero, elsewhere = (max(0.0, float(found)) for found in (
        shares[best], shares[zero], shares[apart].max()))
    return Offset(float(offsets[best]), share, at_zero, elsewhere, "turns" if turns else "motion",
                  float(scale[best]) if turns else None)


def _costs(before, after):
    """float32 [49]: mean difference of the overlap, `before` moved to the right by -24 to 24 columns."""
    width = before.shape[1]
    # the upper half: the floor also moves with every step, and many games show a weapon there
    a, b = before[2:len(before) // 2 + 2], after[2:len(after) // 2 + 2]
    return np.array([np.abs(b[:, max(0, d):width + min(0, d)] - a[:, max(0, -d):width - max(0, d)]).mean()
                     for d in range(-_MAX_SHIFT, _MAX_SHIFT + 1)], np.float32)


def _moved(costs, yaw, scales):
    """(share of the change that goes when the picture is moved by the turn, columns a degree) of the best of
    `scales`, columns a degree.
    """
    rows, still = np.arange(len(costs)), float(costs[:, _MAX_SHIFT].mean())
    if not still > 0:
        return 0.0, 0.0
    shares = []
    for scale in scales:
        columns = np.clip(np.round(-scale * yaw), -_MAX_SHIFT, _MAX_SHIFT).astype(int)
        shares.append(1 - float(costs[rows, columns + _MAX_SHIFT].mean()) / still)
    best = int(np.argmax(shares))
    return shares[best], scales[best]


def _stirs(actions, keys):
    """float64 [n c]: what may move the picture, keys that are held, keys that change, and turns."""
    changes = np.abs(np.diff(actions[:, :keys], axis=0, prepend=actions[:1, :keys]))
    return np.concatenate([np.abs(actions), changes], axis=1)


def _fit(inputs, values):
    """Share of the variance of `values` [n] that the columns of `inputs` [n c] explain."""
    total = values.var()
    if not total > 0:
        return 0.0
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    weights = np.linalg.lstsq(inputs.T @ inputs, inputs.T @ values, rcond=None)[0]
    return float(1 - (values - inputs @ weights).var() / total)
