"""Doom levels as bytes and text: take a WAD apart, keep its walls, drop its rules, write it again."""
import re
import struct

import numpy as np

_BLOCK = re.compile(r"^(\w+)[^\n{]*\n\{(.*?)\}", re.S | re.M)
_FIELD = re.compile(r"(\w+)\s*=\s*([^;]+);")
_PLAYER_START = "1"
_DAMAGE = ("special", "damageamount", "damageinterval", "leakiness")


def read_lumps(data):
    """[(name, bytes)] of a WAD in its order.

        Raises ValueError if `data` is not a WAD.
    """
    if data[:4] not in (b"PWAD", b"IWAD"):
        raise ValueError("not a WAD: it does not start with PWAD or IWAD")
    count, directory = struct.unpack_from("<ii", data, 4)
    lumps = []
    for i in range(count):
        start, size, name = struct.unpack_from("<ii8s", data, directory + 16 * i)
        lumps.append((name.rstrip(b"\0").decode("ascii"), data[start:start + size]))
    return lumps


def write_lumps(lumps):
    """The bytes of a PWAD that holds [(name, bytes)]; the inverse of `read_lumps`."""
    body, directory = b"", b""
    for name, content in lumps:
        directory += struct.pack("<ii8s", 12 + len(body), len(content), name.encode("ascii"))
        body += content
    return struct.pack("<4sii", b"PWAD", len(lumps), 12 + len(body)) + body + directory


def read_blocks(textmap):
    """[(kind, {field: value text})] of a level in the Universal Doom Map Format."""
    return [(kind, {name: value.strip() for name, value in _FIELD.findall(body)})
            for kind, body in _BLOCK.findall(textmap)]


def write_blocks(blocks):
    """The text of `read_blocks`."""
    texts = [kind + "\n{\n" + "".join(f"{name} = {value};\n" for name, value in fields.items()) + "}\n"
             for kind, fields in blocks]
    return 'namespace = "zdoom";\n' + "\n".join(texts)


def calm_level(wad, *, keep_things, textures, light, lumps):
    """A copy of a level in which nothing happens by itself: no scripts, no hurting floors, one player start.

    wad          bytes of a PWAD with one UDMF level
    keep_things  whether decoration and pick-ups stay
    textures     {texture name: the one to show instead}
    light        brightness of every sector, 0 to 255, or None for the level's own
    lumps        {name: text} put before the level, replacing lumps of that name
    Returns      (bytes of the new PWAD, blocks of its level)
    """
    old = read_lumps(wad)
    blocks = []
    for kind, fields in read_blocks(dict(old)["TEXTMAP"].decode("ascii")):
        if kind == "thing" and fields["type"] != _PLAYER_START and not keep_things:
            continue
        if kind == "thing" and fields["type"] == _PLAYER_START and any(
                other.get("type") == _PLAYER_START for k, other in blocks if k == "thing"):
            continue
        if kind == "sector":
            fields = {name: value for name, value in fields.items() if name not in _DAMAGE}
            fields |= {} if light is None else {"lightlevel": str(light)}
        blocks.append((kind, {name: _texture(name, value, textures) for name, value in fields.items()}))
    replaced = {"TEXTMAP": write_blocks(blocks).encode("ascii")}
    dropped = {"BEHAVIOR", "SCRIPTS", "DIALOGUE", *lumps}
    level = [(name, replaced.get(name, content)) for name, content in old if name not in dropped]
    return write_lumps([*((name, text.encode("ascii")) for name, text in lumps.items()), *level]), blocks


def _texture(field, value, textures):
    name = value.strip('"')
    return f'"{textures.get(name, name)}"' if field.startswith("texture") else value


class Floor:
    """The part of a level one can stand on, for drawing places to start from.

    blocks  a level as `read_blocks` gives it
    """

    def __init__(self, blocks):
        def all_of(kind):
            return [fields for k, fields in blocks if k == kind]
        corners = np.array([[float(v["x"]), float(v["y"])] for v in all_of("vertex")])
        lines = all_of("linedef")
        self._a = corners[[int(line["v1"]) for line in lines]]
        self._b = corners[[int(line["v2"]) for line in lines]]
        sectors = [int(side["sector"]) for side in all_of("sidedef")]
        # -1 where a line has no side, that is outside of the level
        self._front = np.array([sectors[int(line["sidefront"])] for line in lines])
        self._back = np.array([sectors[int(line["sideback"])] if "sideback" in line else -1
                               for line in lines])
        self._low, self._high = corners.min(0), corners.max(0)

    @property
    def bounds(self):
        """Two float [2]: the least and the largest x, y of the level."""
        return self._low, self._high

    @property
    def lines(self):
        """float [l 2 2]: the two ends of every line."""
        return np.stack([self._a, self._b], axis=1)

    def sector(self, point):
        """Number of the sector at (x, y), -1 outside of the level."""
        (x, y), a, b = point, self._a, self._b
        crosses = (a[:, 1] > y) != (b[:, 1] > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
        hits = np.flatnonzero(crosses & (at > x))
        if not len(hits):
            return -1
        nearest = hits[np.argmin(at[hits])]
        # a line's front is to the right of the way from v1 to v2, and the point lies west of the line
        side = self._back if self._b[nearest, 1] > self._a[nearest, 1] else self._front
        return int(side[nearest])

    def clearance(self, point):
        """Map units from (x, y) to the nearest line of the level."""
        along = self._b - self._a
        share = ((point - self._a) * along).sum(1) / (along ** 2).sum(1)
        nearest = self._a + np.clip(share, 0, 1)[:, None] * along
        return float(np.sqrt(((point - nearest) ** 2).sum(1).min()))

    def draw(self, rng, *, room):
        """A random place (x, y) of the level, at least `room` map units from every line."""
        for _ in range(10_000):
            point = rng.uniform(self._low, self._high)
            if self.sector(point) >= 0 and self.clearance(point) >= room:
                return point
        raise ValueError(f"this level has no place {room} map units away from every line")
