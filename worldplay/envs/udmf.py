"""A level from polygons: sectors whose shared edges become passages and whose other edges become walls."""
import math
from dataclasses import dataclass

import numpy as np

SKY = "F_SKY1"
# how many texels of a floor's picture lie on one map unit, along each axis
FLOOR_SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class Sector:
    """A floor and a ceiling over an area; all lengths in map units.

    loops    tuple of loops, each a tuple of points (x, y): the outline clockwise, y up, then holes
             counter-clockwise
    low      height of the floor; high: of the ceiling
    floor    name of the floor's texture; ceiling: of the ceiling's, SKY where it is open
    """
    loops: tuple
    low: int
    high: int
    floor: str
    ceiling: str

    @property
    def edges(self):
        """[(a, b)]: from point a to point b the sector lies to the right."""
        return [edge for loop in self.loops for edge in zip(loop, (*loop[1:], loop[0]))]


@dataclass(frozen=True)
class Wall:
    """A vertical surface seen from a sector: from point a (left) to point b (right), from height low to high.

    sector  number of the sector that it is seen from
    """
    sector: int
    a: tuple[int, int]
    b: tuple[int, int]
    low: int
    high: int

    @property
    def length(self):
        """Its length, rounded to whole map units."""
        return round(math.hypot(self.b[0] - self.a[0], self.b[1] - self.a[1]))


def box(left, bottom, right, top):
    """The four corners of a rectangle, clockwise."""
    return (left, bottom), (left, top), (right, top), (right, bottom)


def regular(x, y, radius, corners):
    """A regular polygon, clockwise, in whole map units."""
    turns = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    return tuple((int(round(x + radius * np.sin(t))), int(round(y + radius * np.cos(t)))) for t in turns)


def with_points(loop, points):
    """The loop with those of the points that lie on its edges put in."""
    made = []
    for a, b in zip(loop, (*loop[1:], loop[0])):
        x, y = b[0] - a[0], b[1] - a[1]
        along = {p: x * (p[0] - a[0]) + y * (p[1] - a[1]) for p in points
                 if x * (p[1] - a[1]) == y * (p[0] - a[0])}
        made += [a, *sorted((p for p in along if 0 < along[p] < x * x + y * y), key=along.get)]
    return tuple(made)


def inset(loop, width, *, is_closed=True):
    """The loop with every edge moved by `width` to its right, its corners rounded to whole map units.

    is_closed  False for a path: its two ends move at right angles to its first and last edge
    """
    points = np.array(loop, float)
    along = np.roll(points, -1, axis=0) - points
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1) / np.hypot(*along.T)[:, None]
    before, after = np.roll(normals, 1, axis=0), normals.copy()
    if not is_closed:
        before[0], after[-1] = after[0], before[-1]
    moved = points + width * (before + after) / (1 + (before * after).sum(1, keepdims=True))
    return tuple((int(x), int(y)) for x, y in np.rint(moved))


def level_blocks(sectors, *, start, texture):
    """A level as worldplay.envs.doom_map.write_blocks takes it.

    sectors  list of Sector; two that touch share whole edges
    start    (x, y, degrees) of the player
    texture  texture(Wall) gives the name of a texture; its first row is drawn at the top of the wall

        Raises ValueError where two sectors lie on the same side of an edge.
    """
    owners = {}
    for number, sector in enumerate(sectors):
        for a, b in sector.edges:
            if (a, b) in owners:
                raise ValueError(f"sectors {owners[a, b]} and {number} both lie to the right of {a} to {b}")
            owners[a, b] = number
    points = sorted({point for edge in owners for point in edge})
    vertices = {point: i for i, point in enumerate(points)}
    lines, sides = [], []

    def side(number, a, b, other):
        this = sectors[number]
        parts = {"middle": (this.low, this.high)} if other is None else {
            "top": (other.high, this.high), "bottom": (this.low, other.low)}
        if other is not None and this.ceiling == other.ceiling == SKY:
            del parts["top"]
        names = {f"texture{part}": f'"{texture(Wall(number, a, b, low, high))}"'
                 for part, (low, high) in parts.items() if high > low}
        sides.append(("sidedef", {"sector": str(number), **names}))
        return str(len(sides) - 1)

    for (a, b), number in owners.items():
        fields = {"v1": str(vertices[a]), "v2": str(vertices[b])}
        if (b, a) not in owners:
            lines.append(("linedef", fields | {"blocking": "true", "sidefront": side(number, a, b, None)}))
        elif a < b:
            other = owners[b, a]
            front = side(number, a, b, sectors[other])
            lines.append(("linedef", fields | {"twosided": "true", "dontpegtop": "true", "sidefront": front,
                                               "sideback": side(other, b, a, sectors[number])}))
    scale = {f"{axis}scale{part}": str(FLOOR_SCALE) for axis in "xy" for part in ("floor", "ceiling")}
    x, y, degrees = start
    return [
        ("thing", {"x": str(x), "y": str(y), "angle": str(degrees), "type": "1",
                   **{f"skill{skill}": "true" for skill in range(1, 6)}, "single": "true"}),
        *(("vertex", {"x": str(x), "y": str(y)}) for x, y in points), *lines, *sides,
        *(("sector", {"heightfloor": str(s.low), "heightceiling": str(s.high), "texturefloor": f'"{s.floor}"',
                      "textureceiling": f'"{s.ceiling}"', "lightlevel": "255", **scale}) for s in sectors)]
