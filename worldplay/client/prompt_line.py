"""The open line in the window in which the world's text is changed."""
import pygame

from worldplay.client.entry import Entry
from worldplay.client.prompting import Prompting


class PromptLine(Prompting):
    """F2 opens a line with the world's text; Enter submits the line, Esc leaves the text as it was."""

    def __init__(self, window, screen):
        super().__init__()
        self._window, self._screen = window, screen

    def open(self, prompt):
        """Open the line; what was written last and is not yet shown comes before the world's own `prompt`."""
        self._screen.entry = Entry(prompt if self.draft is None else self.draft, self._window.clipboard)
        self._window.capture_mouse(False)
        self._window.take_text(True)

    def feed(self, event):
        """Handle one event of the open line; returns None, or why the caller is to close it: "taken" (Enter;
        submits the text where it changed) or "left" (Esc, the text stays).
        """
        entry, self._screen.is_dirty = self._screen.entry, True
        if event.type == pygame.KEYDOWN and event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            if entry.is_changed or self.draft is not None:
                self.submit(entry.text)
            return "taken"
        if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
            return "left"
        entry.feed(event)
        return None

    def close(self):
        """No line is open, and keys write no more."""
        self._screen.entry = None
        self._window.take_text(False)
