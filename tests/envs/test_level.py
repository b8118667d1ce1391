"""The gallery: well-formed, all within reach on foot, no two walls alike, no aliasing."""
import io
from collections import deque

import numpy as np
import pytest
from PIL import Image

import train_world
from worldplay.action import Action
from worldplay.envs import open_env
from worldplay.envs.collect import play_rollout
from worldplay.envs.doom import area_average
from worldplay.envs.doom_map import Floor, read_blocks, read_lumps
from worldplay.envs.gallery import DOORWAYS, PLACES, door_loop, gallery_level
from worldplay.envs.palette import Palette
from worldplay.envs.players import PLAYERS
from worldplay.envs.udmf import SKY, Sector, inset, level_blocks, with_points

STEP, HEADROOM = 24, 56  # map units that Doom's player can step up, and needs above the floor


@pytest.fixture(scope="module")
def level():
    wad, blocks = gallery_level({"MAPINFO": "map MAP01"})
    return read_lumps(wad), blocks


@pytest.fixture(scope="module")
def gallery():
    world = open_env("doom-gallery")
    world.reset(seed=0)
    yield world
    world.close()


def all_of(blocks, kind):
    return [fields for other, fields in blocks if other == kind]


def textures(blocks):
    """Names of all textures of a level."""
    return {value.strip('"') for _, fields in blocks for name, value in fields.items()
            if name.startswith("texture")}


# --- the file

def test_level_is_the_same_every_time_and_reads_back(level):
    lumps, blocks = level
    assert read_lumps(gallery_level({"MAPINFO": "map MAP01"})[0]) == lumps
    assert read_blocks(dict(lumps)["TEXTMAP"].decode("ascii")) == blocks
    names = [name for name, _ in lumps]
    assert names[0] == "MAPINFO" and names[-3:] == ["MAP01", "TEXTMAP", "ENDMAP"]
    for begin, end in (("TX_START", "TX_END"), ("S_START", "S_END")):
        assert names.index(begin) < names.index(end)
    assert max(len(name) for name in names) <= 8 and len(set(names)) == len(names)


def test_every_line_has_its_corners_sides_and_sectors(level):
    _, blocks = level
    vertices, lines, sides, sectors = (
        all_of(blocks, kind) for kind in ("vertex", "linedef", "sidedef", "sector"))
    ends = {int(line[end]) for line in lines for end in ("v1", "v2")}
    used = sorted(int(line[side]) for line in lines for side in ("sidefront", "sideback") if side in line)
    assert ends == set(range(len(vertices))) and used == list(range(len(sides)))
    assert {int(side["sector"]) for side in sides} == set(range(len(sectors)))
    assert all(("sideback" in line) == ("twosided" in line) for line in lines)
    assert len({(vertex["x"], vertex["y"]) for vertex in vertices}) == len(vertices)


def test_every_texture_is_our_own_and_every_picture_is_used(level):
    lumps, blocks = level
    names = [name for name, _ in lumps]
    own = set(names[names.index("TX_START") + 1:names.index("TX_END")])
    assert textures(blocks) - {SKY} == own - {"OURSKY"}
    for name, content in lumps:
        if name in own:
            picture = Image.open(io.BytesIO(content))
            assert picture.mode == "P" and picture.height & (picture.height - 1) == 0


def test_no_two_walls_look_alike(level):
    lumps, blocks = level
    pictures = dict(lumps)
    walls = [name for name in textures(blocks) if name.startswith("WALL")]
    # every wall has a texture of its own; only the sides of kerbs and steps are too low for an emblem
    assert len(walls) > 70 and len({pictures[name] for name in walls}) == len(walls)
    shown = [name for side in all_of(blocks, "sidedef") for field, name in side.items() if field != "sector"]
    assert len(shown) == len(set(shown))
    marked = [pictures[name] for name in textures(blocks) if name.startswith("SIDE")
              and len(np.unique(np.asarray(Image.open(io.BytesIO(pictures[name]))))) > 2]
    assert len(marked) > 60 and len(set(marked)) == len(marked)


def test_palette_holds_exact_colours_and_says_when_it_is_full():
    palette = Palette()
    ramp = palette.ramp((0.4, 0.1, 20), (0.9, 0.1, 380), 30)
    assert len(set(ramp)) == 30 and palette.index(0.4, 0.1, 20) == ramp[0]
    picture = np.tile(ramp, (8, 1))
    shown = Image.open(io.BytesIO(palette.png(picture)))
    assert np.array_equal(np.asarray(shown), picture)
    assert np.array_equal(np.asarray(shown.convert("RGB")), palette.colors[picture])
    assert dict(palette.lumps())["PLAYPAL"][:768] == palette.colors.tobytes()
    with pytest.raises(ValueError, match="256 colours are all in use"):
        palette.ramp((0.1, 0.02, 0), (0.9, 0.2, 360), 300)


# --- geometry

def square(left, bottom, size):
    return (left, bottom), (left, bottom + size), (left + size, bottom + size), (left + size, bottom)


def room(loop, low=0, high=100):
    return Sector(loops=(loop,), low=low, high=high, floor="F", ceiling="C")


def test_shared_edges_are_passages_and_others_walls():
    seen = []

    def texture(wall):
        seen.append((wall.sector, wall.low, wall.high, wall.length))
        return f"T{len(seen)}"
    blocks = level_blocks([room(square(0, 0, 64)), room(square(64, 0, 64), low=16, high=80)], start=(8, 8, 0),
                          texture=texture)
    lines = all_of(blocks, "linedef")
    assert len(lines) == 7 and sum("twosided" in line for line in lines) == 1
    # from the first room one sees the step up and what hangs above the passage
    assert {(0, 0, 16, 64), (0, 80, 100, 64)} <= set(seen) and len(seen) == 3 + 3 + 2
    floor = Floor(blocks)
    assert floor.sector((32, 32)) == 0 and floor.sector((96, 32)) == 1 and floor.sector((140, 32)) == -1


def test_sectors_on_the_same_side_of_an_edge_are_refused():
    with pytest.raises(ValueError, match="sectors 0 and 1 both lie to the right"):
        level_blocks([room(square(0, 0, 64))] * 2, start=(8, 8, 0), texture=lambda wall: "T")


def test_inset_moves_every_edge_by_its_width():
    assert inset(square(0, 0, 100), 10) == square(10, 10, 80)
    assert inset(tuple(reversed(square(0, 0, 100))), 10) == tuple(reversed(square(-10, -10, 120)))
    assert inset(((0, 0), (0, 100), (100, 100)), 10, is_closed=False) == ((10, 0), (10, 90), (100, 90))
    assert with_points(square(0, 0, 100), [(0, 60), (0, 20), (50, 50)]) == (
        (0, 0), (0, 20), (0, 60), (0, 100), (100, 100), (100, 0))


def test_no_two_sectors_overlap(level):
    blocks = level[1]
    corners = [(int(vertex["x"]), int(vertex["y"])) for vertex in all_of(blocks, "vertex")]
    sectors = [int(side["sector"]) for side in all_of(blocks, "sidedef")]
    loops = {}
    for line in all_of(blocks, "linedef"):
        for side in ("sidefront", "sideback"):
            if side in line:
                edge = corners[int(line["v1"])], corners[int(line["v2"])]
                loops.setdefault(sectors[int(line[side])], []).append(edge)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1150, 1150, (2, 60_000))
    covers = np.zeros(len(x), int)
    for edges in loops.values():
        inside = np.zeros(len(x), bool)
        for (ax, ay), (bx, by) in edges:
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) / (by - ay) * (bx - ax))
        covers += inside
    assert covers.max() == 1 and 0.5 < covers.mean() < 0.9


# --- on foot

def within_reach(blocks, start, spacing=24):
    """{grid point: number of its sector} of a walk from `start`, and [(floor, ceiling)] of all sectors.

    Grid points are `spacing` apart; a step leads to a neighbour at most STEP higher or lower, so that every
    walk can be walked back.
    """
    floor = Floor(blocks)
    heights = [tuple(int(sector[f"height{part}"]) for part in ("floor", "ceiling"))
               for sector in all_of(blocks, "sector")]
    found, waiting = {start: floor.sector(start)}, deque([start])
    while waiting:
        point = waiting.popleft()
        for x, y in ((spacing, 0), (-spacing, 0), (0, spacing), (0, -spacing)):
            other = point[0] + x, point[1] + y
            if other in found or (number := floor.sector(other)) < 0:
                continue
            low, high = heights[number]
            if abs(low - heights[found[point]][0]) <= STEP and high - low >= HEADROOM:
                found[other] = number
                waiting.append(other)
    return found, heights


def test_every_place_is_within_reach_and_no_kerb_is(level):
    found, heights = within_reach(level[1], (0, -200))
    for place in PLACES.values():
        left, bottom, right, top = place.box
        inside = [number for (x, y), number in found.items() if left < x < right and bottom < y < top]
        assert len(inside) > 100 and {heights[number][0] for number in inside} - {-16} == {place.low}
    reached = set(found.values())
    kerbs = {number for number, (low, _) in enumerate(heights) if low in (26, 66)}
    assert len(kerbs) > 30 and not reached & kerbs
    assert reached | kerbs == set(range(len(heights)))  # with every doorway and the pond


@pytest.mark.parametrize("door", DOORWAYS, ids=lambda door: f"{door.place}-{door.towards}")
def test_every_doorway_can_be_walked_through_in_the_game(gallery, door):
    middle = np.mean(door_loop(door), axis=0)
    is_east = PLACES[door.towards].cell[0] > PLACES[door.place].cell[0]
    for yaw, name in ((0 if is_east else 90, door.towards), (180 if is_east else -90, door.place)):
        gallery.reset(seed=1)
        gallery._game.send_game_command(f"warp {middle[0]:.0f} {middle[1]:.0f}")
        turn = (gallery.pose[3] - yaw + 180) % 360 - 180
        for _ in range(16):
            list(gallery.step(Action(look=(turn / 16, 0))))
        for _ in range(14):
            list(gallery.step(Action({"w"})))
        left, bottom, right, top = PLACES[name].box
        assert left < gallery.pose[0] < right and bottom < gallery.pose[1] < top
        assert gallery.pose[2] == PLACES[name].low


def test_walls_and_pillars_keep_the_player_at_a_legible_distance(gallery):
    rollout = play_rollout(gallery, num_frames=300, seed=3, player="stroller")
    kerb = min(gallery.floor.clearance(pose[:2]) for pose in rollout.poses)
    assert 15 < kerb  # from the kerb, which is 40 map units wide


# --- frames

def test_same_seed_same_frames_in_another_engine(gallery):
    mine = play_rollout(gallery, num_frames=30, seed=9)
    other = open_env("doom-gallery")
    again = play_rollout(other, num_frames=30, seed=9)
    other.close()
    assert np.array_equal(mine.frames, again.frames) and np.array_equal(mine.poses, again.poses)
    assert mine.frames.shape[1:] == (120, 160, 3) and not np.array_equal(
        mine.frames, play_rollout(gallery, num_frames=30, seed=10).frames)


def test_frame_is_the_area_average_of_a_larger_picture(gallery):
    gallery.reset(seed=2)
    frame, = gallery.step(Action({"w"}, look=(3, 0)))
    large = gallery._game.get_state().screen_buffer
    assert large.shape == (480, 640, 3)
    expected = large.reshape(120, 4, 160, 4, 3).astype(float).mean((1, 3))
    assert np.abs(frame - expected).max() <= 0.5
    assert np.array_equal(area_average(large, 1), large) and area_average(large, 1) is not large


def test_colours_on_the_screen_are_those_of_the_palette(gallery, level):
    colors = np.frombuffer(dict(level[0])["PLAYPAL"][:768], np.uint8).reshape(-1, 3)
    for seed in range(12):
        gallery.reset(seed=seed)
        shown = np.unique(gallery._game.get_state().screen_buffer.reshape(-1, 3), axis=0)
        assert (shown[:, None] == colors).all(-1).any(1).all()


def test_the_wand_answers_the_click_and_comes_to_rest(gallery):
    gallery.reset(seed=1)
    still, = gallery.step(Action())
    flash, = gallery.step(Action({"mouse_left"}))
    flash, = gallery.step(Action())
    assert np.abs(flash[70:, 60:120].astype(int) - still[70:, 60:120]).mean() > 8
    for _ in range(10):
        after, = gallery.step(Action())
    assert np.array_equal(after, still)


def test_stroller_stands_and_turns_slowly_more_than_the_explorer():
    space = open_env("doom-gallery").action_space
    explorer, stroller = (PLAYERS[name](space, 20_000, 0) for name in ("explorer", "stroller"))

    def slow(actions):
        degrees = np.abs(actions[:, -1]) * space.look_limit
        return ((degrees > 0.05) & (degrees < 1.5)).mean()
    assert slow(stroller) > 1.5 * slow(explorer)
    assert (stroller == 0).all(1).mean() > 1.2 * (explorer == 0).all(1).mean()


def test_recipe_of_the_gallery_is_complete():
    recipe = train_world.doom_gallery()
    recipe.check()
    assert recipe.player in PLAYERS and recipe.env == "doom-gallery"
    assert recipe.transformer == train_world.doom_maze().transformer
