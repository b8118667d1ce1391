"""What is written over the running picture: figures, help, badges and notices."""
import pygame

from worldplay.client import theme

BARS = 90  # frames in the graph: 5 s at 17.5 frames per second


def draw_figures(surface, rows, note=""):
    """The F3 panel, in the upper left corner; a note stands below it, so that the panel stays as it is.

    Returns its lower edge.
    """
    size = theme.unit(surface)
    pad, line = size, round(1.55 * size)
    labels = max(theme.width(label, "text", size) for label, _ in rows)
    values = max(theme.width(value, "bold", size) for _, value in [("", "000.0 / 000.0 ms"), *rows])
    box = pygame.Rect(pad, pad, labels + values + 4 * pad, line * len(rows) + round(1.5 * pad))
    theme.panel(surface, box)
    for i, (label, value) in enumerate(rows):
        y = box.top + pad + i * line
        theme.write(surface, label, (box.left + round(1.3 * pad), y), size_px=size, color=theme.MUTED)
        theme.write(surface, value, (box.right - round(1.3 * pad), y), size_px=size, face="bold",
                    anchor="topright")
    lower = box.bottom
    if note:
        width = theme.width(note, "text", size) + round(2.6 * pad)
        below = pygame.Rect(pad, box.bottom + size // 2, width, round(2.2 * size))
        theme.panel(surface, below)
        theme.write(surface, note, below.center, size_px=size, color=theme.ACCENT, anchor="center")
        lower = below.bottom
    return lower


def draw_graph(surface, work, period, upper):
    """The time of each of the latest frames as a bar, below `upper`; the line is the time there is for one.

    work  seconds of up to BARS frames;  period  seconds that a frame lasts
    """
    size = theme.unit(surface)
    step = max(1, size // 6)
    box = pygame.Rect(size, upper + size // 2 if upper else size, BARS * step + 2 * size, 7 * size)
    theme.panel(surface, box)
    floor, height = box.bottom - size // 2, 4 * size
    theme.write(surface, f"time of a frame; line: {1000 * period:.0f} ms", color=theme.MUTED,
                position=(box.left + size, box.top + size // 3), size_px=round(0.85 * size))
    for i, seconds in enumerate(work):
        length = max(1, round(min(seconds / period, 2.0) * height / 2))
        bar = pygame.Rect(box.left + size + i * step, floor - length, max(1, step - step // 3), length)
        pygame.draw.rect(surface, theme.ALERT if seconds > period else theme.INK, bar)
    pygame.draw.line(surface, theme.ACCENT, (box.left + size, floor - height // 2),
                     (box.right - size, floor - height // 2))


def draw_help(surface, world_rows, client_rows, idle=()):
    """The F1 panel: every key that does something here; `idle` as in draw_all_keys."""
    size = theme.unit(surface)
    line = round(2.0 * size)
    rows = max(len(world_rows), (len(client_rows) + 1) // 2)
    box = pygame.Rect(0, 0, min(surface.get_width() - size, 51 * size), line * rows + 5 * size)
    box.center = surface.get_rect().center
    theme.panel(surface, box, (*theme.NIGHT, 228))
    top = box.top + round(1.5 * size)
    draw_all_keys(surface, world_rows, client_rows, (box.left + size, top), idle)


def draw_all_keys(surface, world_rows, client_rows, position, idle=()):
    """Every key that does something here, in three columns: those of the world, and of the window.

    idle  what is said of those that can do nothing now, which are greyed
    """
    size, half, (x, y) = theme.unit(surface), (len(client_rows) + 1) // 2, position
    draw_keys(surface, "In this world", world_rows, position)
    draw_keys(surface, "Window", client_rows[:half], (x + 14 * size, y), idle)
    draw_keys(surface, "", client_rows[half:], (x + 33 * size, y), idle)


def draw_keys(surface, title, rows, position, idle=()):
    """A column of key caps with what they do, under a title."""
    size = theme.unit(surface)
    line, (x, y) = round(2.0 * size), position
    theme.write(surface, title, (x, y), size_px=size, color=theme.ACCENT, face="bold")
    caps = max((theme.width(label, "bold", round(0.85 * size)) for label, _ in rows), default=0) + size
    for i, (label, says) in enumerate(rows):
        middle = y + round(2.6 * size) + i * line
        width = max(theme.width(label, "bold", round(0.85 * size)) + size, round(1.7 * size))
        cap = pygame.Rect(x, 0, width, round(1.6 * size))
        cap.centery = middle
        theme.panel(surface, cap, theme.CAP, radius=size // 3)
        color = theme.OFF if says in idle else theme.INK
        theme.write(surface, label, cap.center, size_px=round(0.85 * size), face="bold", anchor="center",
                    color=color)
        theme.write(surface, says, (x + max(caps, round(1.7 * size)) + size, middle), size_px=size,
                    anchor="midleft", color=color)


def draw_beside(surface, boxes, says):
    """Names of the pictures of the dream and the real game, and how near they are, in a row below them: the
    figures take the upper part.

    boxes  {name: pygame.Rect} of those that are shown, one or two
    """
    size = theme.unit(surface)
    height = round(1.8 * size)
    lower = max(box.bottom for box in boxes.values()) + height + size // 2
    lower = min(surface.get_height() - size // 2, lower)
    for i, (name, box) in enumerate(boxes.items()):
        plate = pygame.Rect(0, lower - height, theme.width(name, "bold", size) + 2 * size, height)
        plate.left = box.right - plate.width - size // 2 if i else box.left + size // 2
        theme.panel(surface, plate)
        theme.write(surface, name, plate.center, size_px=size, face="bold", color=theme.ACCENT,
                    anchor="center")
    if says:
        plate = pygame.Rect(0, 0, theme.width(says, "text", size) + 2 * size, height)
        plate.midbottom = surface.get_width() // 2, lower
        theme.panel(surface, plate)
        theme.write(surface, says, plate.center, size_px=size, anchor="center")


def draw_badge(surface, text, hint, lower):
    """A short state near the lower edge, above the notices, which begin at `lower`: Paused."""
    size = theme.unit(surface)
    width = theme.width(text, "bold", size) + theme.width(hint, "text", size) + 4 * size
    box = pygame.Rect(0, 0, width, round(2.4 * size))
    box.midbottom = (surface.get_width() // 2, min(surface.get_height() - 5 * size, lower - size // 2))
    theme.panel(surface, box)
    said = theme.write(surface, text, (box.left + round(1.4 * size), box.centery), size_px=size, face="bold",
                       color=theme.ACCENT, anchor="midleft")
    theme.write(surface, hint, (said.right + size, box.centery), size_px=size, color=theme.MUTED,
                anchor="midleft")


def draw_rewinding(surface, gone, most, lower):
    """How far play has gone back, of how far it can, in seconds: a bar that grows to the left."""
    size = theme.unit(surface)
    box = pygame.Rect(0, 0, 32 * size, round(3.6 * size))
    box.midbottom = (surface.get_width() // 2, min(surface.get_height() - 5 * size, lower - size // 2))
    theme.panel(surface, box)
    y = box.top + round(1.2 * size)
    theme.write(surface, f"{gone:.1f} s back", (box.left + round(1.4 * size), y), size_px=size, face="bold",
                color=theme.ACCENT, anchor="midleft")
    theme.write(surface, f"of {most:.0f} s; release to go on from here", (box.right - round(1.4 * size), y),
                size_px=size, color=theme.MUTED, anchor="midright")
    track = pygame.Rect(0, 0, box.width - round(2.8 * size), max(3, size // 4))
    track.midtop = (box.centerx, box.top + round(2.5 * size))
    pygame.draw.rect(surface, theme.CAP, track, border_radius=track.height)
    filled = track.copy()
    filled.width = max(track.height, round(track.width * min(1.0, gone / most if most else 0.0)))
    filled.right = track.right
    pygame.draw.rect(surface, theme.ACCENT, filled, border_radius=track.height)


def draw_recording(surface, seconds):
    """The red dot and the length of the clip, in the upper right corner."""
    size = theme.unit(surface)
    box = pygame.Rect(0, size, round(6.2 * size), round(2.2 * size))
    box.right = surface.get_width() - size
    theme.panel(surface, box)
    dot = (box.left + round(1.4 * size), box.centery)
    pygame.draw.aacircle(surface, theme.ALERT, dot, round(0.42 * size))
    minutes, rest = divmod(int(seconds), 60)
    theme.write(surface, f"{minutes}:{rest:02d}", (box.right - round(1.2 * size), box.centery), size_px=size,
                face="bold", anchor="midright")


def draw_notice(surface, text, lower=None, *, is_over_text=False):
    """A passing message over as many rows as it needs, above `lower` (None: the edge); returns its Rect."""
    size = theme.unit(surface)
    drawn = theme.picture(text, size_px=size, wrap_px=surface.get_width() - 6 * size)
    box = drawn.get_rect().inflate(3 * size, size)
    box.midbottom = (surface.get_width() // 2, (surface.get_height() if lower is None else lower) - size)
    theme.panel(surface, box, (*theme.NIGHT, 250) if is_over_text else theme.PANEL)
    surface.blit(drawn, drawn.get_rect(center=box.center))
    return box
