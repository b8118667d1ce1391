"""The loop that records a window while it has the focus, into takes and then into a data set."""
import errno
import logging
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from worldplay.action import KEYS
from worldplay.capture.inputs import open_inputs
from worldplay.capture.takes import TakeWriter
from worldplay.capture.windows import Region, open_desktop
from worldplay.data.import_play import check_rate, make_data_set, read_offset
from worldplay.data.importing import ActionColumns, Column, FrameFit
from worldplay.data.lerobot_writer import check_new
from worldplay.data.pack import SHORTEST
from worldplay.data.video import DAMAGE
from worldplay.errors import WorldError
from worldplay.files import visible, writable_folder

log = logging.getLogger(__name__)

TAKES = "takes"  # folder of them in that of the data set


class Screen:
    """The pixels of regions of the screen, by mss."""

    def __init__(self):
        import mss
        self._grabber = mss.mss()

    def grab(self, region):
        """uint8 [H W 3] of a Region; OSError where the screen cannot be read."""
        from mss.exception import ScreenShotError
        try:
            shot = self._grabber.grab({"left": region.left, "top": region.top, "width": region.width,
                                       "height": region.height})
        except ScreenShotError as error:
            raise OSError(f"the screen cannot be read ({error})") from error
        pixels = np.frombuffer(shot.bgra, np.uint8).reshape(shot.height, shot.width, 4)
        return np.ascontiguousarray(pixels[..., 2::-1])


class Recorder:
    """Takes of one window. A take is a stretch without a break: recording switched on, the window in focus.

    Inputs are kept only if the window had the focus at the tick before them and still has it at the one
    after: what is typed into another window is never written.

    window     number of the window; None with a fixed region: the window that has the focus when recording
               is switched on
    region     Region of the screen; None follows the window
    num_takes  kept so far, seconds: their length together
    """

    def __init__(self, folder, *, desktop, screen, inputs, window, region, fps, fit, header, hotkey):
        """folder of the takes; desktop, screen, inputs: as open_desktop, Screen and open_inputs make them;
        fit: FrameFit; header: of the takes; hotkey: name of a key that `inputs` gives.
        """
        self._folder, self._desktop, self._screen = folder, desktop, screen
        self._inputs, self._fps, self._fit = inputs, fps, fit
        self._header, self._hotkey = header, hotkey
        self.window, self.region = window, region
        self.num_takes, self.seconds, self.num_late = 0, 0.0, 0
        self._is_on, self._take, self._began, self._newest = False, None, 0.0, 0.0
        self._number = 0

    def run(self, is_over):
        """Record until is_over() or the window is gone.

            Raises OSError where nothing more can be written; the takes so far are whole then.
        """
        period, due = 1 / self._fps, time.monotonic()
        try:
            while not is_over() and self.tick():
                due += period
                late = time.monotonic() - due
                if late > period:  # the machine is busy: the next frame is at its own time again
                    self.num_late += int(late / period)
                    due += period * int(late / period)
                time.sleep(max(0.0, due - time.monotonic()))
        finally:
            self._end_take()

    def tick(self):
        """One frame, if recording is on and the window has the focus; False once the window is gone."""
        events, held = self._inputs.take()
        focused = self._desktop.focused()
        for _, event in events:
            if event.get("key") == self._hotkey and event["down"]:
                self._toggle(focused)
        region = self.region or (self._desktop.region(self.window) if self.window else None)
        if self.window and region is None:
            log.info("the window is gone")
            return False
        is_focused = self.window is not None and focused == self.window
        if not (self._is_on and is_focused):
            if self._take is not None and self._is_on:
                log.info("paused: another window has the focus")
            self._end_take()
            return True
        self._inputs.center = (region.left + region.width // 2, region.top + region.height // 2)
        before = time.monotonic()
        frame = self._fit.apply(self._screen.grab(region))
        seconds = (before + time.monotonic()) / 2  # the screen is read in between, scaling is quick
        if self._take is None:  # what came before it is not its own; what is held by now is
            self._begin_take(seconds)
            events = [(seconds, {"key": name, "down": 1}) for name in sorted(held)]
        self._add(frame, seconds, events)
        return True

    def _toggle(self, focused):
        self._is_on = not self._is_on
        if self._is_on and self.region is not None:
            self.window = focused
        log.info("recording" if self._is_on else "stopped; the hot key goes on with another take")

    def _begin_take(self, seconds):
        self._number += 1
        self._began = seconds
        self._take = TakeWriter(self._folder / f"take-{self._number:03d}.mp4", self._fit.size, self._fps,
                                self._header)

    def _add(self, frame, seconds, events):
        # handed over late: a key from before the take is held at its start, a move was not its own
        kept = [(when - self._began, event) for when, event in events
                if event.get("key") != self._hotkey and ("key" in event or when >= self._began)]
        self._newest = seconds - self._began
        self._take.add(frame, self._newest, kept)

    def _end_take(self):
        take, self._take = self._take, None
        if take is None:
            return
        if take.num_frames <= SHORTEST:
            take.discard()
            log.info("a take of %d frames is too short and was dropped", take.num_frames)
            return
        take.close()
        self.num_takes += 1
        self.seconds += self._newest
        log.info("%s: %.1f s", take.path.name, self._newest)


def run_record(*, out, window=None, region=None, fps=20.0, size="160x112", actions=None, exclude=(),
               hotkey="f9", offset="0", is_over=lambda: False):
    """Record a window into takes, and make the data set `out` of them, until is_over() or the window is gone.

    window   part of its title; or region: "X,Y,W,H" of the screen
    size     "WxH" pixels of the data set
    actions  as ActionColumns.parse reads it, of the keys' names, dx and dy; None: every key that was pressed,
             0.1 degrees for a count of the mouse
    exclude  names of keys that are never stored
    offset   as run_import takes it
    Returns  what make_data_set returns, and takes, seconds and late (frames left out on a busy machine)

        Raises WorldError where packages or the platform lack, ValueError for options that cannot be met, and
        OSError where the disk is full or nothing was recorded.
    """
    out = Path(out)
    if bool(window) == bool(region):
        raise ValueError("say what to record: --window TITLE, or --region X,Y,W,H")
    read_offset(offset), check_rate(fps, f"--fps {fps}")  # what the data set would refuse at the end
    _check_new(out)
    fit, region = FrameFit.parse(f"resize {size}"), region and _region(region)
    wanted = _wanted(actions, exclude, hotkey)
    _require_platform()
    _require_packages()
    desktop = open_desktop()
    number = _window(desktop, window) if window else None
    inputs = open_inputs({*wanted, hotkey}.__contains__)
    recorder = Recorder(writable_folder(out / TAKES, "the recording"), desktop=desktop, screen=Screen(),
                        inputs=inputs, window=number, region=region, fps=fps, fit=fit,
                        header={"actions": actions}, hotkey=hotkey)
    log.info("%s records %s at %g frames a second, only while it has the focus, and again ends it; Ctrl-C "
             "leaves. Of the keyboard it stores %s, and nothing else", hotkey.upper(),
             f"{desktop.titles()[number]!r}" if window else "the region of the window then in front", fps,
             ", ".join(wanted))
    try:
        recorder.run(is_over)
    except (OSError, *DAMAGE) as error:
        raise OSError(_why_stopped(out, error)) from error
    finally:
        inputs.close()
    if not recorder.num_takes:
        raise OSError(f"nothing was recorded: no take of more than {SHORTEST} frames; {hotkey.upper()} "
                      "begins one while the window has the focus")
    made = make_data_set([out / TAKES], out=out, offset=offset)
    return {**made, "takes": recorder.num_takes, "seconds": recorder.seconds, "late": recorder.num_late}


def _check_new(out):
    if visible(out / TAKES, "*.mp4") and not (out / "meta/info.json").exists():
        raise ValueError(f"--out {out}: holds takes of a recording that was cut off; python -m worldplay "
                         f"dataset import {out / TAKES} --out OTHER makes a data set of them")
    check_new(out)


def _wanted(actions, exclude, hotkey):
    """Names of the keys that are stored, in the order of KEYS."""
    unknown = [key for key in exclude if key not in KEYS]
    if unknown:
        raise ValueError(f"--exclude {unknown[0]}: no key is called so; there are {', '.join(KEYS)}")
    if not (hotkey in KEYS or hotkey[:1] == "f" and hotkey[1:].isdigit()):
        raise ValueError(f"--hotkey {hotkey}: expected f1 to f12, or a key: {', '.join(KEYS)}")
    wanted = [key for key in KEYS if key not in exclude and key != hotkey]
    if actions is None:
        return wanted
    columns = [Column(name, name, 0) for name in (*wanted, "dx", "dy")]
    named = {column.label for _, column, _, _ in ActionColumns.parse(actions, columns).terms}
    return [key for key in wanted if key in named]


def _region(text):
    try:
        left, top, width, height = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"--region {text}: expected X,Y,W,H in pixels, such as 0,0,640,480") from None
    if left < 0 or top < 0 or width < 16 or height < 16:
        raise ValueError(f"--region {text}: expected X and Y from 0 on, and at least 16x16 pixels")
    return Region(left, top, width, height)


def _window(desktop, title):
    """Number of the one window whose title has that text."""
    titles = desktop.titles()
    found = [window for window, text in titles.items() if title.lower() in text.lower()]
    exact = [window for window in found if titles[window] == title]
    if len(exact) == 1 or len(found) == 1:
        return (exact or found)[0]
    listed = ", ".join(repr(text) for text in titles.values()) or "none"
    raise ValueError(f"--window {title}: {'several windows are' if found else 'no window is'} called so; "
                     f"there are {listed}")


def _require_platform():
    if not sys.platform.startswith("linux"):
        return
    if os.environ.get("WAYLAND_DISPLAY") or os.environ.get("XDG_SESSION_TYPE") == "wayland":
        raise WorldError("device", "record-desktop reads screen and keys of X11, Windows and macOS, and this "
                         "is a Wayland session, which lets no program do so: log in to an X11 session")
    if not os.environ.get("DISPLAY"):
        raise WorldError("device", "there is no display (DISPLAY is not set): run it where the game runs")


def _require_packages():
    try:
        import_module("mss")
        import_module("Xlib" if sys.platform.startswith("linux") else "pynput")
    except ImportError as error:
        raise WorldError("not_found", f"recording a desktop needs {error.name}, which is not installed: "
                         'run pip install ".[desktop]" in the checkout') from None


def _why_stopped(out, error):
    reason = "the disk is full" if getattr(error, "errno", None) == errno.ENOSPC else (
        getattr(error, "strerror", None) or str(error))
    return (f"recording stopped: {reason}; what was written is whole: python -m worldplay dataset import "
            f"{out / TAKES} --out OTHER makes a data set of it")
