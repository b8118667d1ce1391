"""The screens that stand still: loading, pause and failure."""
import math

import pygame

from worldplay.client import hud, theme


def draw_loading(surface, what, seconds):
    """Shown while a world opens: `what` is being done, and a bar that moves while the window is alive."""
    size = theme.unit(surface)
    middle = surface.get_rect().center
    surface.fill(theme.NIGHT)
    theme.write(surface, "worldplay", (middle[0], middle[1] - 3 * size), size_px=4 * size, face="light",
                anchor="center")
    track = pygame.Rect(0, 0, 16 * size, max(2, size // 6))
    track.center = (middle[0], middle[1] + size)
    pygame.draw.rect(surface, theme.CAP, track, border_radius=track.height)
    slider = pygame.Rect(0, track.top, 4 * size, track.height)
    slider.centerx = track.centerx - round(math.cos(2.2 * seconds) * (track.width - slider.width) / 2)
    pygame.draw.rect(surface, theme.ACCENT, slider, border_radius=track.height)
    what = theme.shorten(what, "text", size, surface.get_width() - 2 * size)
    theme.write(surface, what, (middle[0], middle[1] + 3 * size), size_px=size, color=theme.MUTED,
                anchor="center")


def draw_pause(surface, world_rows, client_rows, chosen, text, choices, idle=()):
    """Over the darkened picture: what can be done (pages.Choices), the world's text, all keys, settings.

    idle  as in hud.draw_all_keys
    """
    size = theme.unit(surface)
    theme.veil(surface)
    middle, height = surface.get_width() // 2, surface.get_height()
    block = round(2.0 * size) * max(len(world_rows), (len(client_rows) + 1) // 2) + 14 * size
    top = max(size, (height - block) // 2 - size)
    theme.write(surface, "Paused", (middle, top), size_px=3 * size, face="light", anchor="midtop")
    theme.write(surface, "Click to go on, Esc to quit", (middle, top + round(4.4 * size)), size_px=size,
                color=theme.ACCENT, anchor="midtop")
    choices.draw(surface, (middle, top + round(7.4 * size)))
    theme.write(surface, theme.shorten(text, "text", size, surface.get_width() - 4 * size),
                (middle, top + round(8.9 * size)), size_px=size, color=theme.MUTED, anchor="midtop")
    left, keys = max(size // 2, middle - 25 * size), top + round((11.2 if text else 10) * size)
    hud.draw_all_keys(surface, world_rows, client_rows, (left, keys), idle)
    theme.write(surface, chosen, (middle, height - size), size_px=size, color=theme.MUTED,
                anchor="midbottom")


def draw_failure(surface, message, log_hint, choices):
    """A world that cannot be opened or go on: what, where and the remedy, in full."""
    surface.fill(theme.NIGHT)
    _write_failure(surface, "That did not work", message, log_hint, "Esc closes the window", choices)


def draw_stopped(surface, message, log_hint, says, choices):
    """Over the darkened picture: a step that failed, and what can be done."""
    theme.veil(surface, 215)
    _write_failure(surface, "The world has stopped", message, log_hint, says, choices)


def _write_failure(surface, title, message, log_hint, says, choices):
    """The title, the message over as many rows as it needs, where its details are, and what can be done."""
    size, middle = theme.unit(surface), surface.get_rect().center
    text = theme.picture(message, size_px=round(1.1 * size), wrap_px=surface.get_width() - 8 * size)
    rect = surface.blit(text, text.get_rect(center=middle))
    for line, y, how in (
            (title, rect.top - round(2.6 * size), {"size_px": round(2.4 * size), "face": "light"}),
            (log_hint, rect.bottom + 2 * size, {"size_px": size, "color": theme.MUTED}),
            (says, rect.bottom + round(3.8 * size), {"size_px": size, "color": theme.ACCENT})):
        theme.write(surface, line, (middle[0], y), anchor="center", **how)
    choices.draw(surface, (middle[0], min(rect.bottom + 7 * size, surface.get_height() - 2 * size)))
