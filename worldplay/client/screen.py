"""What the player sees in the window: the picture, what is written over it, the screens that stand still."""
import logging
import time

import numpy as np

from worldplay.client import entry, hud, menu, theme
from worldplay.client.beside import DREAM, REAL
from worldplay.client.bindings import BY_NAME
from worldplay.client.keyboard_layout import printed_labels
from worldplay.client.pages import Choices
from worldplay.client.view import LOADING_FPS, Mode, View

log = logging.getLogger(__name__)


LEAST = (160, 120)  # pixels in which something can be written; tiling desktops make windows smaller


class Screen(View):
    """Draws into the one window, as the player has chosen.

    entry    the worldplay.client.entry.Entry being written, or None
    pages    the worldplay.client.pages.Page objects that are open in the menu, the last one on top
    choices  worldplay.client.pages.Choices of the pause
    """

    def __init__(self, window, settings, timing, *, title, progress, log_hint, clock=time.perf_counter):
        """title, progress, log_hint: as desktop.SessionOptions says."""
        super().__init__(settings, timing, clock=clock)
        self.window, self.entry, self.pages, self.choices = window, None, [], Choices(())
        self._title, self._progress, self._log_hint = title, progress, log_hint
        self._shows_help = False
        self._key_labels = printed_labels()

    def open(self, world):
        super().open(world)
        if missing := self.bindings.missing(world.action_space):
            self.notify(f"No key is set for {', '.join(missing)} of this world: Esc, Controls")
        self.window.set_title(f"{world.name} - worldplay")

    def close_world(self, title):
        super().close_world(title)
        self._title = title

    def capture_mouse(self, is_captured):
        self.window.capture_mouse(is_captured)

    @property
    def key_labels(self):
        """{scancode: label} of the keys that print something else than on a US keyboard."""
        return self._key_labels

    def read_keyboard_layout(self):
        """The keyboard has another layout: its keys are labelled anew."""
        self._key_labels, self.is_dirty = printed_labels(), True

    def close_pages(self):
        """The menu is left, and all that is open in it."""
        while self.pages:
            self.pages.pop().close()

    def close(self):
        """The window goes; its size is kept for the next time."""
        self.close_pages()
        self.capture_mouse(False)
        self.window.close()
        try:
            self.choose(window_size=self.window.window_size)
        except ValueError:
            log.debug("a window of %s pixels is too small to be remembered", self.window.window_size)

    def draw(self, mode):
        """Draw everything and flip."""
        self.is_dirty = False
        surface = self.window.surface
        if surface.get_width() < LEAST[0] or surface.get_height() < LEAST[1]:
            self._draw_picture(surface)
        elif self.pages:
            self._draw_page(surface)
        elif mode is Mode.FAILED:
            menu.draw_failure(surface, self._failure_text(), self._log_hint, self.choices)
        elif self.frame is None:
            what = self._progress() or f"Opening {self._title}"
            menu.draw_loading(surface, what, self._clock() - self._began)
            if self.notice:
                hud.draw_notice(surface, self.notice)
        else:
            self._draw_world(surface)
            if mode is Mode.MENU:
                self._draw_menu(surface)
            elif mode is Mode.STOPPED:
                self._draw_stopped(surface)
            else:
                self._draw_over(surface, mode)
            if self.recording.is_recording:
                hud.draw_recording(surface, self.recording.seconds)
        self.window.flip()

    def _draw_picture(self, surface):
        """The newest frame alone, or the night while there is none."""
        if self.frame is None:
            surface.fill(theme.NIGHT)
        else:
            self._draw_world(surface)

    def _draw_world(self, surface):
        """The newest frame, with or in place of it the real game's, which is said to be that."""
        if self.beside.shows == DREAM or self.rewound:  # the game is not where time goes back to
            self.window.draw(self.frame)
            return
        real = self.beside.frame_at(self.number)
        shown = {DREAM: self.frame, REAL: np.zeros_like(self.frame) if real is None else real}
        if self.beside.shows == REAL:
            shown.pop(DREAM)
        boxes = self.window.draw(*shown.values())
        hud.draw_beside(surface, dict(zip(shown, boxes)), self.beside.says)

    def _draw_page(self, surface):
        """The page on top, over the picture."""
        self._draw_picture(surface)
        self.pages[-1].draw(surface)
        if self.notice:
            hud.draw_notice(surface, self.notice, is_over_text=True)

    def _draw_menu(self, surface):
        prompt = self.world.info.get("prompt")
        text = self._waited() or (prompt and f"Text: {entry.printable(prompt)}") or ""
        chosen = "" if self.notice else self._chosen()
        menu.draw_pause(surface, *self._help_rows(), chosen, text, self.choices, self._idle_commands())
        if self.notice:
            hud.draw_notice(surface, self.notice, is_over_text=True)

    def _draw_stopped(self, surface):
        says = self.choices_of(reset="starts again", next_scene="takes the next scene",
                                rewind="goes back", escape="quits")
        menu.draw_stopped(surface, self._failure_text(), self._log_hint, says, self.choices)
        if self.notice:
            hud.draw_notice(surface, self.notice, is_over_text=True)

    def _draw_over(self, surface, mode):
        shows_help = self._shows_help and not self.entry
        if shows_help:
            hud.draw_help(surface, *self._help_rows(), self._idle_commands())
        elif self.settings.show_hud:
            self._draw_figures(surface)
        lower = surface.get_height()
        if self.entry:
            lower = entry.draw_entry(surface, self.entry).top
        if self.notice:
            lower = hud.draw_notice(surface, self.notice, lower).top
        if self.rewound:
            hud.draw_rewinding(surface, *self.rewound, lower)
        elif waited := self._waited():
            hud.draw_badge(surface, waited, "", lower)
        elif mode is Mode.PAUSED and not shows_help:
            hud.draw_badge(surface, "Paused",
                           self.choices_of(pause="goes on", single_step="makes one frame"), lower)
        elif self.replay_left and not shows_help:
            left = f"Replay, {self.replay_left:.0f} s"
            hud.draw_badge(surface, left, "a key or a turn takes over", lower)

    def _draw_figures(self, surface):
        parts, rows = self.settings.hud_parts, self._figures()
        if parts == "rate":
            rows = rows[:1]
        lower = 0
        if parts != "graph":
            lower = hud.draw_figures(surface, rows, self.world.info.get("note", ""))
        if "graph" in parts:
            hud.draw_graph(surface, self.timing.recent_work(hud.BARS), 1 / self.world.fps, lower)

    def _help_rows(self):
        return self.bindings.help_rows(self.world.action_space, self._key_labels, is_pad=self.shows_pad,
                                       reads_text="prompt" in self.world.info)

    def _idle_commands(self):
        """What the help says of commands that can do nothing here: it is greyed."""
        return {BY_NAME["real"].says} if self.beside.problem else set()

    def _chosen(self):
        return (f"Mouse {self.settings.degrees_per_count:.3f} degrees per count     "
                f"Scaling {'smooth' if self.window.scaling == 'smooth' else 'in whole steps'}")

    def refresh(self, mode):
        if self.pages and getattr(self.pages[-1], "is_moving", False) and self._clock() >= self._next_draw:
            self._next_draw, self.is_dirty = self._clock() + 1 / LOADING_FPS, True
        super().refresh(mode)

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
