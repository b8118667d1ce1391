"""What the player sees of a sitting: the picture, what is written over it, and the screens that stand still."""
import time
from dataclasses import replace
from enum import Enum, auto

from worldplay.client import entry, hud, menu
from worldplay.client.devices import help_rows
from worldplay.errors import WorldError

LOADING_FPS = 30
HUD_EVERY = 0.25  # figures that change faster cannot be read
NOTICE_SECONDS = 4.0
READING_SPEED = 15  # characters a second, for notices that are longer than the usual ones


class Mode(Enum):
    LOADING = auto()
    PLAYING = auto()
    PAUSED = auto()  # P: the picture stands, the mouse stays taken, single steps
    MENU = auto()    # Esc, or the focus went elsewhere: the mouse is free
    WRITING = auto()  # F2: the keys write the text, the mouse is free
    FAILED = auto()


class Screen:
    """Draws into the one window, as the player has chosen; the loop alone sets what is to be seen.

    settings   the player's choices as they were changed while playing
    world, recorder  once opened, for their facts
    frame      the newest frame, uint8 [H W 3], None while the world opens; `number` is its number on the branch
    entry      the worldplay.client.entry.Entry being written, or None
    failure    what made the world fail
    is_dirty   whether `refresh` has something to draw
    """

    def __init__(self, window, settings, timing, *, title, progress, log_hint, clock=time.perf_counter):
        """timing: of the sitting, for its figures; title, progress, log_hint: as worldplay.client.loop.Sitting says."""
        self.window, self.settings, self._timing = window, settings, timing
        self.world, self.recorder, self.failure = None, None, None
        self.frame, self.number, self.entry, self.is_dirty = None, 0, None, True
        self._title, self._progress, self._log_hint, self._clock = title, progress, log_hint, clock
        self._began, self._next_draw, self._reading_since = clock(), 0.0, None
        self._shows_help, self._notice, self._hud = False, ("", 0.0), ([], 0.0)

    @property
    def notice(self):
        """The passing line that is shown, or ""."""
        return self._notice[0]

    def tell(self, text):
        """Show a passing line, long enough to be read."""
        seconds = max(NOTICE_SECONDS, len(text) / READING_SPEED)
        self._notice, self.is_dirty = (text, self._clock() + seconds), True

    def tell_reading(self, is_reading):
        """Say, as long as it lasts, that the world reads a text."""
        self._reading_since, self.is_dirty = self._clock() if is_reading else None, True

    def refresh(self, mode):
        """Draw again what has changed, or moves by itself."""
        now = self._clock()
        if now >= self._next_draw and (mode is Mode.LOADING or self._reading_since is not None):
            period = 1 / LOADING_FPS if mode is Mode.LOADING else HUD_EVERY
            self._next_draw, self.is_dirty = now + period, True
        if self.notice and now >= self._notice[1]:
            self._notice, self.is_dirty = ("", 0.0), True
        if self.is_dirty:
            self.draw(mode)

    def draw(self, mode):
        """Draw everything and flip."""
        self.is_dirty = False
        surface = self.window.surface
        if mode is Mode.FAILED:
            menu.draw_failure(surface, _message(self.failure), self._log_hint)
        elif self.frame is None:
            menu.draw_loading(surface, self._progress() or f"Opening {self._title}", self._clock() - self._began)
        else:
            self.window.draw(self.frame)
            self._draw_menu(surface) if mode is Mode.MENU else self._draw_over(surface, mode)
        self.window.flip()

    def _draw_menu(self, surface):
        reading = self._reading()
        prompt = self.world.info.get("prompt")
        text = f"Reading the text... {reading}" if reading else prompt and f"Text: {entry.printable(prompt)}"
        menu.draw_pause(surface, *self._help_rows(), "" if self.notice else self._choices(), text or "")
        if self.notice:
            hud.draw_notice(surface, self.notice, is_over_text=True)

    def _draw_over(self, surface, mode):
        shows_help = self._shows_help and not self.entry
        if shows_help:
            hud.draw_help(surface, *self._help_rows())
        elif self.settings.show_hud:
            hud.draw_figures(surface, self._figures(), self.world.info.get("note", ""))
        if self.recorder.is_recording:
            hud.draw_recording(surface, self.recorder.seconds)
        lower = surface.get_height()
        if self.entry:
            lower = entry.draw_entry(surface, self.entry).top
        if self.notice:
            lower = hud.draw_notice(surface, self.notice, lower).top
        if reading := self._reading():
            hud.draw_badge(surface, "Reading the text...", reading, lower)
        elif mode is Mode.PAUSED and not shows_help:
            hud.draw_badge(surface, "Paused", "P goes on, . makes one frame", lower)

    def _reading(self):
        """How long the world has been reading a text, "" when it does not; a moment is not worth saying."""
        seconds = 0.0 if self._reading_since is None else self._clock() - self._reading_since
        return f"{seconds:.0f} s" if seconds >= HUD_EVERY else ""

    def _help_rows(self):
        return help_rows(self.world.action_space, reads_text="prompt" in self.world.info)

    def _choices(self):
        return (f"Mouse {self.settings.degrees_per_count:.3f} degrees per count     "
                f"Scaling {'smooth' if self.window.scaling == 'smooth' else 'in whole steps'}")

    def _figures(self):
        rows, until = self._hud
        now = self._clock()
        if not rows or now >= until:
            rows = hud.figures(self._timing, self.world.info, self.number, now)
            self._hud = rows, now + HUD_EVERY
        return rows

    # Commands of the player

    def on_help(self):
        self._shows_help = not self._shows_help

    def on_hud(self):
        self.settings = replace(self.settings, show_hud=not self.settings.show_hud)

    def on_scaling(self):
        other = "whole" if self.window.scaling == "smooth" else "smooth"
        self.window.scaling = other
        self.settings = replace(self.settings, scaling=other)
        self.tell("Smooth scaling" if other == "smooth" else "Scaling in whole steps")

    def on_fullscreen(self):
        self.window.toggle_fullscreen()


def _message(error):
    is_ours = isinstance(error, (WorldError, OSError, ValueError))
    return str(error) if is_ours else f"An unexpected {type(error).__name__}: {error}"
