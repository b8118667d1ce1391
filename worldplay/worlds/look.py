"""How the frames of a world look, in a few figures: what a picture that drifts is measured against."""
import math
from dataclasses import dataclass, fields

BINS = 32  # of each colour


@dataclass(frozen=True, kw_only=True)
class Look:
    """Means over real frames, of their middles (worldplay.eval.look), and what real play itself reaches.

    frames              how many were measured
    sharpness           mean step of the luma between neighbouring pixels, levels of 255
    brightness          mean luma, levels of 255
    colours             share of the pixels in each of 32 bins of red, then of green, then of blue: 96 numbers
    sharpness_ratio     (least, most) over that mean of means of 5 seconds of real play; (1, 1) where the
                        frames are no play
    brightness_ratio    the same of the brightness
    histogram_distance  the most by which colours were off in them, see worldplay.eval.statistics

        Raises ValueError naming a field that is no such figure.
    """
    frames: int
    sharpness: float
    brightness: float
    colours: tuple[float, ...]
    sharpness_ratio: tuple[float, float] = (1.0, 1.0)
    brightness_ratio: tuple[float, float] = (1.0, 1.0)
    histogram_distance: float = 0.0

    def __post_init__(self):
        for name in ("colours", "sharpness_ratio", "brightness_ratio"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        wrong = [name for name, is_right in (
            ("frames", type(self.frames) is int and self.frames > 0),
            ("sharpness", _are_figures((self.sharpness,), 1) and self.sharpness > 0),
            ("brightness", _are_figures((self.brightness,), 1) and self.brightness > 0),
            ("colours", _are_figures(self.colours, 3 * BINS)),
            ("sharpness_ratio", _are_figures(self.sharpness_ratio, 2)),
            ("brightness_ratio", _are_figures(self.brightness_ratio, 2)),
            ("histogram_distance", _are_figures((self.histogram_distance,), 1))) if not is_right]
        if wrong:
            raise ValueError(f"look {wrong[0]} {getattr(self, wrong[0])!r:.60}: expected figures of real "
                             "frames")

    @property
    def row(self):
        """The means as a row of worldplay.eval.statistics.statistics."""
        return (self.sharpness, self.brightness, *self.colours)

    @classmethod
    def from_json(cls, given):
        """The Look in a config.json; ValueError where it is none."""
        names = {each.name for each in fields(cls)}
        if not isinstance(given, dict) or not names >= given.keys() >= {"frames", "sharpness", "brightness",
                                                                        "colours"}:
            raise ValueError(f"look {given!r:.60}: expected figures of real frames")
        try:
            return cls(**given)
        except TypeError:  # a number in place of a list
            raise ValueError(f"look {given!r:.60}: expected figures of real frames") from None


def _are_figures(values, count):
    return len(values) == count and all(
        type(value) in (int, float) and math.isfinite(value) and value >= 0 for value in values)
