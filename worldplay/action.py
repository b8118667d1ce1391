"""One frame of player input, and the table that makes it a vector and back."""
import math
import re
from dataclasses import dataclass, replace

import numpy as np

KEYS = (*"abcdefghijklmnopqrstuvwxyz", *"0123456789", "space", "shift", "ctrl", "alt", "tab", "enter",
        "up", "down", "left", "right", "mouse_left", "mouse_middle", "mouse_right")


@dataclass(frozen=True)
class Action:
    """What the player does in one frame, independent of device and model.

    keys  canonical names (KEYS) that were down at any moment since the previous frame
    look  degrees since the previous frame: (yaw, right is positive; pitch, down is positive)
    """
    keys: frozenset[str] = frozenset()
    look: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self):
        object.__setattr__(self, "keys", frozenset(self.keys))
        object.__setattr__(self, "look", (float(self.look[0]), float(self.look[1])))

    def share(self, count):
        """What it is in each of `count` frames that it holds for: a key is held, a turn is divided."""
        yaw, pitch = self.look
        return Action(self.keys, (yaw / count, pitch / count))


@dataclass(frozen=True)
class ActionSpace:
    """What a world understands; it travels with every checkpoint and clip.

    keys        canonical names, in the order of their channels
    look_limit  degrees per frame that encode to 1.0; more is cut to it. Without look it has no meaning
    look_axes   0 no look, 1 yaw only, 2 yaw and pitch
    """
    keys: tuple[str, ...]
    look_limit: float = 0.0
    look_axes: int = 2

    def __post_init__(self):
        object.__setattr__(self, "keys", tuple(self.keys))
        unknown = [key for key in self.keys if key not in KEYS]
        if unknown:
            raise ValueError(f"action space: unknown key {unknown[0]!r}; canonical names are in "
                             "worldplay.action.KEYS")
        if len(set(self.keys)) != len(self.keys):
            raise ValueError(f"action space: a key stands twice in {self.keys}")
        if self.look_axes not in (0, 1, 2):
            raise ValueError(f"action space: look_axes {self.look_axes}: expected 0, 1 or 2")
        if self.look_axes and not self.look_limit > 0:
            raise ValueError(f"action space: look_limit {self.look_limit} must be > 0 degrees where there is "
                             "look")

    @property
    def num_channels(self):
        """Length a of an encoded action."""
        return len(self.keys) + self.look_axes

    def over(self, count):
        """The ActionSpace of actions that hold for `count` frames: they turn so many times as far."""
        return replace(self, look_limit=count * self.look_limit)

    def fit(self, action):
        """The nearest action this world can carry out: other keys and axes dropped, look cut to the limit."""
        look = [float(np.clip(degrees, -self.look_limit, self.look_limit)) for degrees in action.look]
        look[self.look_axes:] = [0.0] * (2 - self.look_axes)
        return Action(frozenset(action.keys & set(self.keys)), tuple(look))

    def encode(self, action):
        """float32 [a] in [-1, 1]: one channel a key (1 down, 0 up), then yaw and pitch over look_limit.

        Raises ValueError for a key this world does not have; `fit` drops those.
        """
        strange = sorted(action.keys - set(self.keys))
        if strange:
            raise ValueError(f"this world has no key {strange[0]!r}; it has {', '.join(self.keys)}")
        look = np.asarray(self.fit(action).look[:self.look_axes]) / self.look_limit
        return np.array([*(key in action.keys for key in self.keys), *look], np.float32)

    def decode(self, vector):
        """The Action that `encode` made into `vector` [a]; a key counts as down above 0.5."""
        if len(vector) != self.num_channels:
            raise ValueError(f"an encoded action has {self.num_channels} channels here, not {len(vector)}")
        look = [float(x) * self.look_limit for x in vector[len(self.keys):]] + [0.0] * (2 - self.look_axes)
        return Action(frozenset(key for key, x in zip(self.keys, vector) if x > 0.5), tuple(look))

    def to_json(self):
        return {"keys": list(self.keys), "look_limit": self.look_limit, "look_axes": self.look_axes}

    @classmethod
    def from_json(cls, fields):
        return cls(tuple(fields["keys"]), fields.get("look_limit", 0.0), fields["look_axes"])


# Understands every action there is: what a script says can be checked before its world is open.
ANY_SPACE = ActionSpace(KEYS, math.inf)

MAX_STEPS = 1_000_000  # of a script: half a day of play at 20 steps a second

_SEGMENT = re.compile(r"(?P<what>[^*]+)\*(?P<count>-?\d+)")
_LOOK = re.compile(r"look\(\s*(?P<yaw>[-+]?[\d.]+)\s*,\s*(?P<pitch>[-+]?[\d.]+)\s*\)")


def parse_script(text, space):
    """Actions of a script such as "w*30, w+look(4,0)*20, idle*10", one per world step.

    text     comma-separated `keys*count`, keys joined by `+`, look(yaw,pitch) in degrees per frame, or `idle`
    space    the world's ActionSpace
    Returns  list of Action, at least one

        Raises ValueError naming the segment that cannot be read, has an unknown key, a count below 1, or goes
        beyond MAX_STEPS.
    """
    segments = [segment.strip() for segment in re.split(r",(?![^(]*\))", text)]
    if not any(segments):
        raise ValueError('the script is empty; write for example "w*30, w+look(4,0)*20, idle*10"')
    actions = []
    for number, segment in enumerate(segments, 1):
        where = f"script segment {number} {segment!r}"
        match = _SEGMENT.fullmatch(segment)
        if not match:
            raise ValueError(f"{where}: expected keys*count, for example w+look(4,0)*20")
        if int(match["count"]) < 1:
            raise ValueError(f"{where}: the count must be at least 1")
        if len(actions) + int(match["count"]) > MAX_STEPS:
            raise ValueError(f"{where}: a script has at most {MAX_STEPS} steps; write a shorter one")
        actions += [_parse_action(match["what"], space, where)] * int(match["count"])
    return actions


def _parse_action(what, space, where):
    keys, look = set(), (0.0, 0.0)
    for part in what.split("+"):
        part = part.strip()
        turn = _LOOK.fullmatch(part)
        if turn:
            look = (_number(turn["yaw"], where), _number(turn["pitch"], where))
        elif part in space.keys:
            keys.add(part)
        elif part != "idle":
            known = [*space.keys, *["look(yaw,pitch)"] * bool(space.look_axes)]
            raise ValueError(f"{where}: unknown key {part!r}; " + (
                f"there are {', '.join(known)} and idle" if known
                else "this world has no keys, there is idle alone"))
    action = Action(frozenset(keys), look)
    if space.fit(action) != action:
        raise ValueError(f"{where}: look{look} is beyond this world: at most {space.look_limit:g} degrees a "
                         f"frame, {('no look', 'yaw only', 'yaw and pitch')[space.look_axes]}")
    return action


def _number(text, where):
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: {text!r} is not a number of degrees") from None
