"""Type, colours and panels that every screen is drawn with."""
import bisect
from functools import cache, lru_cache
from pathlib import Path

import pygame

import worldplay

INK, MUTED, ACCENT, ALERT = (238, 240, 244), (158, 165, 176), (255, 190, 92), (255, 92, 84)
OFF = (98, 104, 114)  # of what can do nothing
NIGHT, PANEL, CAP = (13, 15, 19), (13, 15, 19, 205), (52, 57, 66)
FACES = {"light": "DejaVuSans-ExtraLight.ttf", "text": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf"}

_PACKAGE = Path(worldplay.__file__).parent


def assets():
    """The folder of icon and fonts: inside an installed package, or beside the package in a checkout."""
    return next(path for path in (_PACKAGE / "_data/assets", _PACKAGE.parent / "assets") if path.is_dir())


def unit(surface):
    """Pixels of one line of running text on a surface of this size."""
    return max(11, min(44, round(min(surface.get_height() / 40, surface.get_width() / 52))))


@cache
def font(face, size_px):
    """A face at a size; None is pygame's own font, which also has Greek and Cyrillic letters."""
    path = None if face is None else assets() / "fonts" / FACES[face]
    loaded = pygame.font.Font(path, size_px if face else round(1.4 * size_px))  # pygame makes its own smaller
    loaded.align = pygame.FONT_CENTER  # of the rows of wrapped text
    return loaded


@lru_cache(maxsize=400)
def font_for(text, face, size_px):
    """The font for a text: the face, or pygame's own font where the face lacks a character."""
    ours = font(face, size_px)
    return ours if _has_all(ours, text) else font(None, size_px)


def is_drawable(text):
    """Whether the fonts have every character of a text."""
    return _has_all(font_for(text, "bold", 20), text)


def _has_all(font, text):
    [missing] = font.metrics("\ue000")  # a code point that is no character
    return all(known != missing for known in font.metrics(text.replace(" ", "")))


@lru_cache(maxsize=400)
def _rendered(text, font, color, wrap_px):
    return font.render(text, True, color, wraplength=wrap_px)


def width(text, face, size_px):
    """Pixels that one line of text takes."""
    return font_for(text, face, size_px).size(text)[0]


def picture(text, *, size_px, color=INK, face="text", font=None, wrap_px=0):
    """The text as a surface: one line, or centred rows that are at most `wrap_px` wide.

    font  instead of the one for the face and the text
    """
    return _rendered(text, font or font_for(text, face, size_px), tuple(color), wrap_px)


def write(surface, text, position, *, anchor="topleft", **how):
    """Draw a text, `how` as for `picture`, its `anchor` (of a pygame.Rect) at position; returns its Rect."""
    drawn = picture(text, **how)
    rect = drawn.get_rect(**{anchor: position})
    surface.blit(drawn, rect)
    return rect


def panel(surface, rect, color=PANEL, radius=None):
    """A rounded, translucent rectangle to write on."""
    rect = pygame.Rect(rect)
    sheet = pygame.Surface(rect.size, pygame.SRCALPHA)
    radius = unit(surface) // 2 if radius is None else radius
    pygame.draw.rect(sheet, color, sheet.get_rect(), border_radius=radius)
    surface.blit(sheet, rect)


def veil(surface, strength=170):
    """Darken everything that is on the surface."""
    sheet = pygame.Surface(surface.get_size(), pygame.SRCALPHA)
    sheet.fill((*NIGHT, strength))
    surface.blit(sheet, (0, 0))


def shorten(text, face, size_px, width_px):
    """The text, without its middle where it does not fit: both ends of a path or prompt say something."""
    chosen = font_for(text, face, size_px)
    if chosen.size(text)[0] <= width_px:
        return text
    num_fitting = bisect.bisect_right(range(1, len(text) // 2), width_px,
                                      key=lambda n: chosen.size(_cut(text, n))[0])
    return _cut(text, num_fitting)


def _cut(text, num_kept):
    """So many characters from its start and its end."""
    return f"{text[:num_kept].rstrip()} ... {text[len(text) - num_kept:].lstrip()}"
