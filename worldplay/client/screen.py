"""What the player sees: the picture, what is written over it, and the screens that stand still."""
import time
from dataclasses import replace
from enum import Enum, auto

from worldplay.client import entry, hud, menu
from worldplay.client.devices import commands_in, help_rows, label_of
from worldplay.client.keyboard_layout import printed_labels
from worldplay.errors import WorldError

LOADING_FPS = 30
HUD_EVERY = 0.25  # seconds; figures that change faster cannot be read
NOTICE_SECONDS = 4.0
READING_SPEED = 15  # characters a second, for notices that are longer than the usual ones


class Mode(Enum):
    LOADING = auto()
    PLAYING = auto()
    PAUSED = auto()   # P: the picture stands, the mouse stays captured, single steps
    MENU = auto()     # Esc, or the focus went elsewhere: the mouse is free
    WRITING = auto()  # F2: the keys write the text, the mouse is free
    STOPPED = auto()  # a step or a reset failed; a reset may help
    FAILED = auto()   # the world could not be opened, or is gone


class Screen:
    """Draws into the one window, as the player has chosen; the loop and the commands set what is to be seen.

    settings   worldplay.client.settings.Settings with the player's choices as they were changed while playing
    world      once opened, for its facts
    recording  worldplay.client.recording.Recording, for its facts
    frame      the newest frame, uint8 [H W 3], None while the world opens; `number` counts from the reset
    entry      the worldplay.client.entry.Entry being written, or None
    failure    the exception that made the world fail, or None
    is_dirty   whether `refresh` has something to draw
    """

    def __init__(self, window, settings, timing, *, title, progress, log_hint, clock=time.perf_counter):
        """timing: of the session, for its figures; title, progress, log_hint: as loop.SessionOptions says."""
        self.window, self.settings, self._timing = window, settings, timing
        self.world, self.recording, self.failure = None, None, None
        self.frame, self.number, self.entry, self.is_dirty = None, 0, None, True
        self._title, self._progress, self._log_hint, self._clock = title, progress, log_hint, clock
        self._began, self._next_draw, self._waiting = clock(), 0.0, None  # (what for, since, said after)
        self._shows_help, self._notice, self._hud = False, ("", 0.0), ([], 0.0)
        self._key_labels = printed_labels()

    @property
    def notice(self):
        """The passing line that is shown, or ""."""
        return self._notice[0]

    def notify(self, text):
        """Show a passing line, long enough to be read."""
        seconds = max(NOTICE_SECONDS, len(text) / READING_SPEED)
        self._notice, self.is_dirty = (text, self._clock() + seconds), True

    def wait_for(self, what, *, after):
        """From now on the model is being waited for: `what` is written once that takes `after` seconds."""
        self._waiting = what, self._clock(), after

    def end_wait(self):
        """The model has answered."""
        self.is_dirty |= bool(self._waited())
        self._waiting = None

    def choose(self, **choices):
        """Keep choices of the player as settings."""
        self.settings = replace(self.settings, **choices)

    def read_keyboard_layout(self):
        """The keyboard has another layout: its keys are labelled anew."""
        self._key_labels, self.is_dirty = printed_labels(), True

    def refresh(self, mode):
        """Draw again what has changed, or moves by itself."""
        now = self._clock()
        if now >= self._next_draw and (mode is Mode.LOADING or self._waited()):
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
            what = self._progress() or f"Opening {self._title}"
            menu.draw_loading(surface, what, self._clock() - self._began)
        else:
            self.window.draw(self.frame)
            if mode is Mode.MENU:
                self._draw_menu(surface)
            elif mode is Mode.STOPPED:
                self._draw_stopped(surface)
            else:
                self._draw_over(surface, mode)
            if self.recording.is_recording:
                hud.draw_recording(surface, self.recording.seconds)
        self.window.flip()

    def _draw_menu(self, surface):
        prompt = self.world.info.get("prompt")
        text = self._waited() or (prompt and f"Text: {entry.printable(prompt)}") or ""
        menu.draw_pause(surface, *self._help_rows(), "" if self.notice else self._choices(), text)
        if self.notice:
            hud.draw_notice(surface, self.notice, is_over_text=True)

    def _draw_stopped(self, surface):
        choices = self._choices_of(reset="starts again", next_scene="takes the next scene", escape="quits")
        menu.draw_stopped(surface, _message(self.failure), self._log_hint, choices)
        if self.notice:
            hud.draw_notice(surface, self.notice, is_over_text=True)

    def _draw_over(self, surface, mode):
        shows_help = self._shows_help and not self.entry
        if shows_help:
            hud.draw_help(surface, *self._help_rows())
        elif self.settings.show_hud:
            hud.draw_figures(surface, self._figures(), self.world.info.get("note", ""))
        lower = surface.get_height()
        if self.entry:
            lower = entry.draw_entry(surface, self.entry).top
        if self.notice:
            lower = hud.draw_notice(surface, self.notice, lower).top
        if waited := self._waited():
            hud.draw_badge(surface, waited, "", lower)
        elif mode is Mode.PAUSED and not shows_help:
            hud.draw_badge(surface, "Paused",
                           self._choices_of(pause="goes on", single_step="makes one frame"), lower)

    def notify_ended(self, message):
        """Say that a recording or an episode is over, and which key resets it."""
        self.notify(f"{message} ({self._choices_of(reset='resets')})")

    def _choices_of(self, **says):
        """"P goes on, ...": what some commands do now, by their keys; those that work in this world."""
        bindings = commands_in(self.world.action_space)
        return ", ".join(f"{label_of(bindings[name], self._key_labels)} {text}" for name, text in says.items()
                         if name in bindings)

    def _waited(self):
        """What the model is being waited for and how long; "" when it is not, or only for a moment."""
        if self._waiting is None:
            return ""
        what, since, after = self._waiting
        seconds = self._clock() - since
        return f"{what} {seconds:.0f} s" if seconds >= after else ""

    def _help_rows(self):
        return help_rows(self.world.action_space, self._key_labels, reads_text="prompt" in self.world.info)

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
        self.choose(show_hud=not self.settings.show_hud)

    def on_scaling(self):
        other = "whole" if self.window.scaling == "smooth" else "smooth"
        self.window.scaling = other
        self.choose(scaling=other)
        self.notify("Smooth scaling" if other == "smooth" else "Scaling in whole steps")

    def on_fullscreen(self):
        self.window.toggle_fullscreen()


def _message(error):
    is_ours = isinstance(error, (WorldError, OSError, ValueError))
    return str(error) if is_ours else f"An unexpected {type(error).__name__}: {error}"
