"""The line in which the player writes what the world is to show."""
import bisect

import pygame

from worldplay.client import theme
from worldplay.client.keyboard_layout import shortcut_key

MAX_CHARACTERS = 4000  # the text encoders read 512 tokens, about half of that
MAX_ROWS = 6
_WORDWISE = pygame.KMOD_CTRL | pygame.KMOD_META


class Entry:
    """A text and the cursor in it; `feed` takes pygame's events while the line is open.

    text         what stands in the line
    cursor       number of characters before it
    is_selected  whether all of it is, so that the next character takes its place
    """

    def __init__(self, text, clipboard=lambda: ""):
        """clipboard() -> str is asked for what Ctrl+V puts in."""
        self.text = printable(text)[:MAX_CHARACTERS]
        self.cursor, self.is_selected = len(self.text), False
        self._opened_with, self._clipboard = self.text, clipboard

    @property
    def is_changed(self):
        return self.text != self._opened_with

    @property
    def is_full(self):
        return len(self.text) == MAX_CHARACTERS

    def feed(self, event):
        """Take a KEYDOWN or TEXTINPUT; other events, and keys that mean nothing here, change nothing."""
        if event.type == pygame.TEXTINPUT:
            self._insert(event.text)
        elif event.type == pygame.KEYDOWN:
            self._press(event)

    def _press(self, event):
        wordwise = bool(event.mod & _WORDWISE)
        match shortcut_key(event):
            case pygame.K_BACKSPACE:
                self._delete(self._left(wordwise), self.cursor)
            case pygame.K_DELETE:
                self._delete(self.cursor, self._right(wordwise))
            case pygame.K_LEFT:
                self._move(self._left(wordwise))
            case pygame.K_RIGHT:
                self._move(self._right(wordwise))
            case pygame.K_HOME | pygame.K_UP:
                self._move(0)
            case pygame.K_END | pygame.K_DOWN:
                self._move(len(self.text))
            case pygame.K_a if wordwise:
                self.is_selected = bool(self.text)
            case pygame.K_v if wordwise:
                self._insert(self._clipboard())
            case pygame.K_INSERT if event.mod & pygame.KMOD_SHIFT:
                self._insert(self._clipboard())

    def _insert(self, text):
        text = printable(text)
        if not text:
            return
        if self.is_selected:
            self._delete(0, len(self.text))
        text = text[:MAX_CHARACTERS - len(self.text)]
        self.text = self.text[:self.cursor] + text + self.text[self.cursor:]
        self.cursor += len(text)

    def _delete(self, start, stop):
        if self.is_selected:
            start, stop = 0, len(self.text)
        self.text = self.text[:start] + self.text[stop:]
        self._move(start)

    def _move(self, cursor):
        self.cursor, self.is_selected = cursor, False

    def _left(self, wordwise):
        """Where the character before the cursor begins, or the word."""
        if not wordwise:
            return max(0, self.cursor - 1)
        return self.text.rfind(" ", 0, len(self.text[:self.cursor].rstrip())) + 1

    def _right(self, wordwise):
        if not wordwise:
            return min(len(self.text), self.cursor + 1)
        rest = self.text[self.cursor:]
        end = rest.find(" ", len(rest) - len(rest.lstrip()))
        return self.cursor + end if end >= 0 else len(self.text)


def printable(text):
    """The text as one line that every font can be asked for: what has no picture becomes a space."""
    return "".join(character if character.isprintable() else " " for character in text)


def rows_of(text, width_of, width_px):
    """(start, stop) of the rows into which a text is broken; a row ends after a space, or inside a long word.

    width_of(text) -> pixels
    """
    rows, start = [], 0
    while True:
        # half a row of the narrowest letters is wider than any row: no need to measure the whole text
        longest = min(len(text) - start, width_px)
        num = bisect.bisect_right(range(1, longest + 1), width_px,
                                  key=lambda n: width_of(text[start:start + n]))
        stop = start + max(1, num)
        if stop >= len(text):
            return [*rows, (start, len(text))]
        space = text.rfind(" ", start, stop + 1)
        stop = space + 1 if space >= start else stop
        rows.append((start, stop))
        start = stop


def draw_entry(surface, entry, title="What the world shows"):
    """The open line at the lower edge under its title, over as many rows as it needs; returns its Rect."""
    size = theme.unit(surface)
    pad, line, font = round(1.3 * size), round(1.6 * size), theme.font_for(entry.text, "text", size)
    box = pygame.Rect(size, 0, surface.get_width() - 2 * size, 0)
    rows = rows_of(entry.text, lambda text: font.size(text)[0], box.width - 2 * pad)
    at = max(i for i, (start, _) in enumerate(rows) if start <= entry.cursor)
    shown = _around(at, len(rows))
    box.height = line * (len(shown) + 1) + 2 * size
    box.bottom = surface.get_height() - size
    theme.panel(surface, box, (*theme.NIGHT, 228))
    left, top = box.left + pad, box.top + round(0.8 * size)
    theme.write(surface, title, (left, top), size_px=size, color=theme.ACCENT, face="bold")
    hint = (f"{MAX_CHARACTERS} characters, no more" if entry.is_full
            else "Enter takes it, Esc leaves it as it was")
    theme.write(surface, hint, (box.right - pad, top), size_px=size, color=theme.MUTED, anchor="topright")
    for place, i in enumerate(shown, 1):
        _draw_row(surface, entry, rows[i], (left, top + line * place + size // 3), has_cursor=i == at)
    return box


def _around(row, num_rows):
    """The rows that are shown: MAX_ROWS at most, the cursor's in their middle where it can be."""
    first = max(0, min(row - MAX_ROWS // 2, num_rows - MAX_ROWS))
    return range(first, min(first + MAX_ROWS, num_rows))


def _draw_row(surface, entry, row, position, *, has_cursor):
    size = theme.unit(surface)
    font, (start, stop), (x, y) = theme.font_for(entry.text, "text", size), row, position
    height = round(1.25 * size)
    if entry.is_selected:
        pygame.draw.rect(surface, theme.CAP, (x, y, font.size(entry.text[start:stop])[0], height))
    theme.write(surface, entry.text[start:stop], position, size_px=size, font=font)
    if has_cursor:
        x += font.size(entry.text[start:entry.cursor])[0]
        pygame.draw.rect(surface, theme.ACCENT, (x, y, max(2, size // 8), height))
