"""Keys, buttons and positions of the mouse by pynput, for Windows and macOS; keys were tried on X11 alone."""
import time

from pynput import keyboard, mouse

from worldplay.action import KEYS
from worldplay.capture.inputs import Inputs

_BY_NAME = {"space": "space", "tab": "tab", "enter": "enter", "up": "up", "down": "down", "left": "left",
            "right": "right", **{f"{key}{side}": key for key in ("shift", "ctrl", "alt")
                                 for side in ("", "_l", "_r")}}
# a digit arrives as what shift makes of it, on an English keyboard
_SHIFTED = dict(zip("!@#$%^&*()", "1234567890"))
_FAR = 200  # pixels between two events: further than a hand moves it, as far as a game puts it back
_CENTER = 2  # pixels: a jump that ends so close to the middle of the window was the game's


class PynputInputs(Inputs):
    """Events as the desktop hands them over, at the time at which it does.

    The mouse is known by positions alone. Their differences add up; the jumps by which a game puts the
    pointer back into the middle of its window are left out.
    """

    def __init__(self, is_wanted):
        super().__init__(is_wanted)
        self._last = None
        self._listeners = [keyboard.Listener(on_press=lambda key: self._key(canonical(key), True),
                                             on_release=lambda key: self._key(canonical(key), False)),
                           mouse.Listener(on_move=self.move, on_click=self._click)]
        for listener in self._listeners:
            listener.start()
        for listener in self._listeners:
            listener.wait()

    def move(self, x, y, *_):
        """The pointer is at (x, y) now."""
        last, self._last = self._last, (x, y)
        if last is None:
            return
        dx, dy = x - last[0], y - last[1]
        far = max(abs(dx), abs(dy))
        is_back = self.center is not None and max(abs(x - self.center[0]), abs(y - self.center[1])) <= _CENTER
        if far < _FAR and not (is_back and far > _CENTER):
            self.put_move(time.monotonic(), dx, dy)

    def _key(self, name, down):
        self.put_key(time.monotonic(), name, down)

    def _click(self, x, y, button, down, *_):
        name = f"mouse_{button.name}"
        self.put_key(time.monotonic(), name if name in KEYS else None, down)

    def close(self):
        for listener in self._listeners:
            listener.stop()


def canonical(key):
    """Name in KEYS of a key as pynput gives it, or of a function key; None of others."""
    name = getattr(key, "name", None)
    if name is not None:
        is_function = name[:1] == "f" and name[1:].isdigit()
        return name if is_function else _BY_NAME.get(name)
    letter = (getattr(key, "char", None) or "").lower()
    letter = _SHIFTED.get(letter, letter)
    return letter if letter in KEYS else None
