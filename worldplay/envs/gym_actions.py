"""What keys and look mean to a Gymnasium environment: written by the user, or drawn from its action space."""
import re
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from worldplay.action import KEYS, ActionSpace

LOOK = ("look_yaw", "look_pitch")
IDLE = "idle"
_LOOK_LIMIT = 12.0  # degrees a frame, as in the project's own environments
_ROUNDING = 1e-5  # of a limit: by so much its six digits in a mapping may be beyond it
# names of numbered actions, as MiniGrid's `actions` and the Atari games' `get_action_meanings` say them
_NAMED = {"noop": IDLE, "left": "a", "right": "d", "up": "w", "forward": "w", "down": "s", "backward": "s",
          "fire": "space", "pickup": "e", "pick_up": "e", "drop": "q", "toggle": "space", "done": "enter",
          "jump": "space", "turn_left": "a", "turn_right": "d", "move_forward": "w", "move_back": "s",
          "upright": "w+d", "upleft": "w+a", "downright": "s+d", "downleft": "s+a", "upfire": "w+space",
          "rightfire": "d+space", "leftfire": "a+space", "downfire": "s+space", "uprightfire": "w+d+space",
          "upleftfire": "w+a+space", "downrightfire": "s+d+space", "downleftfire": "s+a+space"}
# Gymnasium's own, whose documentation says what their actions are
_KNOWN = {"CarRacing": "a=0:-1, d=0:1, w=1:1, s=2:0.8", "CartPole": "a=0, d=1, idle=0",
          "MountainCar": "a=0, idle=1, d=2", "MountainCarContinuous": "a=0:-1, d=0:1",
          "Acrobot": "a=0, idle=1, d=2", "Pendulum": "a=0:2, d=0:-2",
          "LunarLander": "idle=0, a=1, w=2, d=3", "FrozenLake": "a=0, s=1, d=2, w=3, idle=0",
          "CliffWalking": "w=0, d=1, s=2, a=3, idle=0"}
_PAIRS = (("a", "d"), ("s", "w"), ("q", "e"), ("down", "up"), ("left", "right"), ("z", "x"))
_SINGLE = (*"1234567890", *"rtyuiopfghjklcvbnm")

_ENTRY = re.compile(r"(?P<keys>[a-z0-9_+]+)\s*=\s*(?:(?P<part>\d+)\s*(?P<how>[:*])\s*)?"
                    r"(?P<value>[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")


@dataclass(frozen=True)
class Entry:
    """One entry of a mapping: `keys=value`, `keys=part:value`, or `look_yaw=part*value`.

    keys   names of KEYS that must be down together; empty for idle
    look   0 for yaw, 1 for pitch, None for keys
    part   number of the component that is set; None where the action is one number
    value  of it; with look what a degree gives
    """
    keys: frozenset
    look: int | None
    part: int | None
    value: float

    def __str__(self):
        name = LOOK[self.look] if self.look is not None else "+".join(sorted(self.keys)) or IDLE
        where = "" if self.part is None else f"{self.part}{':' if self.look is None else '*'}"
        return f"{name}={where}{self.value:g}"


class GymActions:
    """From an Action of the player to an action of a Gymnasium action space.

    text          the mapping, as `parse` reads it
    action_space  ActionSpace of the player
    """

    def __init__(self, space, entries):
        """space: a Discrete, Box, MultiDiscrete or MultiBinary of one dimension; entries: list of Entry.

            Raises ValueError for an entry that the space has no room for.
        """
        self._space, self._entries = space, entries
        self._size = None if isinstance(space, spaces.Discrete) else _size(space)
        for entry in entries:
            self._check(entry)
        if self._size is None and not any(not entry.keys for entry in entries):
            raise ValueError(f"a numbered action is needed for a frame without keys: add {IDLE}=NUMBER")
        keys = [key for key in KEYS if any(key in entry.keys for entry in entries)]
        axes = max((entry.look + 1 for entry in entries if entry.look is not None), default=0)
        self.action_space = ActionSpace(tuple(keys), _LOOK_LIMIT if axes else 0.0, axes)
        self.text = ", ".join(map(str, entries))

    def __call__(self, action):
        """The environment's action: an int of a Discrete, else an array of its dtype.

        Of numbered actions that one whose keys are all down, of several that with the most keys.
        """
        held = [entry for entry in self._entries if entry.look is None and entry.keys <= action.keys]
        if self._size is None:
            return int(max(held, key=lambda entry: len(entry.keys)).value)
        vector, pressed = np.zeros(self._size), set()
        for entry in sorted(held, key=lambda entry: len(entry.keys)):
            # two keys of an axis hold each other; of numbers, which are no amounts, the later one counts
            holds = isinstance(self._space, spaces.Box) and entry.part in pressed
            if holds and vector[entry.part] not in (0, entry.value):
                vector[entry.part] += entry.value
            else:
                vector[entry.part] = entry.value
            pressed |= {entry.part} if entry.keys else set()
        for entry in self._entries:
            if entry.look is not None:
                vector[entry.part] += action.look[entry.look] * entry.value
        if isinstance(self._space, spaces.Box):
            vector = np.clip(vector, self._space.low, self._space.high)
        return vector.astype(self._space.dtype)

    def _check(self, entry):
        if self._size is None:
            first, last = int(self._space.start), int(self._space.start + self._space.n) - 1
            if entry.part is not None or entry.look is not None:
                raise ValueError(f"{entry}: actions are numbers here, {first} to {last}: KEY=NUMBER")
            if entry.value != int(entry.value) or not first <= entry.value <= last:
                raise ValueError(f"{entry}: actions are {first} to {last} here")
            return
        if entry.part is None or not 0 <= entry.part < self._size:
            raise ValueError(f"{entry}: an action has components 0 to {self._size - 1} here: KEY=COMPONENT:"
                             "VALUE or look_yaw=COMPONENT*VALUE_OF_A_DEGREE")
        low, high = _range(self._space, entry.part)
        spare = _ROUNDING * max(abs(low), abs(high))  # an action is clipped to the limits anyway
        if entry.look is None and not low - spare <= entry.value <= high + spare:
            raise ValueError(f"{entry}: component {entry.part} goes from {low:g} to {high:g}")


def gym_actions(space, text="", *, name="", meanings=()):
    """The GymActions of an environment.

    space     its action space
    text      the mapping, as "a=0:-1, d=0:1, w=1:1, look_yaw=2*0.05"; empty draws one from the space
    name      its id, by which Gymnasium's own are known, as "CarRacing-v3"
    meanings  names of its numbered actions, in order, where it says them

        Raises ValueError for a mapping that cannot be read or does not fit, and for a space without one.
    """
    if not text:
        text = _KNOWN.get(re.sub(r"-v\d+$", "", re.split("[/:]", name)[-1])) or _drawn(space, meanings)
    return GymActions(space, parse(text))


def parse(text):
    """List of Entry of a mapping, entries separated by commas; ValueError naming what cannot be read."""
    entries = []
    for part in text.split(","):
        match = _ENTRY.fullmatch(part.strip().lower())
        if not match:
            raise ValueError(f"{part.strip()!r}: expected KEY=NUMBER, KEY=COMPONENT:VALUE or look_yaw="
                             "COMPONENT*VALUE, for example \"a=0:-1, d=0:1\"")
        names = match["keys"]
        look = LOOK.index(names) if names in LOOK else None
        keys = frozenset() if names == IDLE or look is not None else frozenset(names.split("+"))
        unknown = sorted(keys - set(KEYS))
        if unknown:
            raise ValueError(f"{part.strip()!r}: no key {unknown[0]!r}; there are {', '.join(KEYS)}")
        if (look is not None) != (match["how"] == "*"):
            raise ValueError(f"{part.strip()!r}: a look is look_yaw=COMPONENT*VALUE, a key "
                             "KEY=COMPONENT:VALUE")
        entries.append(Entry(keys, look, match["part"] and int(match["part"]), float(match["value"])))
    return entries


def _drawn(space, meanings):
    """The text of a mapping for a space of which nothing else is known."""
    if isinstance(space, spaces.Discrete):
        numbers = range(int(space.start), int(space.start + space.n))
        named = [_NAMED.get(str(meaning).lower()) for meaning in meanings]
        if len(named) == len(numbers) and all(named) and len(set(named)) == len(named):
            entries = [f"{keys}={number}" for keys, number in zip(named, numbers)]
        else:
            entries = [f"{key}={number}" for key, number in zip(_SINGLE, numbers)]
        return ", ".join(entries if any(entry.startswith(IDLE) for entry in entries)
                         else [*entries, f"{IDLE}={_resting(numbers, meanings)}"])
    pairs, single, entries = iter(_PAIRS), iter(_SINGLE), []
    for part in range(_size(space)):
        low, high = _range(space, part)
        if isinstance(space, spaces.Box) and low < 0:
            down, up = next(pairs, (None, None))
            entries += [f"{down}={part}:{low:g}", f"{up}={part}:{high:g}"] * (up is not None)
        else:
            values = [high] if isinstance(space, spaces.Box) else range(1, int(high) + 1)
            entries += [f"{key}={part}:{value:g}" for value, key in zip(values, single)]
    return ", ".join(entries)


def _resting(numbers, meanings):
    """The numbered action of a frame without keys where none is called so: a `done`, else the first."""
    names = [str(meaning).lower() for meaning in meanings]
    return numbers[names.index("done")] if "done" in names else numbers[0]


def _size(space):
    if not isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)) or len(space.shape) != 1:
        raise ValueError(f"its action space {space} is none that keys can be given to: expected Discrete, "
                         "MultiDiscrete, MultiBinary or a Box of one dimension; wrap the environment")
    return space.shape[0]


def _range(space, part):
    if isinstance(space, spaces.Box):
        low, high = float(space.low[part]), float(space.high[part])
        return (low if np.isfinite(low) else -1.0), (high if np.isfinite(high) else 1.0)
    return (0, int(space.nvec[part]) - 1) if isinstance(space, spaces.MultiDiscrete) else (0, 1)
