"""The 256 colours of a level of our own, and pictures of them as PNG files for the engine."""
import struct
import zlib

import numpy as np

SIZE = 256


def oklch(lightness, chroma, hue):
    """sRGB (3 ints, 0 to 255) of an OKLCH colour, clipped to what a screen shows.

    lightness 0 to 1; chroma 0 to about 0.3; hue in degrees. Equal steps of lightness and hue look equal.

    Source: Ottosson, "A perceptual color space for image processing" (2020).
    """
    a, b = chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))
    lms = np.array([lightness + 0.3963377774 * a + 0.2158037573 * b,
                    lightness - 0.1055613458 * a - 0.0638541728 * b,
                    lightness - 0.0894841775 * a - 1.2914855480 * b]) ** 3
    linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292],
                       [-1.2684380046, 2.6097574011, -0.3413193965],
                       [-0.0041960863, -0.7034186147, 1.7076147010]]) @ lms
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(int(x) for x in np.rint(255 * encoded))


class Palette:
    """At most 256 colours, numbered as they are added; index 0 is black, and transparent in sprites."""

    def __init__(self):
        self._indices = {(0, 0, 0): 0}

    def index(self, *color):
        """Index (int) of the OKLCH colour (lightness, chroma, hue), which is added where it is new.

            Raises ValueError when the palette is full.
        """
        rgb = oklch(*color)
        if rgb not in self._indices:
            if len(self._indices) == SIZE:
                raise ValueError(f"the palette's {SIZE} colours are all in use")
            self._indices[rgb] = len(self._indices)
        return self._indices[rgb]

    def ramp(self, start, stop, count):
        """uint8 [count]: indices of colours from one OKLCH colour to another, in equal steps.

        Hues may lie outside of 0 to 360, which says which way round the steps go.
        """
        return np.array([self.index(*color) for color in np.linspace(start, stop, count)], np.uint8)

    @property
    def colors(self):
        """uint8 [256 3], sRGB; black where there is no colour."""
        colors = np.zeros((SIZE, 3), np.uint8)
        colors[:len(self._indices)] = list(self._indices)
        return colors

    def lumps(self):
        """[(name, bytes)] for the engine: the colours, and its tables for tinted and darker ones, unchanging.

        The game's own tables would replace some indices too: those of equal colours in its own palette.
        """
        return [("PLAYPAL", self.colors.tobytes() * 14), ("COLORMAP", bytes(range(SIZE)) * 34)]

    def png(self, picture, *, offset=None):
        """Bytes of a PNG file of palette indices, which the engine maps to exactly these colours.

        picture  uint8 [H W], indices; 0 is transparent where `offset` is given
        offset   (x, y) pixels of a sprite's origin in its picture
        """
        height, width = picture.shape
        rows = np.hstack([np.zeros((height, 1), np.uint8), picture]).tobytes()  # each row unfiltered
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))]
        if offset is not None:
            chunks.append((b"grAb", struct.pack(">ii", *offset)))
        chunks.append((b"PLTE", self.colors.tobytes()))
        if offset is not None:
            chunks.append((b"tRNS", b"\0"))
        chunks += [(b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks)
