"""The real game: true and exact poses, nothing that happens by itself; its players; Gymnasium both ways."""
import os
import sys

import gymnasium
import numpy as np
import pytest

from tests.client.fake_worlds import FakeWorld
from worldplay.action import Action, ActionSpace
from worldplay.data.frame_cache import is_held_out
from worldplay.envs import ENVS, open_env
from worldplay.envs.collect import collect_rollouts, in_processes, plan_episodes, play_rollout
from worldplay.envs.doom_map import Floor, calm_level, read_blocks, read_lumps, write_blocks, write_lumps
from worldplay.envs.gymnasium import GymWorld, WorldEnv
from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.world import check_world

IDLE = Action()


@pytest.fixture(scope="module", params=ENVS)
def world(request):
    world = open_env(request.param)
    yield world
    world.close()


@pytest.fixture(scope="module")
def maze():
    world = open_env("doom-maze")
    yield world
    world.close()


def play(world, *actions):
    frames, poses = [], []
    for action in actions:
        frames += list(world.step(action))
        poses.append(world.pose.copy())
    return np.stack(frames), np.stack(poses)


def turned(before, after):
    """Degrees to the right, in (-180, 180]."""
    return -((after - before + 180) % 360 - 180)


# --- the game as a world

def test_space_is_known_before_the_engine_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    worlds = {name: open_env(name) for name in ENVS}
    assert worlds["doom-maze"].action_space.keys == ("w", "a", "s", "d")
    assert worlds["doom-arena"].action_space.keys == ("w", "a", "s", "d", "mouse_left")
    for world in worlds.values():
        assert world.action_space.look_axes == 1 and world.frame_size == (120, 160) and world.fps == 17.5
        with pytest.raises(WorldError, match=r'run pip install "\.\[doom\]" in the checkout'):
            world.reset()


@pytest.mark.parametrize("yaw", [0.01, 0.5, 1.0, 3.3, 5.0, 9.7, 12.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_true_yaw_is_the_commanded_one(world, yaw, sign):
    world.reset(seed=1)
    before = world.pose[3]
    for _ in range(10):
        _, poses = play(world, Action(look=(sign * yaw, 0)))
        # the game counts angles in 1/65536 of a circle, in each of the two tics of a frame
        assert turned(before, poses[0, 3]) == pytest.approx(sign * yaw, abs=360 / 65536 + 1e-4)
        before = poses[0, 3]


def test_look_beyond_the_limit_is_cut_to_it(maze):
    maze.reset(seed=1)
    before = maze.pose[3]
    _, poses = play(maze, Action(look=(90, 30)))
    assert turned(before, poses[0, 3]) == pytest.approx(maze.action_space.look_limit, abs=0.01)


@pytest.mark.parametrize("key, direction", [("w", 0), ("d", 90), ("s", 180), ("a", -90)])
def test_keys_move_where_they_say(maze, key, direction):
    angles = []
    for seed in range(12):
        maze.reset(seed=seed)
        start = maze.pose.copy()
        _, poses = play(maze, *[Action({key})] * 6)
        x, y = poses[-1, :2] - start[:2]
        if np.hypot(x, y) > 30:
            angles.append(turned(start[3], np.degrees(np.arctan2(y, x))))
    assert len(angles) >= 6
    off = (np.array(angles) - direction + 180) % 360 - 180
    # walls that the player slides along bend some of the ways
    assert np.median(np.abs(off)) < 1


def test_pose_and_frame_are_the_same_for_the_same_seed_and_differ_for_others(world):
    starts = {}
    for seed in (4, 5, 4):
        frames = world.reset(seed=seed)
        again = starts.setdefault(seed, (frames, world.pose.copy()))
        assert np.array_equal(frames, again[0]) and np.array_equal(world.pose, again[1])
    assert np.linalg.norm(starts[4][1] - starts[5][1]) > 10 and not np.array_equal(starts[4][0], starts[5][0])


def test_actions_whose_frames_nobody_sees_lead_to_the_same_place(world):
    actions = [world.action_space.decode(v) for v in PLAYERS["explorer"](world.action_space, 120, 3)]
    world.reset(seed=4)
    frames = [frame for action in actions for frame in world.step(action)]
    pose = world.pose.copy()
    world.reset(seed=4)
    world.skip(actions[:-1])
    (frame,) = world.step(actions[-1])
    assert np.array_equal(frame, frames[-1]) and np.array_equal(world.pose, pose)


def test_start_is_settled_and_the_maze_stands_still(maze):
    first = maze.reset(seed=7)[0]
    start = maze.pose.copy()
    frames, poses = play(maze, *[IDLE] * 40)
    assert (poses == start).all() and (frames == first).all()


def test_starts_spread_over_the_level(world):
    places = []
    for seed in range(60):
        world.reset(seed=seed)
        places.append(world.pose.copy())
    places = np.array(places)
    assert (np.ptp(places[:, :2], axis=0) > 1000).all() and len(np.unique(places[:, 3] // 45)) == 8


def test_a_long_walk_never_ends_and_shows_no_flash(maze):
    maze.reset(seed=2)
    actions = PLAYERS["explorer"](maze.action_space, 2500, 2)
    brightness, colour = [], []
    for vector in actions:
        frame, = maze.step(maze.action_space.decode(vector))
        brightness.append(frame.mean())
        colour.append(frame.mean((0, 1)))
    red = np.array(colour)[:, 0] / np.sum(colour, axis=1)
    assert min(brightness) > 5 and max(brightness) < 200 and red.max() < 0.6


def test_arena_shows_a_weapon_that_fires_and_never_runs_dry():
    arena = open_env("doom-arena")
    try:
        arena.reset(seed=1)
        still, _ = play(arena, *[IDLE] * 6)
        for _ in range(6):
            fired, _ = play(arena, *[Action({"mouse_left"})] * 60)
        weapon = np.abs(fired[-10:, 80:, 50:110].astype(int) - still[-1, 80:, 50:110]).mean((1, 2, 3))
        assert weapon.max() > 5
        after, _ = play(arena, *[IDLE] * 20)
        assert np.abs(after[-1, 100:, 60:100].astype(int) - still[-1, 100:, 60:100]).mean() < 3
    finally:
        arena.close()


def test_scene_and_frames_are_refused(maze):
    with pytest.raises(WorldError) as caught:
        maze.reset("cellar")
    assert caught.value.kind == "bad_scene"
    with pytest.raises(WorldError) as caught:
        maze.reset(frames=np.zeros((1, 120, 160, 3), np.uint8), actions=[IDLE])
    assert caught.value.kind == "bad_scene"


def test_an_engine_that_died_is_said_and_started_again():
    world = open_env("doom-maze")
    first = world.reset(seed=3)
    world._game.close()
    with pytest.raises(WorldError, match="the engine stopped .*; reset starts it again") as caught:
        list(world.step(IDLE))
    assert caught.value.kind == "ended"
    assert np.array_equal(world.reset(seed=3), first)
    world.close()


def test_step_before_reset_is_refused():
    with pytest.raises(WorldError, match="reset before the first step"):
        list(open_env("doom-maze").step(IDLE))


# --- levels

LEVEL = write_blocks([
    ("thing", {"x": "10", "type": "1"}), ("thing", {"type": "1"}), ("thing", {"type": "2012"}),
    *[("vertex", {"x": str(x), "y": str(y)}) for x, y in ((0, 0), (0, 200), (200, 200), (200, 0))],
    *[("linedef", {"v1": str(i), "v2": str((i + 1) % 4), "sidefront": str(i)}) for i in range(4)],
    *[("sidedef", {"sector": "0", "texturemiddle": '"ROCK"'}) for _ in range(4)],
    ("sector", {"texturefloor": '"LAVA"', "special": "83", "lightlevel": "10"})])


def test_wad_and_level_survive_a_round_trip():
    lumps = [("MAP01", b""), ("TEXTMAP", LEVEL.encode()), ("ENDMAP", b"")]
    assert read_lumps(write_lumps(lumps)) == lumps
    assert write_blocks(read_blocks(LEVEL)) == LEVEL
    with pytest.raises(ValueError, match="not a WAD"):
        read_lumps(b"PK\3\4 something else")


def test_calm_level_has_one_start_no_scripts_and_no_hurting_floor():
    wad = write_lumps([("DECORATE", b"old"), ("MAP01", b""), ("TEXTMAP", LEVEL.encode()),
                       ("BEHAVIOR", b"ACS")])
    calm, blocks = calm_level(wad, keep_things=False, textures={"LAVA": "GRASS"}, light=255,
                              lumps={"DECORATE": "new"})
    lumps = read_lumps(calm)
    assert [name for name, _ in lumps] == ["DECORATE", "MAP01", "TEXTMAP"] and lumps[0][1] == b"new"
    assert [fields for kind, fields in blocks if kind == "thing"] == [{"x": "10", "type": "1"}]
    assert blocks[-1] == ("sector", {"texturefloor": '"GRASS"', "lightlevel": "255"})
    assert read_blocks(dict(lumps)["TEXTMAP"].decode()) == blocks
    kept = calm_level(wad, keep_things=True, textures={}, light=None, lumps={})[1]
    assert [fields["type"] for kind, fields in kept if kind == "thing"] == ["1", "2012"]
    assert kept[-1][1]["lightlevel"] == "10"


def test_floor_knows_inside_from_outside():
    floor = Floor(read_blocks(LEVEL))
    assert floor.sector((100, 90)) == 0 and floor.clearance(np.array((100, 90))) == pytest.approx(90)
    for outside in ((-10, 90), (210, 90), (100, -10), (100, 210)):
        assert floor.sector(outside) == -1
    points = [floor.draw(np.random.default_rng(seed), room=60) for seed in range(20)]
    assert np.min(points) >= 60 and np.max(points) <= 140
    with pytest.raises(ValueError, match="no place 101 map units"):
        floor.draw(np.random.default_rng(0), room=101)


# --- players

SPACE = ActionSpace(("w", "a", "s", "d", "mouse_left"), 12.0, look_axes=1)


@pytest.mark.parametrize("player", PLAYERS)
def test_player_is_a_function_of_its_seed(player):
    actions = PLAYERS[player](SPACE, 4000, 3)
    assert actions.dtype == np.float32 and actions.shape == (4000, 6) and np.abs(actions).max() <= 1
    assert np.array_equal(actions, PLAYERS[player](SPACE, 4000, 3))
    assert not np.array_equal(actions, PLAYERS[player](SPACE, 4000, 4))
    decoded = np.stack([SPACE.encode(SPACE.decode(vector)) for vector in actions[:200]])
    assert np.abs(decoded - actions[:200]).max() < 1e-6


@pytest.mark.parametrize("player", PLAYERS)
@pytest.mark.parametrize("space", [ActionSpace((), 5.0, look_axes=0), ActionSpace(("w",), 90.0, look_axes=2)])
def test_player_fits_any_space(player, space):
    assert PLAYERS[player](space, 300, 0).shape == (300, space.num_channels)


def test_explorer_turns_at_every_speed_and_presses_everything():
    actions = PLAYERS["explorer"](SPACE, 40_000, 0)
    degrees = np.abs(actions[:, 5] * SPACE.look_limit)
    assert 0.65 <= (degrees >= 1).mean() <= 0.75
    shares = np.histogram(degrees, bins=(1, 3, 6, 9, 12.01))[0] / len(degrees)
    assert (shares > 0.06).all()
    assert abs((actions[:, 5] > 0).mean() - (actions[:, 5] < 0).mean()) < 0.03
    keys = actions[:, :5]
    assert (keys.mean(0) > 0.05).all()
    assert 0.04 < (actions == 0).all(1).mean() < 0.2
    for pair in ((0, 1), (0, 3), (2, 1), (2, 3)):
        assert keys[:, pair].all(1).mean() > 0.01
    pressed = np.diff(np.flatnonzero(np.diff(np.r_[0, keys[:, 0], 0])))[::2]
    assert (pressed <= 3).any() and (pressed >= 20).any()


def test_tester_is_unlike_the_explorer():
    def straight_runs(actions):
        straight = (actions[:, 0] > 0) & (actions[:, 5] == 0)
        runs = np.split(straight, np.flatnonzero(np.diff(straight)) + 1)
        return sum(len(run) for run in runs if len(run) >= 24 and run[0])
    explorer, tester = (PLAYERS[name](SPACE, 20_000, 0) for name in ("explorer", "tester"))
    assert straight_runs(tester) > 3 * straight_runs(explorer)
    assert (tester == 0).all(1).mean() > 2 * (explorer == 0).all(1).mean()
    turning = np.abs(tester[:, 5][tester[:, 5] != 0])
    assert turning.min() > 0.59


# --- rollouts

@pytest.mark.parametrize("num_frames, longest, seed", [(2, 512, 0), (513, 512, 0), (6144, 512, 0),
                                                       (100_000, 512, 7),
                                                       (600, 512, 18), (600, 512, 19), (5, 1, 40)])
def test_a_collection_always_holds_something_out_and_something_to_learn_from(num_frames, longest, seed):
    lengths, seeds = zip(*plan_episodes(num_frames, longest, seed))
    assert sum(lengths) == num_frames and max(lengths) - min(lengths) <= 1
    assert 1 <= min(lengths) <= max(lengths) <= longest
    assert {is_held_out(number) for number in seeds} == {True, False} and len(set(seeds)) == len(seeds)
    assert seeds[:-1] == tuple(range(seed, seed + len(seeds) - 1)) and seeds[-1] >= seed + len(seeds) - 1


def test_rollouts_are_the_same_for_any_number_of_processes():
    one, two = (list(collect_rollouts("doom-maze", num_frames=50, seed=11, workers=workers,
                                      rollout_frames=20)) for workers in (1, 2))
    assert [(len(rollout.frames), rollout.seed) for rollout in one] == [(16, 11), (17, 12), (17, 19)]
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.frames, b.frames) and np.array_equal(a.poses, b.poses)
        assert np.array_equal(a.actions, b.actions) and not a.actions[0].any() and a.seed == b.seed


def _die(task):
    os._exit(9)


def test_a_process_that_is_killed_is_said_in_one_line():
    with pytest.raises(OSError, match="one of 2 processes was killed; .*--workers$"):
        list(in_processes(_die, [1, 2, 3], 2))


def test_frame_i_is_what_action_i_caused(maze):
    rollout = play_rollout(maze, num_frames=40, seed=5)
    limit = maze.action_space.look_limit
    turns = [turned(a, b) for a, b in zip(rollout.poses[:-1, 3], rollout.poses[1:, 3])]
    assert turns == pytest.approx(rollout.actions[1:, -1] * limit, abs=0.01)
    maze.reset(seed=5)
    frames, _ = play(maze, *[maze.action_space.decode(vector) for vector in rollout.actions[1:]])
    assert np.array_equal(frames, rollout.frames[1:])


def test_unknown_player_is_refused(maze):
    with pytest.raises(ValueError, match="--player speedrunner: unknown; there are explorer, tester"):
        play_rollout(maze, num_frames=2, seed=0, player="speedrunner")


# --- Gymnasium

class Dot(gymnasium.Env):
    """A dot on a line of nine cells; it moves left or right and the episode ends at the right end."""
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gymnasium.spaces.Discrete(9)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._at = int(self.np_random.integers(0, 3))
        return self._at, {}

    def step(self, action):
        self._at = max(0, self._at + (0, -1, 1)[action])
        return self._at, float(action == 2), self._at >= 8, False, {}

    def render(self):
        frame = np.zeros((4, 9, 3), np.uint8)
        frame[:, self._at] = 255
        return frame


def dot_world():
    return GymWorld(Dot("rgb_array"), name="dot", action_space=ActionSpace(("a", "d"), 1.0, look_axes=0),
                    to_action=lambda action: 1 if "a" in action.keys else 2 if "d" in action.keys else 0)


def test_environment_as_world_keeps_the_contract_and_ends():
    world = dot_world()
    check_world(world, num_steps=6)
    assert world.frame_size == (4, 9) and world.fps == 10
    world.reset(seed=0)
    with pytest.raises(WorldError, match="the episode is over") as caught:
        for _ in range(10):
            frame, = world.step(Action({"d"}))
            assert world.reward == 1
    assert caught.value.kind == "ended" and frame[0, 8, 0] == 255


def test_environment_that_does_not_render_is_refused():
    with pytest.raises(ValueError, match="render_mode"):
        GymWorld(Dot(), name="dot", action_space=ActionSpace((), 1.0, look_axes=0), to_action=lambda _: 0)


@pytest.mark.filterwarnings("ignore")
def test_world_as_environment_passes_gymnasiums_own_check():
    from gymnasium.utils.env_checker import check_env
    check_env(WorldEnv(dot_world()), skip_render_check=True)


def test_world_as_environment_turns_as_far_as_a_step_can():
    world = FakeWorld(frames=4)
    world.info["frames_per_chunk"] = 4
    env = WorldEnv(world)
    env.reset(seed=1)
    env.step(np.eye(6, dtype=np.float32)[5])
    assert world.actions == [Action(look=(4 * world.action_space.look_limit, 0))]


def test_world_as_environment_shows_the_world_and_truncates_where_it_ends():
    env, world = WorldEnv(dot_world()), dot_world()
    observation, info = env.reset(seed=2)
    assert np.array_equal(observation, world.reset(seed=2)[-1]) and info["frames"].shape == (1, 4, 9, 3)
    right, steps, truncated = np.array([0, 1], np.float32), 0, False
    while not truncated:
        observation, reward, terminated, truncated, _ = env.step(right)
        assert reward == (not truncated) and not terminated and np.array_equal(observation, env.render())
        if not truncated:
            assert np.array_equal(observation, next(iter(world.step(Action({"d"})))))
            world._stepping = False
            steps += 1
    assert 6 <= steps <= 8
