"""Large simple shapes that can be told apart at a size of ten pixels: the emblems on a level's walls."""
import numpy as np

# Each takes u (to the right) and v (up), arrays that run from -1 to 1 over the emblem, and gives its mask.


def _polar(u, v):
    return np.hypot(u, v), np.arctan2(u, v)


def _petals(count, depth):
    def shape(u, v):
        radius, angle = _polar(u, v)
        return radius < 1 - depth + depth * np.cos(count * angle)
    return shape


def _polygon(corners):
    def shape(u, v):
        _, angle = _polar(u, v)
        half = np.pi / corners
        return np.hypot(u, v) * np.cos((angle + half) % (2 * half) - half) < 0.85
    return shape


def _disc(u, v):
    return u ** 2 + v ** 2 < 1


def _roof(u, v):
    return (v > -0.8) & (np.abs(u) < (1 - v) / 1.8)


def _tree(u, v):
    crown = np.abs(u) < 0.85 * np.minimum((1 - v) % 0.6 + 0.25, 1)
    return (crown & (v > -0.55) & (v < 1)) | ((np.abs(u) < 0.18) & (v > -1) & (v < 0))


def _house(u, v):
    return ((np.abs(u) < 0.65) & (v > -0.9) & (v < 0.2)) | ((v >= 0.1) & (np.abs(u) < 1.05 * (1 - v)))


def _fish(u, v):
    return (((u + 0.2) / 0.8) ** 2 + (v / 0.5) ** 2 < 1) | ((u > 0.4) & (u < 1) & (np.abs(v) < u - 0.35))


def _drop(u, v):
    return (u ** 2 + (v + 0.35) ** 2 < 0.42) | ((v > -0.35) & (np.abs(u) < 0.62 * (1 - v) / 1.35))


def _heart(u, v):
    lobes = (np.abs(u) - 0.45) ** 2 + (v - 0.35) ** 2 < 0.27
    return lobes | ((v < 0.35) & (np.abs(u) < 0.65 * (v + 1)) & (np.abs(u) < 0.95))


def _arrow(u, v):
    return ((np.abs(v) < 0.3) & (u > -1) & (u < 0.2)) | ((u >= 0.0) & (np.abs(v) < 0.9 * (1 - u)))


def _bird(u, v):
    return np.abs(v - 0.6 * np.abs(np.sin(1.6 * np.pi * np.abs(u) / 2)) + 0.2) < 0.3 * (1.05 - np.abs(u))


SHAPES = (
    _disc, _polygon(4), _roof, _petals(5, 0.4), lambda u, v: np.minimum(np.abs(u), np.abs(v)) < 0.32,
    _tree, lambda u, v: np.abs(np.hypot(u, v) - 0.72) < 0.27, _house, lambda u, v: np.abs(u) + np.abs(v) < 1,
    _petals(8, 0.2), lambda u, v: _disc(u, v) & ~_disc(1.2 * (u - 0.45), 1.2 * v), _arrow,
    lambda u, v: (np.abs(u) < np.abs(v) + 0.12) & (np.abs(v) < 0.95), _heart, _polygon(3), _fish,
    lambda u, v: np.abs(v - 0.45 * np.sin(2.2 * np.pi * u)) < 0.32, _petals(3, 0.45), _drop,
    lambda u, v: np.abs(np.abs(u) - np.abs(v)) < 0.36, lambda u, v: np.abs((3 * (u + 1)) % 2 - 1) < 0.55,
    lambda u, v: (np.abs(u) < 0.75) & ((v < 0.1) | _disc(u / 0.75, (v - 0.1) / 0.85)),
    lambda u, v: v < np.floor(2 * u + 1) / 2, _bird, _petals(4, 0.35), lambda u, v: _disc(u, v) & (v > -0.1),
    lambda u, v: np.abs((3 * (v + 1)) % 2 - 1) < 0.55, lambda u, v: np.abs(v + 0.3 - 0.9 * np.abs(u)) < 0.34)


def emblem(number, size):
    """(outer, inner): masks bool [size size] of a shape and of the same shape at about half its size inside.

    number  of the shape in SHAPES; from len(SHAPES) on they are upside down
    """
    at = (np.arange(size) + 0.5) / size * 2 - 1
    u, v = np.meshgrid(at, -at)
    if number // len(SHAPES) % 2:
        v = -v
    shape = SHAPES[number % len(SHAPES)]
    inside = (np.abs(u) < 0.98) & (np.abs(v) < 0.98)
    return shape(u, v) & inside, shape(2.1 * u, 2.1 * v) & (np.abs(u) < 0.47) & (np.abs(v) < 0.47)
