"""How a frame fills the window."""
import pytest

from worldplay.client.window import fit


@pytest.mark.parametrize("screen, scaling, size", [
    ((960, 720), "smooth", (960, 720)), ((1000, 720), "smooth", (960, 720)),
    ((700, 720), "smooth", (700, 525)), ((1000, 720), "whole", (960, 720)), ((959, 719), "whole", (800, 600)),
    ((100, 100), "whole", (100, 75))])
def test_the_picture_keeps_its_aspect(screen, scaling, size):
    assert fit((160, 120), screen, scaling) == size
