"""Gamepads: sticks, triggers and buttons of SDL's virtual joystick through its queue, plugged in and out."""
import ctypes
import os

os.environ["SDL_VIDEODRIVER"] = "dummy"

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import SPACE
from worldplay.action import Action
from worldplay.client.devices import KeyboardMouse
from worldplay.client.gamepad import bent

GAME_CONTROLLER = 1  # SDL_JOYSTICK_TYPE_GAMECONTROLLER: axes and buttons in the order of SDL's mapping


class VirtualPad:
    """A gamepad that SDL itself makes up."""

    def __init__(self, sdl):
        self._sdl = sdl
        sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self._index = sdl.SDL_JoystickAttachVirtual(GAME_CONTROLLER, 6, 15, 0)
        assert self._index >= 0
        self._stick = ctypes.c_void_p(sdl.SDL_JoystickOpen(self._index))
        assert self._stick

    def axis(self, number, share):
        self._sdl.SDL_JoystickSetVirtualAxis(self._stick, number, ctypes.c_int16(round(32767 * share)))

    def button(self, number, is_down=True):
        self._sdl.SDL_JoystickSetVirtualButton(self._stick, number, ctypes.c_uint8(is_down))

    def unplug(self):
        self._sdl.SDL_JoystickClose(self._stick)
        self._sdl.SDL_JoystickDetachVirtual(self._index)


@pytest.fixture
def sdl():
    """The SDL that pygame has loaded."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split()[-1] for line in maps if "libSDL2-2" in line}
        library = ctypes.CDLL(paths.pop())
        library.SDL_JoystickAttachVirtual
    except (OSError, KeyError, AttributeError):
        pytest.skip("no SDL here whose virtual joystick can be reached")
    return library


@pytest.fixture
def device():
    pygame.display.init()
    device = KeyboardMouse(SPACE, 0.1)
    device.pads.start()
    pygame.event.get()
    yield device
    pygame.display.quit()


def take(device, now=0.0):
    """Feed what is in SDL's queue; the inputs that went down."""
    return [code for event in pygame.event.get() for code in device.feed(event, now)]


def test_a_stick_walks_and_turns_by_time_and_a_pulled_plug_lets_go_of_everything(device, sdl):
    pad = VirtualPad(sdl)
    take(device)
    assert len(device.pads.names) == 1
    pad.axis(1, -1.0)
    assert take(device) == [("pad", "lefty-")]
    assert device.poll(0.0).keys == {"w"} and device.poll(0.05).keys == {"w"}
    pad.axis(1, -0.1)
    take(device)
    assert device.poll(0.1).keys == set(), "within the dead zone"
    pad.axis(2, 1.0)
    take(device, 1.0)
    assert device.poll(1.05).look[0] == pytest.approx(120 * 0.05)
    pad.axis(2, 0.5)
    take(device, 1.05)
    assert 0 < device.poll(1.1).look[0] < 0.45 * 120 * 0.05, "the curve makes the middle fine"
    pad.button(0)
    pad.axis(5, 1.0)
    assert set(take(device, 1.2)) == {("pad", "a"), ("pad", "righttrigger+")}
    assert device.poll(1.2).keys == {"mouse_left"}
    pad.unplug()
    take(device, 1.3)
    assert device.pads.names == []
    device.poll(1.3)
    assert device.poll(1.4) == Action(), "nothing sticks"


def test_two_gamepads_act_as_one_and_one_plugged_in_again_works(device, sdl):
    first = VirtualPad(sdl)
    take(device)
    first.unplug()
    take(device)
    again, other = VirtualPad(sdl), VirtualPad(sdl)
    take(device)
    assert len(device.pads.names) == 2
    again.axis(0, 1.0)
    other.axis(1, 1.0)
    take(device)
    assert device.poll(0.0).keys == {"d", "s"}
    other.unplug()
    again.unplug()
    take(device)


def test_the_curve_is_round_dead_in_the_middle_and_full_at_the_edge():
    assert bent(0.1, 0.1, 0.15) == (0.0, 0.0) and bent(0.98, 0.0, 0.15) == (1.0, 0.0)
    angles = np.linspace(0, 2 * np.pi, 9)
    lengths = [np.hypot(*bent(0.6 * np.cos(a), 0.6 * np.sin(a), 0.15)) for a in angles]
    assert np.allclose(lengths, lengths[0])
    ways = [bent(x, 0.0, 0.15)[0] for x in np.linspace(0, 1, 50)]
    assert (np.diff(ways) >= 0).all() and bent(-1.0, 0.0, 0.0)[0] == -1.0
