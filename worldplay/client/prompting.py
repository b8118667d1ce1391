"""Changing the world's text while playing: the open line, and the text to be handed to the world."""
import pygame

from worldplay.client.entry import Entry


class Prompting:
    """F2 opens a line with the world's text; Enter submits the line, Esc leaves the text as it was.

    pending  text to hand to the world as soon as it is idle, or None; the loop takes it
    """

    def __init__(self, window, screen):
        self.pending = None
        self._window, self._screen = window, screen
        self._draft = None  # the text last written, until the world shows it

    def open(self, prompt):
        """Open the line; what was written last and is not yet shown comes before the world's own `prompt`."""
        self._screen.entry = Entry(prompt if self._draft is None else self._draft, self._window.clipboard)
        self._window.capture_mouse(False)
        self._window.take_text(True)

    def feed(self, event):
        """Handle one event of the open line; returns None, or why the caller is to close it: "taken" (Enter;
        sets `pending` where the text changed) or "left" (Esc, the text stays).
        """
        entry, self._screen.is_dirty = self._screen.entry, True
        if event.type == pygame.KEYDOWN and event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            if entry.is_changed or self._draft is not None:
                self.pending = self._draft = entry.text
            return "taken"
        if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
            return "left"
        entry.feed(event)
        return None

    def close(self):
        """No line is open, and keys write no more."""
        self._screen.entry = None
        self._window.take_text(False)

    def take_pending(self):
        """The text to hand to the world now."""
        text, self.pending = self.pending, None
        return text

    def shown(self, text):
        """The world shows the text from its next step on."""
        if self._draft == text:
            self._draft = None
