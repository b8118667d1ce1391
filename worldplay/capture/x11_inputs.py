"""Keys, buttons and raw motion of the mouse on X11, by XInput 2, with the server's own times."""
import math
import struct
import threading
import time
from select import select

from Xlib import XK, display
from Xlib.error import DisplayError
from Xlib.ext import ge, xinput

from worldplay.action import KEYS
from worldplay.capture.inputs import Inputs

_KEYSYMS = {"Return": "enter", "KP_Enter": "enter", "Tab": "tab", "ISO_Left_Tab": "tab", "space": "space",
            "Shift_L": "shift", "Shift_R": "shift", "Control_L": "ctrl", "Control_R": "ctrl",
            "Alt_L": "alt", "Alt_R": "alt", "ISO_Level3_Shift": "alt",
            "Up": "up", "Down": "down", "Left": "left", "Right": "right",
            **{f"F{i}": f"f{i}" for i in range(1, 13)}}
_BUTTONS = {1: "mouse_left", 2: "mouse_middle", 3: "mouse_right"}
_RAW = (xinput.RawKeyPress, xinput.RawKeyRelease, xinput.RawButtonPress, xinput.RawButtonRelease,
        xinput.RawMotion)


class X11Inputs(Inputs):
    """Events as the devices gave them, whatever the game that holds the pointer does with it.

    Motion is in counts of the mouse; what a program moves by XWarpPointer is not among it. Keys are those
    printed on the keyboard, whatever shift makes of them. Times are the server's: a busy machine hands events
    over late and still says when they were.
    """

    def __init__(self, is_wanted):
        """Raises OSError where there is no display, or one without XInput 2.1."""
        super().__init__(is_wanted)
        try:
            self._display = display.Display()
        except (DisplayError, OSError) as error:
            raise OSError(f"the display cannot be opened ({error})") from None
        major = self._display.query_extension(xinput.extname)
        # before 2.1 a program that holds the pointer, as games do, would be the only one to get raw events
        version = major and xinput.XIQueryVersion(
            display=self._display.display, opcode=self._display.display.get_extension_major(xinput.extname),
            major_version=2, minor_version=2)
        if not version or (version.major_version, version.minor_version) < (2, 1):
            raise OSError("this display has no XInput 2.1, by which keys and mouse are read")
        mask = sum(1 << kind for kind in _RAW)
        self._display.screen().root.xinput_select_events([(xinput.AllMasterDevices, mask)])
        self._display.sync()
        self._delay, self._is_open = math.inf, True
        self._thread = threading.Thread(target=self._run, name="inputs", daemon=True)
        self._thread.start()

    def _run(self):
        while self._is_open:
            select([self._display], [], [], 0.1)
            while self._is_open and self._display.pending_events():
                event = self._display.next_event()
                if event.type == ge.GenericEventCode and event.evtype in _RAW:
                    self._put(event.evtype, event.data)

    def _put(self, kind, data):
        milliseconds, detail = struct.unpack_from("=II", data, 2)
        # the server counts from another moment: the least delay seen so far is that of the clocks alone
        self._delay = min(self._delay, time.monotonic() - milliseconds / 1000)
        seconds = self._delay + milliseconds / 1000
        if kind == xinput.RawMotion:
            self.put_move(seconds, *raw_motion(data))
        elif kind in (xinput.RawButtonPress, xinput.RawButtonRelease):
            self.put_key(seconds, _BUTTONS.get(detail), kind == xinput.RawButtonPress)
        else:
            self.put_key(seconds, canonical(self._display.keycode_to_keysym(detail, 0)),
                         kind == xinput.RawKeyPress)

    def close(self):
        self._is_open = False
        self._thread.join()
        self._display.close()


def canonical(keysym):
    """Name in KEYS of a key, or of a function key; None of others.

    keysym  number of what it gives without shift
    """
    name = _NAMES.get(keysym)
    if name is None and keysym < 128:  # letters and digits are their own numbers
        name = chr(keysym).lower()
    return name if name in KEYS or name in _KEYSYMS.values() else None


def raw_motion(data):
    """(dx, dy) of a raw motion event of XInput 2.

    data  its bytes from the device's number on: 22 of a header, a mask of axes, then for each axis in it a
          fixed-point number, all accelerated ones before all of the device itself

    Source: XI2proto.h, xXIRawEvent.
    """
    words, = struct.unpack_from("=H", data, 12)
    mask = int.from_bytes(data[22:22 + 4 * words], "little")
    axes = [axis for axis in range(32 * words) if mask >> axis & 1]
    moved = {}
    for i, axis in enumerate(axes):
        whole, part = struct.unpack_from("=iI", data, 22 + 4 * words + 8 * (len(axes) + i))
        moved[axis] = whole + part / 2**32
    return moved.get(0, 0.0), moved.get(1, 0.0)


_NAMES = {XK.string_to_keysym(name): key for name, key in _KEYSYMS.items()}
