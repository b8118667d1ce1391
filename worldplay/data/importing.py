"""Reading other programs' data: which columns are keys or look, and how frames are brought to a size."""
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

from worldplay.action import KEYS, ActionSpace

LOOK = ("look_yaw", "look_pitch")
_TERM = re.compile(r"(?P<target>\w+)=(?P<column>.+?)(?:(?P<how>[:<>*])(?P<number>[-+]?\d+(?:\.\d*)?))?")


@dataclass(frozen=True)
class Column:
    """One number of a data set's actions: its label, the feature that it is in, and its index there."""
    label: str
    feature: str
    place: int


def action_columns(features):
    """The Columns of the features called action or action.SOMETHING.

    features  {name: {dtype, shape, names}} of meta/info.json
    """
    found = []
    for name, feature in features.items():
        is_number = feature["dtype"].startswith(("float", "int", "uint", "bool"))
        if name.split(".")[0] != "action" or not is_number:
            continue
        num, names = int(np.prod(feature["shape"])), feature.get("names")
        if isinstance(names, dict):  # {"motors": [...]}
            names = [label for part in names.values() if isinstance(part, list) for label in part]
        if not isinstance(names, list) or len(names) != num:
            names = [name] if num == 1 else [f"{name}[{i}]" for i in range(num)]
        found += [Column(str(label), name, i) for i, label in enumerate(names)]
    return found


@dataclass(frozen=True)
class ActionColumns:
    """The mapping from the columns of a data set's actions to keys and look.

    text     the terms as they were given, for example "w=forward, a=turn<-0.5, look_yaw=turn*12"
    terms    of each (a key or a name of LOOK; its Column; ":", "<", ">" or "*"; number)
    """
    text: str
    terms: tuple

    @classmethod
    def parse(cls, text, columns):
        """Read comma-separated KEY=COLUMN terms; a COLUMN is a label or a number from 0 on.

        KEY=COLUMN     down while the column is above 0.5; KEY=COLUMN>X, KEY=COLUMN<X: above or below X
        KEY=COLUMN:X   down while it is X, one of several numbered actions
        look_yaw=COLUMN*X, look_pitch=...  X degrees (1 without *X) for 1 in the column; right and
                                           down are positive

            Raises ValueError naming the term that cannot be read, with the columns that there are.
        """
        by_name = {str(i): column for i, column in enumerate(columns)}
        by_name |= {column.label: column for column in columns}
        listed = (f"{i} {column.label!r}" for i, column in enumerate(columns))
        there_are = f"the columns are {', '.join(listed)}"
        terms = []
        for term in filter(None, map(str.strip, text.split(","))):
            match = _TERM.fullmatch(term)
            if not match or match["target"] not in (*KEYS, *LOOK):
                raise ValueError(f"--actions: {term!r}: expected KEY=COLUMN, with a canonical key such as w, "
                                 f"space or mouse_left, look_yaw or look_pitch; {there_are}")
            target, label, how = match["target"], match["column"], match["how"]
            is_look = target in LOOK
            if label not in by_name:
                raise ValueError(f"--actions: {term!r}: there is no column {label!r}; {there_are}")
            if how is not None and (how == "*") != is_look:
                raise ValueError(f"--actions: {term!r}: *X is for look_yaw and look_pitch, and :X, <X and >X "
                                 "are for keys")
            number = float(match["number"]) if how else 1.0 if is_look else 0.5
            terms.append((target, by_name[label], how or ("*" if is_look else ">"), number))
        if not terms:
            raise ValueError(f"--actions: no key is named; {there_are}")
        return cls(text, tuple(terms))

    @property
    def features(self):
        """Names of the features that are read."""
        return list(dict.fromkeys(column.feature for _, column, _, _ in self.terms))

    def space(self, largest):
        """The ActionSpace, its keys in the order of their terms.

        largest  {name of LOOK: degrees}, the most that any row of the data set turns
        """
        targets = [target for target, *_ in self.terms]
        axes = 2 if LOOK[1] in targets else int(LOOK[0] in targets)
        limit = max(largest.values(), default=0.0)
        return ActionSpace(tuple(dict.fromkeys(t for t in targets if t not in LOOK)), limit or 1.0,
                           look_axes=axes)

    def look(self, rows):
        """{name of LOOK: float64 [n], degrees} of an episode's rows; several terms for one name add up.

        rows  {feature: array [n] or [n c]}
        """
        turned = {}
        for target, column, _, factor in self.terms:
            if target in LOOK:
                turned[target] = turned.get(target, 0.0) + factor * _values(rows, column)
        return turned

    def encode(self, rows, space):
        """float32 [n a]: the encoded actions of such rows; a key is down where any of its terms says so."""
        num = len(next(iter(rows.values())))
        channels = {name: np.zeros(num) for name in (*space.keys, *LOOK)} | {
            name: degrees / space.look_limit for name, degrees in self.look(rows).items()}
        for target, column, how, number in self.terms:
            if target in LOOK:
                continue
            values = _values(rows, column)
            is_down = {":": values == number, "<": values < number, ">": values > number}[how]
            channels[target] = np.maximum(channels[target], is_down)
        names = [*space.keys, *LOOK[:space.look_axes]]
        return np.stack([channels[name] for name in names], axis=1).astype(np.float32)


def _values(rows, column):
    values = rows[column.feature]
    return values.reshape(len(values), -1)[:, column.place].astype(np.float64)


@dataclass(frozen=True)
class FrameFit:
    """How frames are brought to another size.

    how   "pad": unscaled, in the middle of black; "crop": their middle, unscaled; "resize": scaled, height
          and width each by their own factor
    size  (H, W) pixels
    """
    how: str
    size: tuple[int, int]

    @classmethod
    def parse(cls, text):
        """Read "pad 160x120", width x height as everywhere on the command line.

            Raises ValueError for another text.
        """
        match = re.fullmatch(r"(pad|crop|resize) +([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip())
        if not match:
            raise ValueError(f'--fit {text!r}: expected pad, crop or resize with width x height, such as '
                             '"pad 160x120"')
        return cls(match[1], (int(match[3]), int(match[2])))

    @property
    def text(self):
        """What `parse` reads it from."""
        return f"{self.how} {self.size[1]}x{self.size[0]}"

    def check(self, frame_size):
        """Raise ValueError where frames of (H, W) pixels cannot be made to fit so."""
        for found, wanted in zip(frame_size, self.size):
            if self.how == "pad" and wanted < found or self.how == "crop" and wanted > found:
                raise ValueError(f'--fit "{self.text}": frames are '
                                 f"{frame_size[1]}x{frame_size[0]} pixels, which {self.how} makes no "
                                 f"{'smaller' if self.how == 'pad' else 'larger'}; use "
                                 f"{'crop' if self.how == 'pad' else 'pad'} or resize")

    def apply(self, frame):
        """The frame, uint8 [H W 3], at the new size, uint8 [*size 3]."""
        if self.how == "resize":
            return np.asarray(Image.fromarray(frame).resize(self.size[::-1], Image.Resampling.BICUBIC))
        spare = [abs(wanted - found) // 2 for wanted, found in zip(self.size, frame.shape)]
        if self.how == "crop":
            rows, columns = (slice(start, start + length) for start, length in zip(spare, self.size))
            return frame[rows, columns]
        fitted = np.zeros((*self.size, 3), np.uint8)
        fitted[spare[0]:spare[0] + frame.shape[0], spare[1]:spare[1] + frame.shape[1]] = frame
        return fitted
