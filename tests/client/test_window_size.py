"""How a frame fills the window, and a window the desktop."""
import pytest

from worldplay.client.window import MIN_SIZE, fit, within


@pytest.mark.parametrize("screen, scaling, size", [
    ((960, 720), "smooth", (960, 720)), ((1000, 720), "smooth", (960, 720)),
    ((700, 720), "smooth", (700, 525)), ((1000, 720), "whole", (960, 720)), ((959, 719), "whole", (800, 600)),
    ((100, 100), "whole", (100, 75))])
def test_the_picture_keeps_its_aspect(screen, scaling, size):
    assert fit((160, 120), screen, scaling) == size


@pytest.mark.parametrize("desktop, size, expected", [
    ((1920, 1080), (960, 720), (960, 720)), ((1280, 800), (3840, 2160), (1264, 720)),
    ((1280, 800), (1280, 800), (1264, 720)),
    ((1280, 800), (16384, 600), (1264, 600)), ((640, 480), (960, 720), (624, MIN_SIZE[1]))])
def test_a_window_is_no_larger_than_the_desktop_has_room(desktop, size, expected):
    assert within(desktop, size) == expected
