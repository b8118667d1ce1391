"""The window that is recorded: found by its title, where it is on the screen, whether it has the focus."""
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A part of the screen, pixels from its top left corner."""
    left: int
    top: int
    width: int
    height: int


def open_desktop():
    """The desktop of this platform, an object with these functions of windows; a window is its number.

    titles()         {window: title} of those that are shown
    focused()        the window that has the focus, None where none has
    region(window)   Region of what it shows, without its frame; None where it is gone
    """
    if sys.platform == "win32":
        return _Windows()
    return _Mac() if sys.platform == "darwin" else _X11()


class _X11:
    """X11 with a window manager that keeps _NET_ACTIVE_WINDOW (EWMH), as all do."""

    def __init__(self):
        from Xlib import display
        self._display = display.Display()
        self._root = self._display.screen().root

    def titles(self):
        numbers = self._property(self._root, "_NET_CLIENT_LIST") or ()
        return {int(number): self._title(int(number)) for number in numbers}

    def focused(self):
        numbers = self._property(self._root, "_NET_ACTIVE_WINDOW")
        return int(numbers[0]) if numbers is not None and len(numbers) and numbers[0] else None

    def region(self, window):
        from Xlib.error import XError
        try:
            drawable = self._display.create_resource_object("window", window)
            size, at = drawable.get_geometry(), drawable.translate_coords(self._root, 0, 0)
        except XError:
            return None
        # from the root's corner to the window's, which python-xlib gives the other way round
        left, top = max(0, -at.x), max(0, -at.y)
        screen = self._root.get_geometry()
        width = min(-at.x + size.width, screen.width) - left
        height = min(-at.y + size.height, screen.height) - top
        return Region(left, top, width, height) if width > 0 and height > 0 else None

    def _title(self, window):
        drawable = self._display.create_resource_object("window", window)
        text = self._property(drawable, "_NET_WM_NAME")
        if text is None:
            text = self._property(drawable, "WM_NAME")
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text or "")

    def _property(self, drawable, name):
        from Xlib import X
        from Xlib.error import XError
        try:
            found = drawable.get_full_property(self._display.intern_atom(name), X.AnyPropertyType)
        except XError:  # the window has gone meanwhile
            return None
        return found.value if found is not None else None


class _Windows:
    """Windows by user32; written, not tried."""

    def __init__(self):
        import ctypes
        self._user = ctypes.windll.user32
        self._user.SetProcessDPIAware()  # else regions would be in other pixels than the screen's

    def titles(self):
        import ctypes
        found = {}

        @ctypes.WINFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
        def add(window, _):
            text = ctypes.create_unicode_buffer(512)
            self._user.GetWindowTextW(ctypes.c_void_p(window), text, 512)
            if self._user.IsWindowVisible(ctypes.c_void_p(window)) and text.value:
                found[window] = text.value
            return True
        self._user.EnumWindows(add, None)
        return found

    def focused(self):
        return self._user.GetForegroundWindow() or None

    def region(self, window):
        import ctypes
        from ctypes import wintypes
        size, corner = wintypes.RECT(), wintypes.POINT()
        handle = ctypes.c_void_p(window)
        if not self._user.GetClientRect(handle, ctypes.byref(size)) or size.right <= 0 or size.bottom <= 0:
            return None
        self._user.ClientToScreen(handle, ctypes.byref(corner))
        return Region(corner.x, corner.y, size.right, size.bottom)


class _Mac:
    """macOS by Quartz, which pynput brings; written, not tried."""

    def titles(self):
        return {window["kCGWindowNumber"]: f"{window.get('kCGWindowOwnerName', '')} "
                f"{window.get('kCGWindowName', '') or ''}".strip() for window in self._shown()}

    def focused(self):
        # the windows are listed from front to back; layer 0 is that of programs
        front = next(iter(self._shown()), None)
        return front["kCGWindowNumber"] if front else None

    def region(self, window):
        bounds = next((shown["kCGWindowBounds"] for shown in self._shown()
                       if shown["kCGWindowNumber"] == window), None)
        if bounds is None:
            return None
        return Region(*(int(bounds[name]) for name in ("X", "Y", "Width", "Height")))

    def _shown(self):
        import Quartz
        listed = Quartz.CGWindowListCopyWindowInfo(
            Quartz.kCGWindowListOptionOnScreenOnly | Quartz.kCGWindowListExcludeDesktopElements,
            Quartz.kCGNullWindowID)
        return [window for window in listed if window.get("kCGWindowLayer") == 0]
