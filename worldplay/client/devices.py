"""Keyboard and mouse: events become the Action of the next frame, and the commands of the client."""
import time
from dataclasses import dataclass

import numpy as np
import pygame

from worldplay.action import Action

# What exceeds the world's limit in one frame goes on turning for at most this many further frames: a flick of
# the hand is not lost, and the view never lags the hand by more than 2 frames. Turning back drops the rest.
CARRIED_FRAMES = 2


@dataclass(frozen=True)
class Binding:
    """One line of the help screen.

    name    canonical key of worldplay.action, or the name of a client command
    inputs  what triggers it: scancodes (places on the keyboard, pygame.KSCAN_*), or ("button", number)
    label   what a US keyboard prints on the key;  says  what it does
    """
    name: str
    inputs: tuple
    label: str
    says: str


def _key(name, scancode_name, says=""):
    label = name.upper() if len(name) == 1 else name.capitalize()
    return Binding(name, (getattr(pygame, f"KSCAN_{scancode_name}"),), label, says)


_USUAL = {"w": "forward", "s": "back", "a": "step left", "d": "step right"}

WORLD_BINDINGS = (
    *(_key(letter, letter.upper(), _USUAL.get(letter, "")) for letter in "wasdbcefghijklmnopqrtuvxyz"),
    *(_key(digit, digit) for digit in "0123456789"),
    _key("up", "UP", "forward"), _key("down", "DOWN", "back"),
    _key("left", "LEFT", "left"), _key("right", "RIGHT", "right"),
    _key("space", "SPACE", "jump"), _key("tab", "TAB"), _key("enter", "RETURN"),
    Binding("shift", (pygame.KSCAN_LSHIFT, pygame.KSCAN_RSHIFT), "Shift", ""),
    Binding("ctrl", (pygame.KSCAN_LCTRL, pygame.KSCAN_RCTRL), "Ctrl", ""),
    Binding("alt", (pygame.KSCAN_LALT, pygame.KSCAN_RALT), "Alt", ""),
    Binding("mouse_left", (("button", 1),), "Left click", "fire"),
    Binding("mouse_middle", (("button", 2),), "Middle click", ""),
    Binding("mouse_right", (("button", 3),), "Right click", ""),
)

COMMANDS = (
    Binding("escape", (pygame.KSCAN_ESCAPE,), "Esc", "free the mouse; quit"),
    Binding("pause", (pygame.KSCAN_P,), "P", "pause"),
    Binding("single_step", (pygame.KSCAN_PERIOD,), ".", "one frame, then pause"),
    Binding("reset", (pygame.KSCAN_R,), "R", "start again"),
    Binding("next_scene", (pygame.KSCAN_TAB,), "Tab", "next scene"),
    Binding("rewind", (pygame.KSCAN_BACKSPACE,), "Backspace", "hold: go back in time"),
    Binding("quick_save", (pygame.KSCAN_F5,), "F5", "save this place"),
    Binding("quick_load", (pygame.KSCAN_F8,), "F8", "back to that place"),
    Binding("help", (pygame.KSCAN_F1,), "F1", "this help"),
    Binding("prompt", (pygame.KSCAN_F2,), "F2", "change the text"),
    Binding("hud", (pygame.KSCAN_F3,), "F3", "frame rate and delays"),
    Binding("record", (pygame.KSCAN_F9,), "F9", "record a clip"),
    Binding("scaling", (pygame.KSCAN_F10,), "F10", "smooth or whole scaling"),
    Binding("fullscreen", (pygame.KSCAN_F11,), "F11", "fullscreen"),
    Binding("slower_mouse", (pygame.KSCAN_MINUS, pygame.KSCAN_KP_MINUS), "-", "slower mouse"),
    Binding("faster_mouse", (pygame.KSCAN_EQUALS, pygame.KSCAN_KP_PLUS), "+", "faster mouse"),
)

BINDINGS = WORLD_BINDINGS + COMMANDS

_WORLD_KEY = {code: binding.name for binding in WORLD_BINDINGS for code in binding.inputs}
_COMMAND = {code: binding.name for binding in COMMANDS for code in binding.inputs}


def command_of(event, space=None):
    """The client command an event asks for, or None; a key the world itself uses is the world's."""
    if event.type != pygame.KEYDOWN or (space and _WORLD_KEY.get(event.scancode) in space.keys):
        return None
    return _COMMAND.get(event.scancode)


def label_of(binding, labels):
    """What the key of a binding prints; labels are those unlike the US layout: {scancode: label}."""
    return labels.get(binding.inputs[0], binding.label)


def commands_in(space, *, reads_text=False):
    """{name: Binding} of the client's commands in a world with ActionSpace `space`.

    A command whose key the world itself uses is left out. reads_text: whether the world takes prompts, which
    F2 changes.
    """
    taken = {code for code, name in _WORLD_KEY.items() if name in space.keys}
    return {binding.name: binding for binding in COMMANDS
            if not taken & set(binding.inputs) and (reads_text or binding.name != "prompt")}


def help_rows(space, labels, *, reads_text=False):
    """(world rows, client rows): lists of (label, what it does) of the bindings that work in a world."""
    world = [(label_of(binding, labels), binding.says or "a key of this world") for binding in WORLD_BINDINGS
             if binding.name in space.keys]
    if space.look_axes:
        world.append(("Mouse", "turn" if space.look_axes == 1 else "look around"))
    return world, [(label_of(binding, labels), binding.says)
                   for binding in commands_in(space, reads_text=reads_text).values()]


class KeyboardMouse:
    """The player's input for one world: `feed` takes pygame's events, `poll` gives the next Action.

    Keys are known by their scancode, so a change of the layout while one is down changes nothing. A name with
    several keys, such as "shift", is down as long as one of them is.

    space              ActionSpace of the world; None while it opens, when keys are only remembered as down
    degrees_per_count  how far one count of the mouse turns; may be changed while playing
    input_time         after `poll`: when the oldest input that is new in its Action was fed, seconds; or None
    """

    def __init__(self, space, degrees_per_count):
        self.space, self.degrees_per_count = space, degrees_per_count
        self.input_time = None
        self.release_all()

    def feed(self, event, now=None):
        """Take one event, read off the queue at `now` (time.perf_counter() seconds)."""
        now = time.perf_counter() if now is None else now
        if event.type in (pygame.KEYDOWN, pygame.KEYUP):
            self._press(event.scancode, event.type == pygame.KEYDOWN, now)
        elif event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
            self._press(("button", event.button), event.type == pygame.MOUSEBUTTONDOWN, now)
        elif event.type == pygame.MOUSEMOTION:
            self._motion += event.rel
            self._mark(now)

    def poll(self):
        """The Action of the next frame: keys held or tapped since the last poll, motion summed."""
        look = self._turn(self._motion * self.degrees_per_count)
        keys = frozenset(_WORLD_KEY[code] for code in self._held | self._tapped)
        action = self.space.fit(Action(keys, tuple(look)))
        self._motion, self._tapped = np.zeros(2), set()
        self.input_time, self._oldest = self._oldest, None
        return action

    def release_all(self):
        """Every key is up, and neither tap nor motion is left over."""
        self._held = set()  # of the inputs of WORLD_BINDINGS
        self.forget()

    def forget(self):
        """Drop taps and motion that no poll took; keys that are down stay down."""
        self._tapped, self._motion, self._carry, self._oldest = set(), np.zeros(2), np.zeros(2), None

    def _press(self, code, is_down, now):
        if code not in _WORLD_KEY:
            return
        if is_down:
            self._held.add(code)
            self._tapped.add(code)
        else:
            self._held.discard(code)
        if self.space and _WORLD_KEY[code] in self.space.keys:
            self._mark(now)

    def _mark(self, now):
        self._oldest = now if self._oldest is None else self._oldest

    def _turn(self, degrees):
        """Degrees [2] of this frame; what exceeds the limit is carried on, see CARRIED_FRAMES."""
        limit = self.space.look_limit
        carry = np.where(degrees * self._carry < 0, 0.0, self._carry)
        wanted = degrees + carry
        look = np.clip(wanted, -limit, limit)
        self._carry = np.clip(wanted - look, -CARRIED_FRAMES * limit, CARRIED_FRAMES * limit)
        return look
