"""The gallery: a level of our own, nine bright places of which no two views are alike."""
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from worldplay.envs.doom_map import write_blocks, write_lumps
from worldplay.envs.murals import (
    Colors,
    num_emblems,
    paint_floor,
    paint_plain,
    paint_sky,
    paint_wall,
    paint_wand,
)
from worldplay.envs.palette import Palette
from worldplay.envs.shapes import SHAPES
from worldplay.envs.udmf import SKY, Sector, box, inset, level_blocks, regular, with_points

# Places lie in three rows and columns of cells; between two cells is a gap, which only doorways cross.
_CELL, _GAP = 704, 64
_ORIGINS = tuple(-_CELL // 2 + step * (_CELL + _GAP) for step in (-1, 0, 1))
_DOOR_HEIGHT = 136
# Kerbs too high to step on keep the player so far from walls and pillars that their pictures stay legible.
_KERB_WIDTH, _KERB_HEIGHT = 40, 26
SKY_TEXTURE = "OURSKY"
WEAPON = "Wand"
# moves the picture to the right of and below the middle of the engine's screen of 320 x 200
_WAND_OFFSET = -160, -104
_WAND = """actor Wand : Weapon
{
    Weapon.SlotNumber 1
    +WEAPON.NOALERT
    +WEAPON.AMMO_OPTIONAL
    States
    {
    Ready:
        WAND A 1 A_WeaponReady
        Loop
    Deselect:
        WAND A 1 A_Lower
        Loop
    Select:
        WAND A 1 A_Raise
        Loop
    Fire:
        WAND B 4
        WAND C 4
        WAND A 0 A_ReFire
        Goto Ready
    Spawn:
        TNT1 A -1
        Stop
    }
}
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place, in map units from the lower left corner of its cell.

    cell      (column, row), 0 to 2, from the south-west
    outline   points clockwise, y up; holes: outlines of blocks and pillars, likewise
    low       height of the floor, high of the ceiling or of the walls under the sky
    is_open   whether the sky is its ceiling
    wall, spread, floor  see worldplay.envs.murals.Colors
    pattern, pattern_size  of its floor, see worldplay.envs.murals.paint_floor
    """
    cell: tuple[int, int]
    outline: tuple
    holes: tuple = ()
    low: int = 0
    high: int = 192
    is_open: bool = False
    wall: tuple[float, float, float]
    spread: tuple[float, float] = (0.06, 28.0)
    floor: tuple
    pattern: str
    pattern_size: int = 84

    @property
    def box(self):
        """(left, bottom, right, top) of its cell in the world."""
        left, bottom = (_ORIGINS[at] for at in self.cell)
        return left, bottom, left + _CELL, bottom + _CELL


@dataclass(frozen=True)
class Doorway:
    """A passage from a place to its eastern or northern neighbour.

    at, width  where it begins along the side of the two cells, and how wide it is, in map units
    low        height of its floor
    """
    place: str
    towards: str
    at: int
    width: int = 192
    low: int = 0


def octagon(cut):
    """A whole cell with its corners cut off."""
    far = _CELL - cut
    return (0, cut), (0, far), (cut, _CELL), (far, _CELL), (_CELL, far), (_CELL, cut), (far, 0), (cut, 0)


POND = regular(370, 330, 150, 8)
PLACES = {
    "square": Place(cell=(1, 1), outline=octagon(160), holes=(regular(352, 352, 60, 8),), high=160,
                    is_open=True, wall=(0.83, 0.09, 60), floor=((0.74, 0.05, 75), (0.93, 0.04, 95)),
                     pattern="rings"),
    "hall": Place(cell=(1, 2), outline=box(0, 0, _CELL, 560), high=240, wall=(0.72, 0.16, 10),
                  holes=(box(150, 250, 206, 306), box(500, 250, 556, 306)),
                  floor=((0.62, 0.09, -12), (0.85, 0.06, 14)), pattern="stripes"),
    "gallery": Place(cell=(2, 2), outline=box(0, 0, _CELL, _CELL), high=176, wall=(0.74, 0.13, 305),
                     holes=(box(200, 290, 480, 400),),
                     floor=((0.55, 0.1, 285), (0.82, 0.08, 310)), pattern="tiles"),
    "garden": Place(cell=(2, 1), outline=box(0, 0, _CELL, _CELL), high=160, is_open=True,
                    wall=(0.76, 0.16, 145), holes=(box(120, 540, 270, 588), box(560, 90, 608, 250)),
                    floor=((0.66, 0.13, 130), (0.86, 0.13, 120)), pattern="waves"),
    "terrace": Place(cell=(2, 0), outline=((0, 0), (0, _CELL), (_CELL, _CELL), (_CELL, 300), (404, 0)),
                     low=40, high=196, is_open=True, wall=(0.87, 0.15, 86), spread=(0.05, 16.0),
                     floor=((0.7, 0.14, 45), (0.86, 0.11, 62)), pattern="slant",
                     holes=(regular(300, 330, 64, 3),)),
    "alley": Place(cell=(1, 0), high=216, is_open=True,
                   outline=((0, 110), (0, 430), (192, 430), (192, _CELL), (512, _CELL), (512, 550),
                             (_CELL, 550), (_CELL, 220), (512, 220), (512, 110)),
                    wall=(0.75, 0.12, 255), floor=((0.6, 0.07, 240), (0.86, 0.05, 225)), pattern="rays"),
    "bath": Place(cell=(0, 0), high=168,
                  outline=((0, 0), (0, _CELL), (500, _CELL), (500, 480), (_CELL, 480), (_CELL, 0)),
                  wall=(0.8, 0.11, 190), floor=((0.62, 0.09, 200), (0.88, 0.07, 185)), pattern="spiral",
                  holes=(regular(210, 230, 70, 6),)),
    "tower": Place(cell=(0, 1), outline=octagon(220), high=420, wall=(0.86, 0.06, 330), spread=(0.06, 60.0),
                   holes=(regular(352, 352, 84, 6),),
                   floor=((0.45, 0.03, 280), (0.9, 0.03, 320)), pattern="rays"),
    "yard": Place(cell=(0, 2), outline=((0, 160), (0, 500), (300, _CELL), (_CELL, 560), (_CELL, 0), (160, 0)),
                  high=168, is_open=True, wall=(0.84, 0.16, 118), spread=(0.06, 16.0),
                  holes=(regular(300, 360, 76, 4),),
                  floor=((0.6, 0.11, 25), (0.78, 0.11, 40)), pattern="rings"),
}
DOORWAYS = (
    Doorway("square", "hall", 256), Doorway("square", "garden", 256), Doorway("alley", "square", 256),
    Doorway("tower", "square", 256), Doorway("hall", "gallery", 160), Doorway("yard", "hall", 240),
    Doorway("garden", "gallery", 420), Doorway("terrace", "garden", 180, low=20),
    Doorway("alley", "terrace", 288, low=20), Doorway("bath", "alley", 180),
    Doorway("bath", "tower", 228), Doorway("tower", "yard", 256))


def in_world(place, loop):
    """A loop of a place in map units of the level."""
    left, bottom, *_ = place.box
    return tuple((left + x, bottom + y) for x, y in loop)


def door_loop(door):
    """The four corners of a doorway in the level, clockwise."""
    first, second = PLACES[door.place], PLACES[door.towards]
    left, bottom, right, top = first.box
    if second.cell[0] > first.cell[0]:
        return box(right, bottom + door.at, right + _GAP, bottom + door.at + door.width)
    return box(left + door.at, top, left + door.at + door.width, top + _GAP)


def with_kerb(outline, doors):
    """The outline of the floor inside of a kerb, and the outlines of the parts of the kerb.

    outline  points clockwise; doors: its edges (a, b) that stay free
    """
    first = next(i for i, a in enumerate(outline) if (a, outline[(i + 1) % len(outline)]) in doors)
    points = [*outline[first + 1:], *outline[:first + 1]]  # from the end of a door to its beginning
    floor, kerbs, run = [], [], [points[0]]
    for a, b in zip(points, [*points[1:], points[0]]):
        if (a, b) in doors:
            inner = inset(run, _KERB_WIDTH, is_closed=False)
            floor += [run[0], *inner, run[-1]]
            kerbs.append((*run, *reversed(inner)))
            run = []
        run.append(b)
    return tuple(floor), kerbs


class _Painting:
    """Paints the level's surfaces while its walls are laid, and keeps them by the names of their textures."""

    def __init__(self):
        self.palette = palette = Palette()
        self.textures = {}
        self.white, self.black = palette.index(0.97, 0.01, 100), palette.index(0.25, 0.03, 280)
        self.bright = [palette.index(*color) for color in (
            (0.64, 0.22, 27), (0.9, 0.17, 98), (0.5, 0.19, 262), (0.62, 0.19, 145), (0.72, 0.18, 55),
            (0.5, 0.2, 310))]
        self.colors = {name: Colors(palette, wall=place.wall, spread=place.spread, floor=place.floor)
                       for name, place in PLACES.items()}
        self.water = palette.ramp((0.62, 0.12, 235), (0.82, 0.09, 215), 5)
        self.num_emblems = 0

    def add(self, prefix, picture):
        """Name of the texture that shows `picture`."""
        name = f"{prefix}{len(self.textures):03d}"
        self.textures[name] = picture
        return name

    def next_emblem(self, background):
        """(shape, outer colour, inner colour) of a new emblem that stands out from the colour `background`.

        Colours are indices of the palette.
        """
        number, colors = self.num_emblems, self.palette.colors.astype(int)
        self.num_emblems += 1
        shades = [self.white, self.black, *self.bright]
        far = sorted(shades, key=lambda shade: -np.abs(colors[shade] - colors[background]).sum())[:5]
        outer = far[(number + number // len(SHAPES)) % len(far)]
        others = [shade for shade in shades if np.abs(colors[shade] - colors[outer]).sum() > 200]
        return number % (2 * len(SHAPES)), outer, others[(3 * number + 1) % len(others)]

    def plain(self, background, wall):
        """Name of the texture of a Wall of one colour and one emblem."""
        return self.add("SIDE", paint_plain(int(background), self.next_emblem(int(background)),
                                            height=wall.high - wall.low, length=wall.length))

    def mural(self, name, wall, start, around):
        """Name of the texture of a Wall on the outline of a place; see worldplay.envs.murals.paint_wall."""
        colors = self.colors[name]
        middle = colors.ring_at((start + wall.length / 2) / around)
        emblems = [self.next_emblem(int(middle)) for _ in range(num_emblems(wall.length))]
        return self.add("WALL", paint_wall(
            colors, len(self.textures), height=wall.high - wall.low, start=start, length=wall.length,
            around=around, trim=(colors.dark, self.white, colors.dark), emblems=emblems))


class _Plan:
    """The level's sectors, and what each of its walls shows."""

    def __init__(self):
        self.painting = _Painting()
        self.sectors = []
        # sector -> the name of its place, where it is the floor or a kerb of one
        self._places = {}
        # (place, point of its outline) -> map units along the outline; place -> length of its outline
        self._starts, self._around = {}, {}
        doors = [door_loop(door) for door in DOORWAYS]
        for name, place in PLACES.items():
            self._add_place(name, place, [corner for loop in doors for corner in loop])
        self._add_pond()
        for door, loop in zip(DOORWAYS, doors, strict=True):
            self._add_doorway(door, loop)

    def texture(self, wall):
        """Name of the texture of a Wall of these sectors."""
        paint, name = self.painting, self._places.get(wall.sector)
        if name is None:
            is_pond = self.sectors[wall.sector].low < 0
            return paint.plain(paint.water[0] if is_pond else paint.bright[wall.sector % 6], wall)
        start, colors = self._starts.get((name, wall.a)), paint.colors[name]
        if start is None:  # a pillar, or the side of a kerb
            is_kerb = wall.high - wall.low <= _KERB_HEIGHT
            bright = paint.bright[(paint.num_emblems + wall.sector) % 6]
            return paint.plain(colors.dark if is_kerb else bright, wall)
        sector = self.sectors[wall.sector]
        if wall.high - wall.low < sector.high - sector.low:  # above a door
            return paint.plain(colors.ring_at((start + wall.length / 2) / self._around[name]), wall)
        return paint.mural(name, wall, start, self._around[name])

    def _add_place(self, name, place, corners):
        colors = self.painting.colors[name]
        outline = with_points(in_world(place, place.outline), corners)
        edges = list(zip(outline, (*outline[1:], outline[0])))
        lengths = [np.hypot(b[0] - a[0], b[1] - a[1]) for a, b in edges]
        self._starts |= {(name, a): sum(lengths[:i]) for i, (a, _) in enumerate(edges)}
        self._around[name] = sum(lengths)
        floor, kerbs = with_kerb(outline, {(a, b) for a, b in edges if a in corners and b in corners})
        holes = [tuple(reversed(in_world(place, loop))) for loop in place.holes]
        plinths = [inset(loop, _KERB_WIDTH) for loop in holes]
        ponds = [tuple(reversed(in_world(place, POND)))] if name == "garden" else []
        ceiling = SKY if place.is_open else self._paint("CEIL", colors.ring[[3, 4, 5, 1, 0]], place, 2)
        flat = self._paint("FLOR", colors.floor, place, 1)
        kerb = self.painting.add("FLOR", paint_floor(colors.ring[[2, 4, 6, 0, 9]], "rays", box=place.box))
        for loops, height, texture in (((floor, *plinths, *ponds), 0, flat),
                                       *(((loop,), _KERB_HEIGHT, kerb) for loop in kerbs),
                                       *(((tuple(reversed(outer)), inner), _KERB_HEIGHT, kerb)
                                         for outer, inner in zip(plinths, holes))):
            self._places[len(self.sectors)] = name
            self.sectors.append(Sector(loops=loops, low=place.low + height, high=place.high, floor=texture,
                                       ceiling=ceiling))

    def _paint(self, prefix, colors, place, scale):
        size = scale * place.pattern_size
        return self.painting.add(prefix, paint_floor(colors, place.pattern, size=size, box=place.box))

    def _add_pond(self):
        garden = PLACES["garden"]
        water = self.painting.add("FLOR", paint_floor(self.painting.water, "rings", size=44, box=garden.box))
        self.sectors.append(Sector(loops=(in_world(garden, POND),), low=-16, high=garden.high, floor=water,
                                   ceiling=SKY))

    def _add_doorway(self, door, loop):
        colors = self.painting.colors[door.place]
        floor, ceiling = (self.painting.add(kind, np.full((64, 64), color, np.uint8))
                          for kind, color in (("FLOR", colors.floor[2]), ("CEIL", colors.dark)))
        self.sectors.append(Sector(loops=(loop,), low=door.low, high=door.low + _DOOR_HEIGHT, floor=floor,
                                   ceiling=ceiling))


@lru_cache(maxsize=1)
def _parts():
    """(blocks, [(name, bytes)] of its palette and pictures) of the level."""
    plan = _Plan()
    blocks = level_blocks(plan.sectors, start=(0, -200, 90), texture=plan.texture)
    palette = plan.painting.palette
    sky = paint_sky(palette)
    sprites = [(f"WAND{frame}0", paint_wand(palette, flash))
               for frame, flash in (("A", 0), ("B", 1), ("C", 0.6))]
    pictures = [*((name, palette.png(_whole(picture))) for name, picture in plan.painting.textures.items()),
                (SKY_TEXTURE, palette.png(sky))]
    return blocks, [*palette.lumps(), ("TX_START", b""), *pictures, ("TX_END", b""), ("S_START", b""),
                    *((name, palette.png(picture, offset=_WAND_OFFSET)) for name, picture in sprites),
                    ("S_END", b"")]


def _whole(picture):
    """The picture with black rows added below, to a height that is a power of two, which the engine needs."""
    height = 1 << (picture.shape[0] - 1).bit_length()
    return np.pad(picture, ((0, height - picture.shape[0]), (0, 0)))


def gallery_level(lumps):
    """The level as (bytes of its PWAD, its blocks); the same every time.

    lumps  {name: text} of more lumps; actors in DECORATE may use the class WEAPON
    """
    blocks, pictures = _parts()
    lumps = lumps | {"DECORATE": _WAND + lumps.get("DECORATE", "")}
    level = [("MAP01", b""), ("TEXTMAP", write_blocks(blocks).encode("ascii")), ("ENDMAP", b"")]
    texts = [(name, text.encode("ascii")) for name, text in lumps.items()]
    return write_lumps([*texts, *pictures, *level]), blocks
