"""A page of pictures in rows, of which one is chosen: saved places and clips are shown so."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pygame

from worldplay.client import theme
from worldplay.client.entry import Entry, draw_entry
from worldplay.client.pages import NAVIGATION, Page

COLUMNS = 4


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One picture: frame() gives it, uint8 [H W 3], or None; `title` stands below, `says` at the foot."""
    frame: Callable[[], Any]
    title: str
    says: str = ""


class PicturesPage(Page):
    """Cells that `make_cells` gives anew after every change; what happens to one is the subclass's.

    entry    the worldplay.client.entry.Entry in which a name is written, or None; feed takes its events
    enter(i), write(i), clear(i)   Enter, N with the name that was given, Delete
    """

    def __init__(self, window):
        super().__init__()
        self.entry, self._window = None, window

    def make_cells(self):
        """List of Cell."""
        raise NotImplementedError

    def name_of(self, i):
        """What N begins with, None where there is nothing to name."""
        return None

    def press(self, code):
        cells, way = self.make_cells(), NAVIGATION.get(code)
        if way == "back":
            self.is_over = True
        elif not cells:
            return
        elif way in ("left", "right", "up", "down"):
            step = {"left": -1, "right": 1, "up": -COLUMNS, "down": COLUMNS}[way]
            self._at = min(max(self._at + step, 0), len(cells) - 1)
        elif way == "enter":
            self.enter(self._at)
        elif way == "clear":
            self.clear(self._at)
        elif code == pygame.KSCAN_N and self.name_of(self._at) is not None:
            self.entry = Entry(self.name_of(self._at), self._window.clipboard)
            self._window.take_text(True)
        else:
            self.press_other(code)

    def press_other(self, code):
        """A key that every such page does not have."""

    def feed(self, event):
        """An event while a name is written."""
        ends = (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_ESCAPE)
        if event.type == pygame.KEYDOWN and event.key in ends:
            text, self.entry = self.entry.text.strip(), None
            self._window.take_text(False)
            if text and event.key != pygame.K_ESCAPE:
                self.write(self._at, text)
        else:
            self.entry.feed(event)

    def click(self, position):
        if self.hover(position):
            self.enter(self._at)

    def scroll(self, steps):
        self.press(pygame.KSCAN_UP if steps > 0 else pygame.KSCAN_DOWN)

    def draw(self, surface):
        theme.veil(surface, 225)
        size, cells = theme.unit(surface), self.make_cells()
        self._at = max(0, min(self._at, len(cells) - 1))
        box = pygame.Rect(0, 0, min(surface.get_width() - 2 * size, 64 * size), surface.get_height())
        box.centerx = surface.get_width() // 2
        theme.write(surface, self.title, (box.left, size), size_px=round(2.2 * size), face="light")
        width = box.width // COLUMNS
        height, top = round(0.75 * width) + 2 * size, round(4.4 * size)
        shown = max(1, (surface.get_height() - top - 4 * size) // height)
        self._first = min(max(self._first, self._at // COLUMNS - shown + 1), self._at // COLUMNS)
        self._places = {}
        for i in range(self._first * COLUMNS, min((self._first + shown) * COLUMNS, len(cells))):
            rect = pygame.Rect(box.left + i % COLUMNS * width, top + (i // COLUMNS - self._first) * height,
                               width, height)
            self._places[i] = rect
            self._draw_cell(surface, cells[i], rect.inflate(-size // 2, -size // 3), is_chosen=i == self._at)
        says = cells[self._at].says if cells else self.empty
        for text, y, color in ((says, 3.4, theme.INK), (self.hint(), 1.8, theme.MUTED)):
            theme.write(surface, theme.shorten(text, "text", size, box.width),
                        (box.centerx, surface.get_height() - round(y * size)), size_px=size, color=color,
                        anchor="midtop")
        if self.entry:
            draw_entry(surface, self.entry, "Its name")

    def _draw_cell(self, surface, cell, rect, *, is_chosen):
        size, frame = theme.unit(surface), cell.frame()
        theme.panel(surface, rect, theme.ACCENT if is_chosen else theme.CAP, radius=size // 3)
        place = pygame.Rect(rect.left + 3, rect.top + 3, rect.width - 6, rect.height - round(1.8 * size) - 3)
        pygame.draw.rect(surface, theme.NIGHT, place)
        if frame is not None:
            draw_frame(surface, frame, place)
        title = theme.shorten(cell.title, "bold", size, rect.width - size)
        theme.write(surface, title, (rect.centerx, rect.bottom - round(0.9 * size)), size_px=size,
                    face="bold", color=theme.NIGHT if is_chosen else theme.INK, anchor="center")


def draw_frame(surface, frame, place):
    """A frame, uint8 [H W 3], as large as it fits into the middle of a Rect."""
    height, width = frame.shape[:2]
    ratio = min(place.width / width, place.height / height)
    box = pygame.Rect(0, 0, max(1, round(width * ratio)), max(1, round(height * ratio)))
    box.center = place.center
    picture = pygame.image.frombuffer(frame.tobytes(), (width, height), "RGB").convert(surface)
    pygame.transform.smoothscale(picture, box.size, surface.subsurface(box))
