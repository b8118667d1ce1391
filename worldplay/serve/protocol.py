"""What page and server say to each other: the page's messages, checked, and the header before a picture."""
import json
import math
import struct
from dataclasses import dataclass, fields

MAX_BYTES = 32_768  # of a message: a text of 4000 characters, each written as \uXXXX, and some room
MAX_TEXT = 4000     # characters of a world's text
PAD_BUTTONS = ("a", "b", "x", "y", "leftshoulder", "rightshoulder", "lefttrigger+", "righttrigger+", "back",
               "start", "leftstick", "rightstick", "dpup", "dpdown", "dpleft", "dpright", "guide")
COMMANDS = ("resume", "escape", "pause", "single_step", "reset", "next_scene", "record", "keep", "picture",
            "quick_save", "quick_load", "slower_mouse", "faster_mouse")
MAX_COUNTS = 20_000  # of the mouse in one message

# picture's number, frame's number since the reset, number of the oldest input that is new in it (0: none),
# when that was, in milliseconds of the page's own clock
_HEADER = struct.Struct("<IIId")


@dataclass(frozen=True)
class Input:
    """n counts the inputs of a page, t is performance.now() of the event, in milliseconds."""
    n: int
    t: float


@dataclass(frozen=True)
class Key(Input):
    """A key went down or up; code is KeyboardEvent.code."""
    code: str
    down: bool


@dataclass(frozen=True)
class Button(Input):
    """A button of the mouse; button is MouseEvent.button, 0 to 2."""
    button: int
    down: bool


@dataclass(frozen=True)
class Move(Input):
    """The mouse moved so many counts, to the right and down."""
    x: float
    y: float


@dataclass(frozen=True)
class Pad(Input):
    """A button or trigger of a gamepad, one of PAD_BUTTONS."""
    name: str
    strength: float


@dataclass(frozen=True)
class Stick(Input):
    """A stick of a gamepad, "left" or "right", each axis -1 to 1."""
    side: str
    x: float
    y: float


@dataclass(frozen=True)
class Away:
    """The page lost the focus or is hidden, or is back."""
    away: bool


@dataclass(frozen=True)
class Do:
    """A button of the page was pressed: one of COMMANDS."""
    what: str


@dataclass(frozen=True)
class Scene:
    """Start again from a scene."""
    name: str


@dataclass(frozen=True)
class Text:
    """The world is to show another text."""
    text: str


@dataclass(frozen=True)
class Take:
    """A watcher wants to play."""


@dataclass(frozen=True)
class Hello:
    """The page answers the server's hello at once: so long is the way there and back."""


@dataclass(frozen=True)
class Ack:
    """A picture was drawn."""
    picture: int


@dataclass(frozen=True)
class Shown:
    """Milliseconds from an input to the frame on the page's screen that it changed."""
    ms: float


def _number(low, high):
    def check(value):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) \
            and low <= value <= high
    return check


def _count(high):
    return lambda value: type(value) is int and 0 <= value <= high


def _text(longest):
    return lambda value: isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()


def _one_of(*values):
    return lambda value: isinstance(value, str) and value in values


def _is_flag(value):
    return isinstance(value, bool)


_INPUT = {"n": _count(2**32 - 1), "t": _number(0, 1e12)}
_COUNTS, _UNIT = _number(-MAX_COUNTS, MAX_COUNTS), _number(-1, 1)
_KINDS = {
    "key": (Key, {**_INPUT, "code": _text(30), "down": _is_flag}),
    "button": (Button, {**_INPUT, "button": _count(2), "down": _is_flag}),
    "move": (Move, {**_INPUT, "x": _COUNTS, "y": _COUNTS}),
    "pad": (Pad, {**_INPUT, "name": _one_of(*PAD_BUTTONS), "strength": _number(0, 1)}),
    "stick": (Stick, {**_INPUT, "side": _one_of("left", "right"), "x": _UNIT, "y": _UNIT}),
    "away": (Away, {"away": _is_flag}),
    "do": (Do, {"what": _one_of(*COMMANDS)}),
    "scene": (Scene, {"name": _text(200)}),
    "text": (Text, {"text": _text(MAX_TEXT)}),
    "take": (Take, {}),
    "hello": (Hello, {}),
    "ack": (Ack, {"picture": _count(2**32 - 1)}),
    "shown": (Shown, {"ms": _number(0, 600_000)}),
}
assert all([*checks] == [field.name for field in fields(kind)] for kind, checks in _KINDS.values())


def parse(text):
    """The message in a text that a page sent; ValueError in one line that says what is wrong with it."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("a message that is no JSON") from None
    name = said.pop("k", None) if isinstance(said, dict) else None
    if not isinstance(name, str) or name not in _KINDS:
        raise ValueError("a message of an unknown kind")
    kind, checks = _KINDS[name]
    if said.keys() != checks.keys():
        raise ValueError(f"a message {name!r} with other fields than {', '.join(checks) or 'none'}")
    for field, check in checks.items():
        try:
            fits = check(said[field])
        except OverflowError:  # of a whole number beyond all floats
            fits = False
        if not fits:
            raise ValueError(f"a message {name!r} whose {field!r} cannot be")
    return kind(**said)


def header(picture, frame, answers):
    """Bytes before a picture's JPEG; answers: the Input that it answers, or None."""
    return _HEADER.pack(picture % 2**32, frame % 2**32, answers.n if answers else 0,
                        answers.t if answers else 0.0)


def read_header(data):
    """((picture, frame, input, its time), JPEG) of what `header` begins."""
    return _HEADER.unpack_from(data), data[_HEADER.size:]
