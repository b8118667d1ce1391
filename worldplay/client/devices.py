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
    inputs  what triggers it: pygame key codes, or ("button", number)
    label   what stands on the key;  says  what it does
    """
    name: str
    inputs: tuple
    label: str
    says: str


def _key(name, code, says=""):
    return Binding(name, (code,), name.upper() if len(name) == 1 else name.capitalize(), says)


_USUAL = {"w": "forward", "s": "back", "a": "step left", "d": "step right"}

WORLD_BINDINGS = (
    *(_key(letter, getattr(pygame, f"K_{letter}"), _USUAL.get(letter, ""))
      for letter in "wasdbcefghijklmnopqrtuvxyz"),
    *(_key(digit, getattr(pygame, f"K_{digit}")) for digit in "0123456789"),
    _key("up", pygame.K_UP, "forward"), _key("down", pygame.K_DOWN, "back"),
    _key("left", pygame.K_LEFT, "left"), _key("right", pygame.K_RIGHT, "right"),
    _key("space", pygame.K_SPACE, "jump"), _key("tab", pygame.K_TAB), _key("enter", pygame.K_RETURN),
    Binding("shift", (pygame.K_LSHIFT, pygame.K_RSHIFT), "Shift", ""),
    Binding("ctrl", (pygame.K_LCTRL, pygame.K_RCTRL), "Ctrl", ""),
    Binding("alt", (pygame.K_LALT, pygame.K_RALT), "Alt", ""),
    Binding("mouse_left", (("button", 1),), "Left click", "fire"),
    Binding("mouse_middle", (("button", 2),), "Middle click", ""),
    Binding("mouse_right", (("button", 3),), "Right click", ""),
)

COMMANDS = (
    Binding("escape", (pygame.K_ESCAPE,), "Esc", "pause and free the mouse; again: quit"),
    Binding("pause", (pygame.K_p,), "P", "pause"),
    Binding("single_step", (pygame.K_PERIOD,), ".", "one frame, then pause"),
    Binding("reset", (pygame.K_r,), "R", "start again"),
    Binding("next_scene", (pygame.K_TAB,), "Tab", "next scene"),
    Binding("help", (pygame.K_F1,), "F1", "this help"),
    Binding("prompt", (pygame.K_F2,), "F2", "change the text"),  # no world has a function key: all have it
    Binding("hud", (pygame.K_F3,), "F3", "frame rate and delays"),
    Binding("record", (pygame.K_F9,), "F9", "record a clip"),
    Binding("scaling", (pygame.K_F10,), "F10", "smooth or whole-step scaling"),
    Binding("fullscreen", (pygame.K_F11,), "F11", "fullscreen"),
    Binding("slower_mouse", (pygame.K_MINUS, pygame.K_KP_MINUS), "-", "slower mouse"),
    Binding("faster_mouse", (pygame.K_EQUALS, pygame.K_KP_PLUS), "+", "faster mouse"),
)

BINDINGS = WORLD_BINDINGS + COMMANDS

_WORLD_KEY = {code: binding.name for binding in WORLD_BINDINGS for code in binding.inputs}
_COMMAND = {code: binding.name for binding in COMMANDS for code in binding.inputs}


def command_of(event, space=None):
    """The client command an event asks for, or None; a key the world itself uses is the world's."""
    if event.type != pygame.KEYDOWN or (space and _WORLD_KEY.get(event.key) in space.keys):
        return None
    return _COMMAND.get(event.key)


def help_rows(space, *, reads_text=False):
    """(world rows, client rows): lists of (label, what it does) of the bindings that work in a world."""
    world = [(binding.label, binding.says or "a key of this world") for binding in WORLD_BINDINGS
             if binding.name in space.keys]
    if space.look_axes:
        world.append(("Mouse", "turn" if space.look_axes == 1 else "look around"))
    taken = {code for code, name in _WORLD_KEY.items() if name in space.keys}
    return world, [(binding.label, binding.says) for binding in COMMANDS
                   if not taken & set(binding.inputs) and (reads_text or binding.name != "prompt")]


class KeyboardMouse:
    """What the player's hands do, for one world: `feed` takes pygame's events, `poll` gives the next Action.

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
            self._press(_WORLD_KEY.get(event.key), event.type == pygame.KEYDOWN, now)
        elif event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP):
            self._press(_WORLD_KEY.get(("button", event.button)), event.type == pygame.MOUSEBUTTONDOWN, now)
        elif event.type == pygame.MOUSEMOTION:
            self._motion += event.rel
            self._mark(now)

    def poll(self):
        """The Action of the next frame: keys held or tapped since the last poll, motion summed."""
        look = self._turn(self._motion * self.degrees_per_count)
        action = self.space.fit(Action(frozenset(self._held | self._tapped), tuple(look)))
        self._motion, self._tapped = np.zeros(2), set()
        self.input_time, self._oldest = self._oldest, None
        return action

    def release_all(self):
        """Every key is up, and neither tap nor motion is left over."""
        self._held = set()
        self.forget()

    def forget(self):
        """Drop taps and motion that no poll took; keys that are down stay down."""
        self._tapped, self._motion, self._carry, self._oldest = set(), np.zeros(2), np.zeros(2), None

    def _press(self, name, is_down, now):
        if name not in self.space.keys:
            return
        if is_down:
            self._held.add(name)
            self._tapped.add(name)
        else:
            self._held.discard(name)
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
