"""Keyboard, mouse and gamepads: events become the Action of the next frame."""
import time

import numpy as np
import pygame

from worldplay.action import Action
from worldplay.client import gamepad, inputs
from worldplay.client.bindings import Bindings

# What exceeds the world's limit in one frame goes on turning for at most this many further frames: a flick of
# the hand is not lost, and the view never lags the hand by more than 2 frames. Turning back drops the rest.
CARRIED_FRAMES = 2
MAX_TURN_SECONDS = 0.25  # that a key or a stick turns in one frame, however long that took
PRESSED_AT, RELEASED_AT = 0.4, 0.3  # strengths at which a stick becomes a key, and stops being one
_TURNS = {"look_left": (-1.0, 0.0), "look_right": (1.0, 0.0), "look_up": (0.0, -1.0), "look_down": (0.0, 1.0)}


class KeyboardMouse:
    """The player's input for one world, gamepads too: `feed` takes pygame's events, `poll` gives the Action.

    Keys are known by their scancode, so a change of the layout while one is down changes nothing. A name with
    several inputs, such as "shift", is down as long as one of them is.

    space              ActionSpace of the world; None while it opens, when keys are only remembered as down
    bindings           worldplay.client.bindings.Bindings
    degrees_per_count  how far one count of the mouse turns; may be changed while playing
    turn_speed         degrees a second of a key that turns, and of a stick at its edge
    is_inverted        whether pushing up looks down
    toggled            names of keys that stay down until they are pressed again
    pads               worldplay.client.gamepad.Gamepads
    input_time         after `poll`: when the oldest input that is new in its Action was fed, seconds; or None
    """

    def __init__(self, space, degrees_per_count, *, bindings=None, clock=time.perf_counter):
        self.space, self.degrees_per_count = space, degrees_per_count
        self.bindings, self.pads = bindings or Bindings(), gamepad.Gamepads()
        self.turn_speed, self.is_inverted, self.toggled = 120.0, False, frozenset()
        self.input_time, self._clock = None, clock
        self.release_all()

    def take(self, settings):
        """Use what the player has chosen, a worldplay.client.settings.Settings."""
        self.degrees_per_count, self.turn_speed = settings.degrees_per_count, settings.turn_speed
        self.is_inverted, self.toggled = settings.is_inverted, frozenset(settings.toggled)
        self.pads.dead_zone = settings.dead_zone

    def feed(self, event, now=None):
        """Take one event, read off the queue at `now` (time.perf_counter() seconds); returns the inputs that
        went down by it.
        """
        now = self._clock() if now is None else now
        before = set(self._held)
        if event.type == pygame.MOUSEMOTION:
            self.move(event.rel, now)
        elif event.type in gamepad.EVENTS:
            for code, strength in self.pads.feed(event):
                self.press(code, strength, now)
        else:
            code, strength = inputs.pressed(event)
            if code is not None:
                self.press(code, strength, now)
        return list(self._held - before)

    def poll(self, now=None):
        """The Action of the next frame: keys held or tapped since the last poll, motion and turns summed."""
        self._turn_until(self._clock() if now is None else now)
        degrees = self._motion * self.degrees_per_count + self._turned
        look = self._limit(degrees * (1.0, -1.0 if self.is_inverted else 1.0))
        names = self.bindings.played(self.space)
        down = self._held | self._tapped
        keys = ({names.get(code) for code in down} - self.toggled) | self._latched
        action = self.space.fit(Action(frozenset(keys), tuple(look)))
        self._motion, self._turned, self._tapped = np.zeros(2), np.zeros(2), set()
        self.input_time, self._oldest = self._oldest, None
        return action

    def release_all(self):
        """Every key is up, and neither tap nor motion is left over."""
        self._held, self._strengths = set(), {}  # inputs that are down; {input: 0 to 1} of those that turn
        self.forget()

    def forget(self):
        """Drop taps and motion that no poll took, and let go of toggled keys; keys held down stay down."""
        self._latched = set()  # names of toggled keys that are down
        self._tapped, self._motion, self._carry, self._oldest = set(), np.zeros(2), np.zeros(2), None
        self._turned, self._since = np.zeros(2), None

    def move(self, counts, now):
        """The mouse moved so many counts: (to the right, down)."""
        self._motion += counts
        self._mark(now)

    def press(self, code, strength, now):
        """An input has a new strength: 0 or 1 of a key, anything between of a stick; returns whether it went
        down by it.
        """
        self._turn_until(now)
        self._strengths[code] = strength
        if not strength:
            del self._strengths[code]
        was_down = code in self._held
        is_down = strength >= (RELEASED_AT if was_down else PRESSED_AT)
        if is_down and not was_down:
            self._held.add(code)
            self._tapped.add(code)
        elif not is_down:
            self._held.discard(code)
        name = self.space and self.bindings.played(self.space).get(code)
        if name in self.toggled and is_down and not was_down:
            self._latched ^= {name}
        if name and (name in _TURNS or is_down != was_down):
            self._mark(now)
        return is_down and not was_down

    def lets_go(self, event, code):
        """Whether the motion of an axis lets go of an input; the event is to be fed as well."""
        return any(changed == code and strength < RELEASED_AT for changed, strength in self.pads.feed(event))

    def _mark(self, now):
        self._oldest = now if self._oldest is None else self._oldest

    def _turn_until(self, now):
        """Add up the turn by what has been held since the last time."""
        if self.space and self.space.look_axes and self._strengths:
            names = self.bindings.played(self.space)
            rates = [np.multiply(_TURNS[names[code]], strength) for code, strength in self._strengths.items()
                     if names.get(code) in _TURNS]
            if rates and self._since is not None:
                seconds = min(max(now - self._since, 0.0), MAX_TURN_SECONDS)
                self._turned += np.clip(sum(rates), -1.0, 1.0) * self.turn_speed * seconds
        self._since = now

    def _limit(self, degrees):
        """Degrees [2] of this frame; what exceeds the limit is carried on, see CARRIED_FRAMES."""
        limit = self.space.look_limit
        carry = np.where(degrees * self._carry < 0, 0.0, self._carry)
        wanted = degrees + carry
        look = np.clip(wanted, -limit, limit)
        self._carry = np.clip(wanted - look, -CARRIED_FRAMES * limit, CARRIED_FRAMES * limit)
        return look
