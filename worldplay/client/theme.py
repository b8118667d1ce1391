"""Type, colours and panels that every screen is drawn with."""
import bisect
from functools import cache
from pathlib import Path

import pygame

import worldplay

INK, MUTED, ACCENT, ALERT = (238, 240, 244), (158, 165, 176), (255, 190, 92), (255, 92, 84)
NIGHT, PANEL, CAP = (13, 15, 19), (13, 15, 19, 205), (52, 57, 66)
FACES = {"light": "DejaVuSans-ExtraLight.ttf", "text": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf"}

_PACKAGE = Path(worldplay.__file__).parent


def assets():
    """The folder of icon and fonts: inside an installed package, or beside the package in a checkout."""
    return next(path for path in (_PACKAGE / "_data/assets", _PACKAGE.parent / "assets") if path.is_dir())


def unit(surface):
    """Pixels of one line of running text on a surface of this size."""
    return max(11, min(26, round(min(surface.get_height() / 40, surface.get_width() / 52))))


@cache
def font(face, size_px):
    return pygame.font.Font(assets() / "fonts" / FACES[face], size_px)


@cache
def _rendered(text, face, size_px, color):
    return font(face, size_px).render(text, True, color)


def write(surface, text, position, *, size_px, color=INK, face="text", anchor="topleft"):
    """Draw one line of text with its `anchor` (a pygame.Rect attribute) at position; returns its Rect.

    Lines whose text keeps changing (figures) go through here too: the cache is emptied when it has grown.
    """
    if _rendered.cache_info().currsize > 400:
        _rendered.cache_clear()
    picture = _rendered(text, face, size_px, tuple(color))
    rect = picture.get_rect(**{anchor: position})
    surface.blit(picture, rect)
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


def wrap(text, face, size_px, width_px):
    """The text broken into lines that fit; a word longer than a line stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(face, size_px).size(longer)[0] > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def shorten(text, face, size_px, width_px):
    """The text, its middle left out where it does not fit: the end of a path says as much as a prompt's start."""
    if font(face, size_px).size(text)[0] <= width_px:
        return text
    num_fitting = bisect.bisect_right(range(1, len(text) // 2), width_px,
                                      key=lambda n: font(face, size_px).size(_cut(text, n))[0])
    return _cut(text, num_fitting)


def _cut(text, num_kept):
    """So many characters from its start and its end."""
    return f"{text[:num_kept].rstrip()} ... {text[len(text) - num_kept:].lstrip()}"
