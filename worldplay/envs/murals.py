"""Pictures for a level of our own, in large flat shapes of bright colours: walls, floors, sky and wand."""
import numpy as np

from worldplay.envs.shapes import emblem
from worldplay.envs.udmf import FLOOR_SCALE

_FLOOR_SIZE = 512  # texels; at FLOOR_SCALE they cover the largest place once
_SKY_SIZE = 256, 1024  # texels; the width is the whole circle
_EMBLEM_SIZE, _EMBLEM_EVERY = 124, 300  # map units
_SKIRTING, _CORNICE, _PILASTER = 10, 12, 12  # map units


class Colors:
    """Colours of one place of a level, as indices of a Palette.

    ring   uint8 [r]: of the walls, once round the place; neighbours differ little and no two are the same
    hills  uint8 [h]: of the hills painted on the walls, likewise
    floor  uint8 [5]: from dark to light
    dark   of skirtings
    """

    def __init__(self, palette, *, wall, spread, floor, steps=11):
        """wall: OKLCH of its walls on average; spread: (lightness, hue) by which they differ from it at most.
        floor: (OKLCH of the darkest, of the lightest); steps: colours of the ring.
        """
        def around(count, shift):
            turns = 2 * np.pi * np.arange(count) / count
            return np.array([palette.index(lightness + shift + spread[0] * np.cos(t), chroma,
                                           hue + spread[1] * np.sin(t)) for t in turns], np.uint8)
        lightness, chroma, hue = wall
        self.ring, self.hills = around(steps, 0), around(5, -0.12)
        self.floor = palette.ramp(*floor, 5)
        self.dark = palette.index(lightness - 0.3, chroma * 0.75, hue)

    def ring_at(self, share):
        """Colour of the walls at a share, an array or a number, of the way round the place."""
        return self.ring[(np.asarray(share) % 1 * len(self.ring)).astype(int)]


def paint_wall(colors, number, *, height, start, length, around, trim, emblems):
    """uint8 [H W], indices of a palette: a wall with emblems and a row of hills that no other wall has.

    colors          Colors of its place
    number          of the wall; another number gives other hills
    height, length  of the wall in map units, which are texels
    start, around   where it begins on the way round its place, and the length of that way
    trim            indices of the colours of the cornice and of its left and right ends
    emblems         [(number of the shape, outer colour, inner colour)], one every few steps along the wall
    """
    rng = np.random.default_rng([number, 3])
    x, up = np.arange(length) + 0.5, height - np.arange(height)[:, None] - 0.5
    share = (start + x) / around % 1
    picture = np.repeat(colors.ring_at(share)[None], height, axis=0)
    waves = zip((22, 12), rng.uniform((210, 90), (400, 160)), rng.uniform(0, 2 * np.pi, 2))
    top = 44 + sum(size * np.sin(2 * np.pi * x / length_ + phase) for size, length_, phase in waves)
    hill = np.broadcast_to(colors.hills[(share * len(colors.hills)).astype(int)], picture.shape)
    picture = np.where(up < top, hill, picture)
    for i, (shape, outer, inner) in enumerate(emblems):
        center = length * (i + 0.5) / len(emblems)
        _stamp(picture, shape, outer, inner, size=min(_EMBLEM_SIZE, length - 2 * _PILASTER, height - 30),
               center=(center, height - min(104, height // 2 + 4)))
    cornice, left, right = trim
    picture[:_CORNICE], picture[-_SKIRTING:] = cornice, colors.dark
    picture[:, :_PILASTER], picture[:, -_PILASTER:] = left, right
    return picture


def num_emblems(length):
    """How many emblems a wall of that length has."""
    return 0 if length < 90 else max(1, round(length / _EMBLEM_EVERY))


def paint_plain(color, mark, *, height, length):
    """uint8 [H W]: one colour with one emblem (see paint_wall), for jambs, steps, lintels and pillars."""
    picture = np.full((height, length), color, np.uint8)
    size = min(length - 4, height - 4, _EMBLEM_SIZE)
    if size >= 24:
        _stamp(picture, *mark, size=size, center=(length / 2, height / 2 if height < 128 else height - 70))
    return picture


def _stamp(picture, shape, outer, inner, *, size, center):
    left, top = (int(round(at - size / 2)) for at in center)
    part = picture[top:top + size, left:left + size]
    for mask, color in zip(emblem(shape, size), (outer, inner)):
        part[mask] = color


# Floors ----------------------------------------------------------------------------------------------------

def _rings(x, y, size):
    return np.hypot(x, y) / size


def _rays(x, y, size):
    return np.arctan2(y, x) / np.pi * 6


def _stripes(x, y, size):
    return x / size


def _slant(x, y, size):
    return (x + y) / (1.4 * size)


def _waves(x, y, size):
    return (y + 36 * np.sin(x / 70)) / size


def _spiral(x, y, size):
    return np.hypot(x, y) / (1.6 * size) + np.arctan2(y, x) / np.pi


def _tiles(x, y, size):
    return np.floor(x / (1.3 * size)) + np.floor(y / (1.3 * size))


PATTERNS = {"rings": _rings, "rays": _rays, "stripes": _stripes, "slant": _slant, "waves": _waves,
            "spiral": _spiral, "tiles": _tiles}


def paint_floor(colors, pattern, *, box, size=84):
    """uint8 [512 512]: a floor or ceiling over the place in `box`, lying in the world as the engine lays it.

    colors   uint8 [5], from dark to light: the pattern alternates between two of them that are two apart, and
             both become lighter towards one corner
    pattern  name in PATTERNS; size: map units of one of its parts
    box      (left, bottom, right, top) in map units
    """
    left, bottom, right, top = box
    texels = (np.arange(_FLOOR_SIZE) + 0.5) / FLOOR_SCALE
    period = _FLOOR_SIZE / FLOOR_SCALE
    x = left + (texels - left) % period
    y = top - (texels + top) % period
    x, y = np.meshgrid(x - (left + right) / 2, y - (bottom + top) / 2)
    odd = np.floor(PATTERNS[pattern](x, y, size)).astype(int) % 2
    share = 0.5 + (x / (right - left) + y / (top - bottom)) / 2
    return np.asarray(colors)[(3 * share).clip(0, 2).astype(int) + 2 * odd]


# Sky and wand ----------------------------------------------------------------------------------------------

def paint_sky(palette):
    """uint8 [256 1024], the whole circle: hues, mountains, sun, moon and clouds, which show the direction."""
    height, width = _SKY_SIZE
    turn, up = np.meshgrid(np.arange(width) / width, np.linspace(1, 0, height))
    hues = 8
    tones = np.array([[palette.index(light, chroma, 215 + 65 * np.sin(2 * np.pi * (k + 0.5) / hues)
                                     + (90 if k in (2, 3) else 0) * (light > 0.85))
                       for light, chroma in ((0.93, 0.045), (0.86, 0.07), (0.78, 0.1))]
                      for k in range(hues)], np.uint8)
    wobble = 0.02 * np.sin(2 * np.pi * 3 * turn)
    picture = tones[(turn * hues).astype(int), (3 * (up + wobble).clip(0, 0.999)).astype(int)]
    white, sun, moon = (palette.index(*color)
                        for color in ((0.99, 0.01, 100), (0.9, 0.17, 95), (0.97, 0.03, 250)))
    for at, high, wide, tall in ((0.10, 0.72, 60, 16), (0.13, 0.66, 42, 20), (0.45, 0.8, 80, 14),
                                 (0.62, 0.62, 50, 18), (0.66, 0.68, 64, 12), (0.87, 0.74, 46, 22)):
        picture[((turn - at) * width / wide) ** 2 + ((up - high) * height / tall) ** 2 < 1] = white
    picture[((turn - 0.27) * width / 44) ** 2 + ((up - 0.7) * height / 44) ** 2 < 1] = sun
    picture[(((turn - 0.77) * width / 34) ** 2 + ((up - 0.8) * height / 34) ** 2 < 1)
            & (((turn - 0.785) * width / 34) ** 2 + ((up - 0.84) * height / 34) ** 2 > 1)] = moon
    far = 0.46 + 0.06 * np.sin(2 * np.pi * (2 * turn + 0.1)) + 0.05 * np.sin(2 * np.pi * (5 * turn + 0.4))
    zigzag = np.abs((7 * turn + 0.35 * np.sin(2 * np.pi * turn)) % 1 - 0.5)
    peaks = 0.34 + 0.13 * zigzag * (1 + np.cos(2 * np.pi * turn))
    picture[up < far] = palette.index(0.72, 0.06, 265)
    picture[up < peaks + 0.04] = palette.index(0.6, 0.08, 285)
    return picture


def paint_wand(palette, flash):
    """uint8 [96 96]: a wand whose tip flashes with brightness `flash`, 0 to 1; index 0 is transparent."""
    x, up = np.meshgrid(np.arange(96) + 0.5, 96 - np.arange(96) - 0.5)
    picture = np.zeros((96, 96), np.uint8)
    wood, light, gold = (palette.index(*color)
                         for color in ((0.45, 0.09, 50), (0.62, 0.1, 60), (0.85, 0.16, 90)))
    shaft = x - 58 + 0.32 * (up - 20)  # 0 along its middle
    picture[(np.abs(shaft) < 6) & (up < 56)] = wood
    picture[(shaft > 0) & (shaft < 4) & (up < 56)] = light
    radius = np.hypot(x - 45, up - 62)
    angle = np.arctan2(x - 45, up - 62)
    if flash:
        rays = radius < flash * (24 + 9 * np.cos(8 * angle))
        picture[rays] = palette.index(0.95, 0.12, 100)
        picture[radius < 17 * flash] = palette.index(0.99, 0.01, 100)
    else:
        picture[radius < 10] = gold
        picture[np.hypot(x - 47, up - 64) < 4] = palette.index(0.99, 0.01, 100)
    return picture
