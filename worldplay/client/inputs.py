"""Names of inputs: a key by its place, a mouse button, a gamepad's button or one direction of a stick.

An input is a hashable value. A key is its scancode, an int (pygame.KSCAN_*: a place on the keyboard, whatever
the layout prints there); a mouse button is ("button", number); what a gamepad has is ("pad", name), by SDL's
names, with `-` or `+` after an axis.
"""
import re

import pygame

_BUTTONS = {getattr(pygame, f"CONTROLLER_BUTTON_{sdl}"): name for sdl, name in (
    ("A", "a"), ("B", "b"), ("X", "x"), ("Y", "y"), ("BACK", "back"), ("GUIDE", "guide"), ("START", "start"),
    ("LEFTSTICK", "leftstick"), ("RIGHTSTICK", "rightstick"), ("LEFTSHOULDER", "leftshoulder"),
    ("RIGHTSHOULDER", "rightshoulder"), ("DPAD_UP", "dpup"), ("DPAD_DOWN", "dpdown"), ("DPAD_LEFT", "dpleft"),
    ("DPAD_RIGHT", "dpright"))}
AXES = {pygame.CONTROLLER_AXIS_LEFTX: "leftx", pygame.CONTROLLER_AXIS_LEFTY: "lefty",
        pygame.CONTROLLER_AXIS_RIGHTX: "rightx", pygame.CONTROLLER_AXIS_RIGHTY: "righty",
        pygame.CONTROLLER_AXIS_TRIGGERLEFT: "lefttrigger",
        pygame.CONTROLLER_AXIS_TRIGGERRIGHT: "righttrigger"}
_PAD_NAMES = {*_BUTTONS.values(), *(f"{axis}{sign}" for axis in AXES.values() for sign in "-+")}

# {scancode: name}; of several names for one the shortest, then the first
_KEY_NAMES = {getattr(pygame, f"KSCAN_{name}"): name for name in sorted(
    (name.removeprefix("KSCAN_") for name in dir(pygame) if name.startswith("KSCAN_")),
    key=lambda name: (-len(name), name))}
_SCANCODES = {name: code for code, name in _KEY_NAMES.items()}

_KEY_LABELS = {"ESCAPE": "Esc", "RETURN": "Enter", "PERIOD": ".", "COMMA": ",", "SLASH": "/", "MINUS": "-",
               "EQUALS": "+", "LSHIFT": "Shift", "LCTRL": "Ctrl", "LALT": "Alt", "RSHIFT": "right Shift",
               "RCTRL": "right Ctrl", "RALT": "right Alt", "SEMICOLON": ";", "APOSTROPHE": "'", "GRAVE": "`",
               "LEFTBRACKET": "[", "RIGHTBRACKET": "]", "BACKSLASH": "\\", "PAGEUP": "Page up",
               "PAGEDOWN": "Page down", "CAPSLOCK": "Caps lock"}
_MOUSE_LABELS = {1: "Left click", 2: "Middle click", 3: "Right click"}
_PAD_LABELS = {"leftstick": "left stick click", "rightstick": "right stick click", "leftshoulder": "LB",
               "rightshoulder": "RB", "lefttrigger+": "LT", "righttrigger+": "RT", "back": "Back",
               "start": "Start", "guide": "Guide", "dpup": "D-pad up", "dpdown": "D-pad down",
               "dpleft": "D-pad left", "dpright": "D-pad right",
               **{f"{side}{axis}{sign}": f"{side} stick {way}" for side in ("left", "right")
                  for axis, sign, way in (("x", "-", "left"), ("x", "+", "right"), ("y", "-", "up"),
                                          ("y", "+", "down"))}}


def keys(*names):
    """Keys by their names in pygame.KSCAN_*."""
    return tuple(_SCANCODES[name] for name in names)


def mouse(number):
    return ("button", number)


def pad(name):
    assert name in _PAD_NAMES, name
    return ("pad", name)


def is_pad(code):
    return isinstance(code, tuple) and code[0] == "pad"


def text_of(code):
    """An input as settings.json has it: "key:W", "mouse:1", "pad:lefty-"; `named` reads it."""
    if isinstance(code, int):
        return f"key:{_KEY_NAMES.get(code, f'#{code}')}"
    kind, name = code
    return f"pad:{name}" if kind == "pad" else f"mouse:{name}"


def named(text):
    """The input of a text that `text_of` made; ValueError where it is none."""
    kind, _, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind == "key" and name in _SCANCODES:
        return _SCANCODES[name]
    if kind == "key" and re.fullmatch("#[0-9]{1,3}", name) and int(name[1:]) < 512:
        return int(name[1:])
    if kind == "mouse" and re.fullmatch("[1-9][0-9]?", name):
        return mouse(int(name))
    if kind == "pad" and name in _PAD_NAMES:
        return pad(name)
    raise ValueError(f"input {text!r:.40}: expected for example key:W, mouse:1 or pad:a")


def label_of(code, labels):
    """What an input is called on the screen; labels: {scancode: what the key prints}."""
    if isinstance(code, int):
        name = _KEY_NAMES.get(code, f"key {code}")
        if name.startswith("KP_"):
            return f"keypad {name[3:].lower()}"
        return labels.get(code) or _KEY_LABELS.get(name) or (
            name if len(name) == 1 or name[1:].isdigit() else name.capitalize())
    kind, name = code
    if kind == "pad":
        return _PAD_LABELS.get(name, name.upper())
    return _MOUSE_LABELS.get(name, f"Mouse button {name}")


def pressed(event):
    """(input, 1.0 down or 0.0 up) of a key's or a button's event; (None, 0.0) of any other."""
    if event.type in (pygame.KEYDOWN, pygame.KEYUP):
        return event.scancode, float(event.type == pygame.KEYDOWN)
    if event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
        return mouse(event.button), float(event.type == pygame.MOUSEBUTTONDOWN)
    if event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP) and event.button in _BUTTONS:
        return pad(_BUTTONS[event.button]), float(event.type == pygame.CONTROLLERBUTTONDOWN)
    return None, 0.0
