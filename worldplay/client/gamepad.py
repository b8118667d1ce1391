"""Gamepads, by SDL's mapping: plugged in and out while playing, sticks with a dead zone and a curve."""
import logging

import pygame
from pygame._sdl2 import controller

from worldplay.client import inputs

log = logging.getLogger(__name__)

FULL = 32767  # of an axis
CURVE = 1.7  # the power that a stick's way is raised to: fine near the middle, quick at the edge
EVENTS = (pygame.CONTROLLERAXISMOTION, pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP,
          pygame.CONTROLLERDEVICEADDED, pygame.CONTROLLERDEVICEREMOVED)


class Gamepads:
    """All that are plugged in act as one; nothing here makes them rumble.

    dead_zone  share of a stick's way that does nothing: worn sticks do not come back to their middle
    """

    def __init__(self, *, dead_zone=0.15):
        self.dead_zone = dead_zone
        self._open, self._axes, self._down = {}, {}, {}

    def start(self):
        """Listen for gamepads; one that is plugged in already comes as an event. Play goes on without any."""
        try:
            controller.init()
        except pygame.error as error:
            log.debug("no gamepads: %s", error)

    def feed(self, event):
        """[(input, strength 0 to 1)] that one of EVENTS changes; a strength of 0 lets go."""
        if event.type == pygame.CONTROLLERDEVICEADDED:
            self._add(event.device_index)
            return []
        if event.type == pygame.CONTROLLERDEVICEREMOVED:
            return self._remove(event.instance_id)
        pad = event.instance_id
        if event.type == pygame.CONTROLLERAXISMOTION:
            changes = self._move(pad, event.axis, event.value)
        else:
            code, strength = inputs.pressed(event)
            changes = [] if code is None else [(code, strength)]
        down = self._down.setdefault(pad, set())
        for code, strength in changes:
            down.add(code) if strength else down.discard(code)
        return changes

    @property
    def names(self):
        """What the gamepads that are plugged in are called."""
        return [device.name for device in self._open.values()]

    def _add(self, index):
        try:
            device = controller.Controller(index)
            self._open[device.as_joystick().get_instance_id()] = device  # kept: else SDL closes it
            log.info("gamepad: %s", device.name)
        except pygame.error as error:  # it was plugged out again meanwhile
            log.debug("a gamepad that cannot be opened: %s", error)

    def _remove(self, pad):
        device = self._open.pop(pad, None)
        if device:
            log.info("gamepad unplugged: %s", device.name)
            device.quit()
        self._axes.pop(pad, None)
        return [(code, 0.0) for code in self._down.pop(pad, ())]

    def _move(self, pad, axis, value):
        if axis not in inputs.AXES:
            return []
        axes, name = self._axes.setdefault(pad, {}), inputs.AXES[axis]
        axes[name] = max(-1.0, value / FULL)
        if name.endswith("trigger"):
            return [(inputs.pad(f"{name}+"), max(0.0, axes[name]))]
        stick = name[:-1]
        moved = bent(axes.get(f"{stick}x", 0.0), axes.get(f"{stick}y", 0.0), self.dead_zone)
        return [(inputs.pad(f"{stick}{letter}{sign}"), max(0.0, way if sign == "+" else -way))
                for letter, way in zip("xy", moved) for sign in "-+"]


def bent(x, y, dead_zone):
    """A stick's place, each -1 to 1, as (x, y) of what it does: 0 within the dead zone, 1 at the edge.

    The dead zone is a disc and the curve bends the length alone, so a slow circle stays a circle.
    """
    length = (x * x + y * y) ** 0.5
    if length <= dead_zone:
        return 0.0, 0.0
    share = min(1.0, (length - dead_zone) / (0.97 - dead_zone)) ** CURVE  # few sticks reach their whole way
    return x / length * share, y / length * share
