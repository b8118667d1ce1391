"""A level from polygons: sectors whose shared edges become passages and whose other edges become walls."""
import math
from dataclasses import dataclass

SKY = "F_SKY1"
# how many texels of a floor's picture lie on one map unit, along each axis
FLOOR_SCALE = 0.5


@dataclass(frozen=True, kw_only=True)
class Sector:
    """A floor and a ceiling over an area; all lengths in map units.

    loops    tuple of loops, each a tuple of points (x, y): the outline clockwise, y up, then holes counter-clockwise
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
