"""What is pressed and moved on the whole desktop, with times, until somebody takes it."""
import sys
import threading


def open_inputs(is_wanted):
    """The Inputs of this platform, running.

    is_wanted  function of a key's name; other keys are dropped at once
    """
    if sys.platform.startswith("linux"):
        from worldplay.capture.x11_inputs import X11Inputs
        return X11Inputs(is_wanted)
    from worldplay.capture.pynput_inputs import PynputInputs
    return PynputInputs(is_wanted)


class Inputs:
    """Events of a thread that reads the devices; nothing of them is written anywhere here.

    center  (x, y) of the recorded window, where a game may hold the pointer; the recorder keeps it up to date
    """

    def __init__(self, is_wanted):
        self._is_wanted, self._lock, self._held, self._events = is_wanted, threading.Lock(), frozenset(), []
        self.center = None

    def put_key(self, seconds, name, down):
        """A key goes down or up; name is None of one that no world has. One that repeats goes down once."""
        if name is None or not self._is_wanted(name):
            return
        with self._lock:
            if down != (name in self._held):
                self._held = self._held | {name} if down else self._held - {name}
                self._events.append((seconds, {"key": name, "down": int(down)}))

    def put_move(self, seconds, dx, dy):
        """The mouse was moved by so much, to the right and down."""
        if dx or dy:
            with self._lock:
                self._events.append((seconds, {"dx": dx, "dy": dy}))

    def take(self):
        """([(seconds of time.monotonic, {"key", "down"} or {"dx", "dy"})] since the last call, ascending;
        frozenset of the keys that are held now).
        """
        with self._lock:
            events, self._events = self._events, []
            return sorted(events, key=lambda event: event[0]), self._held

    def close(self):
        """Read no more."""
