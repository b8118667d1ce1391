"""Screens of rows over the darkened picture: a stack of pages, by keyboard, mouse and gamepad alike."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pygame

from worldplay.client import theme
from worldplay.client.entry import rows_of
from worldplay.client.inputs import keys, pad

NAVIGATION = {
    **dict(zip(keys("UP", "DOWN", "LEFT", "RIGHT", "RETURN", "KP_ENTER", "ESCAPE", "BACKSPACE", "DELETE"),
               ("up", "down", "left", "right", "enter", "enter", "back", "restore", "clear"))),
    **{pad(name): way for name, way in (
        ("dpup", "up"), ("dpdown", "down"), ("dpleft", "left"), ("dpright", "right"), ("lefty-", "up"),
        ("lefty+", "down"), ("leftx-", "left"), ("leftx+", "right"), ("a", "enter"), ("b", "back"),
        ("start", "back"), ("x", "restore"))}}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a page; what it cannot do is None, and a line that can do nothing is a heading.

    value      what it is set to;  says  explains it while it is chosen;  is_alert  whether something is amiss
    enter()    it was taken;  change(step)  one further, or back with -1
    restore()  as it was at first;  clear()  leave nothing
    picture    of the row: path of a picture file, or uint8 [H W 3];  details  lines below it
    """
    label: str
    value: str = ""
    says: str = ""
    is_alert: bool = False
    enter: Callable | None = None
    change: Callable | None = None
    restore: Callable | None = None
    clear: Callable | None = None
    picture: object = None
    details: tuple[str, ...] = ()

    @property
    def is_heading(self):
        return not (self.enter or self.change)


class Page:
    """A title, rows that `make_rows` gives anew after every change, and the row that is chosen.

    title    over the rows;  has_pictures  whether the chosen row's picture and details stand beside them
    is_over  whether the page is to be taken off the stack
    """
    title = ""
    has_pictures = False

    def __init__(self):
        self.is_over, self._at, self._first, self._places = False, 0, 0, {}

    @property
    def takes_input(self):
        """Whether the next input of any kind is what the page waits for, and clicks nothing."""
        return False

    def close(self):
        """The page is taken off the stack, in whatever way."""

    def make_rows(self):
        """List of Row."""
        raise NotImplementedError

    def press(self, code):
        """An input, see worldplay.client.inputs, went down."""
        rows = self.make_rows()
        self._at = min(self._at, len(rows) - 1)
        row, way = rows[self._at], NAVIGATION.get(code)
        if way == "back":
            self.is_over = True
        elif way in ("up", "down"):
            self._go(rows, -1 if way == "up" else 1)
        elif way in ("left", "right") and row.change:
            row.change(-1 if way == "left" else 1)
        elif way == "enter" and row.enter:
            row.enter()
        elif way == "enter" and row.change:
            row.change(1)
        elif way in ("restore", "clear") and getattr(row, way):
            getattr(row, way)()

    def hover(self, position):
        """The mouse is there; returns whether that is on a row, which is chosen then."""
        for i, rect in self._places.items():
            if rect.collidepoint(position):
                self._at = i
                return True
        return False

    def click(self, position):
        """The left button went down there: takes the row, or changes it by the half that was hit."""
        if not self.hover(position):
            return
        row, rect = self.make_rows()[self._at], self._places[self._at]
        if row.enter:
            row.enter()
        elif row.change:
            row.change(-1 if rect.width * 0.5 < position[0] - rect.left < rect.width * 0.75 else 1)

    def scroll(self, steps):
        """The wheel turned, up is positive."""
        rows = self.make_rows()
        for _ in range(abs(steps)):
            self._go(rows, -1 if steps > 0 else 1)

    def draw(self, surface):
        """The page over what is on the surface."""
        theme.veil(surface, 205)
        size, rows = theme.unit(surface), self.make_rows()
        if rows[min(self._at, len(rows) - 1)].is_heading:
            self._go(rows, 1)
        widest = (70 if self.has_pictures else 46) * size
        room = pygame.Rect(0, 0, min(surface.get_width() - 2 * size, widest), surface.get_height())
        room.centerx = surface.get_width() // 2
        box = room.copy()
        if self.has_pictures:
            box.width = round(0.56 * room.width)
        theme.write(surface, self.title, (box.left + size, round(1.2 * size)), size_px=round(2.2 * size),
                    face="light")
        top, line = round(5.0 * size), round(1.9 * size)
        lower = surface.get_height() - round(4.6 * size)
        num = max(1, (lower - top) // line)
        margin = int(num > 2)  # a row before and after the chosen one
        first = max(min(self._first, self._at - margin), self._at - num + 1 + margin)
        self._first = max(0, min(first, len(rows) - num))
        self._places = {}
        for place, i in enumerate(range(self._first, min(self._first + num, len(rows)))):
            rect = pygame.Rect(box.left, top + place * line, box.width, line)
            if not rows[i].is_heading:
                self._places[i] = rect
            self._draw_row(surface, rows[i], rect, is_chosen=i == self._at)
        self._draw_bar(surface, box, top, num, line, len(rows))
        if self.has_pictures:
            beside = pygame.Rect(box.right + size, top, room.right - box.right - size, lower - top)
            self._draw_beside(surface, rows[self._at], beside)
        self._draw_foot(surface, rows[self._at], room)

    def hint(self):
        """The last line: what the keys do here."""
        return "Arrows or D-pad choose and change, Enter takes, Esc goes back"

    def _go(self, rows, step):
        """Choose the next row that can do something; there is always one."""
        for _ in rows:
            self._at = (self._at + step) % len(rows)
            if not rows[self._at].is_heading:
                return

    def _draw_row(self, surface, row, rect, *, is_chosen):
        size = theme.unit(surface)
        if row.is_heading:
            theme.write(surface, row.label, (rect.left + size, rect.centery), size_px=size, face="bold",
                        color=theme.ACCENT, anchor="midleft")
            return
        if is_chosen:
            theme.panel(surface, rect, theme.CAP, radius=size // 3)
        label = theme.shorten(row.label, "text", size, round(0.46 * rect.width))
        theme.write(surface, label, (rect.left + size, rect.centery), size_px=size, anchor="midleft")
        color = theme.ALERT if row.is_alert else theme.INK
        value = theme.shorten(row.value, "bold", size, round(0.44 * rect.width))
        left = rect.left + rect.width // 2
        if row.change and is_chosen:
            for arrow, x in (("<", left - size // 2), (">", rect.right - size // 2)):
                theme.write(surface, arrow, (x, rect.centery), size_px=size, color=theme.ACCENT,
                            anchor="midright")
        theme.write(surface, value, (left, rect.centery), size_px=size, face="bold", color=color,
                    anchor="midleft")

    def _draw_bar(self, surface, box, top, num, line, count):
        """How much of the rows is seen, where not all are."""
        if count > num:
            length = num * line
            thumb = pygame.Rect(box.right + 2, top + length * self._first // count, 4,
                                max(8, length * num // count))
            pygame.draw.rect(surface, theme.MUTED, thumb, border_radius=2)

    def _draw_beside(self, surface, row, box):
        """The picture of the chosen row, as large as it fits, and its details."""
        size = theme.unit(surface)
        lines = [line for text in row.details for line in _wrapped(text, size, box.width)]
        room = box.height - round(1.5 * size) * len(lines) - size
        lower = box.top
        if row.picture is not None and room > 2 * size:
            picture = _loaded(row.picture)
            ratio = min(box.width / picture.get_width(), room / picture.get_height())
            scaled = pygame.transform.smoothscale(picture, (max(1, round(picture.get_width() * ratio)),
                                                            max(1, round(picture.get_height() * ratio))))
            lower = surface.blit(scaled, scaled.get_rect(midtop=(box.centerx, box.top))).bottom + size
        for i, line in enumerate(lines):
            theme.write(surface, line, (box.left, lower + round(1.5 * size) * i), size_px=size)

    def _draw_foot(self, surface, row, box):
        size, height = theme.unit(surface), surface.get_height()
        says = theme.shorten(row.says, "text", size, box.width - 2 * size)
        theme.write(surface, says, (box.centerx, height - round(3.4 * size)), size_px=size, anchor="midtop")
        hint = theme.shorten(self.hint(), "text", size, box.width - 2 * size)
        theme.write(surface, hint, (box.centerx, height - round(1.8 * size)), size_px=size, color=theme.MUTED,
                    anchor="midtop")


@lru_cache(maxsize=64)
def _opened(path):
    try:
        return pygame.image.load(path)
    except (pygame.error, OSError):
        return pygame.Surface((4, 3))  # black: the file is damaged or gone


def _loaded(picture):
    """A pygame Surface, 24 bits, of a path or of uint8 [H W 3]."""
    if isinstance(picture, np.ndarray):
        return pygame.image.frombuffer(picture, picture.shape[1::-1], "RGB")
    surface = pygame.Surface(_opened(picture).get_size(), depth=24)
    surface.blit(_opened(picture), (0, 0))
    return surface


def _wrapped(text, size_px, width_px):
    """The text as rows that fit a width."""
    font = theme.font_for(text, "text", size_px)
    rows = rows_of(text, lambda part: font.size(part)[0], max(1, width_px))
    return [text[start:stop] for start, stop in rows]


class Choices:
    """A row of words of which one is chosen: what the pause offers."""

    def __init__(self, words):
        self.words, self._at, self._places = tuple(words), 0, []

    @property
    def chosen(self):
        return self.words[self._at]

    def move(self, step):
        self._at = (self._at + step) % len(self.words)

    def hit(self, position):
        """The word at a position, which is chosen then; None where there is none."""
        for i, rect in enumerate(self._places):
            if rect.collidepoint(position):
                self._at = i
                return self.words[i]
        return None

    def draw(self, surface, middle):
        """The words side by side, their middle at a position; smaller where the surface is too narrow."""
        size = theme.unit(surface)
        wanted = sum(theme.width(word, "bold", size) + round(2.5 * size) for word in self.words)
        size = max(1, min(size, size * surface.get_width() // wanted))
        widths = [theme.width(word, "bold", size) + 2 * size for word in self.words]
        left = middle[0] - (sum(widths) + size // 2 * (len(widths) - 1)) // 2
        self._places = []
        for i, (word, width) in enumerate(zip(self.words, widths)):
            rect = pygame.Rect(left, 0, width, round(2.0 * size))
            rect.centery = middle[1]
            is_chosen = i == self._at
            theme.panel(surface, rect, theme.ACCENT if is_chosen else theme.CAP, radius=size // 3)
            theme.write(surface, word, rect.center, size_px=size, face="bold", anchor="center",
                        color=theme.NIGHT if is_chosen else theme.INK)
            self._places.append(rect)
            left += width + size // 2
