"""Any Gymnasium environment by its name: opened, played, collected with its ends, read back."""
import gymnasium
import numpy as np
import pytest

from worldplay import envs
from worldplay.action import Action
from worldplay.data import lerobot
from worldplay.data.frame_cache import is_held_out
from worldplay.envs import open_env
from worldplay.envs.collect import collect_rollouts, play_rollout, run_collect
from worldplay.envs.gymnasium import WorldEnv
from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.world import check_world

CORRIDOR = "gym:tests.envs.corridor:Corridor?actions=idle=0,a=1,d=2"
PLAYER = "tests.envs.corridor:to_the_right"


def test_a_class_by_its_name_keeps_the_contract():
    world = open_env(CORRIDOR, trusted=True)
    check_world(world, num_steps=6)
    assert world.name == CORRIDOR and world.frame_size == (16, 32) and world.fps == 12
    assert world.action_space.keys == ("a", "d") and world.info["actions"] == "idle=0, a=1, d=2"


def test_what_an_environment_is_played_by_is_missed_before_it_is_imported(monkeypatch):
    here = {"gymnasium", "Box2D"}
    monkeypatch.setattr(envs, "find_spec", lambda package: package in here or None)
    envs.check_openable("gym:CarRacing-v3?size=96x96")
    here.remove("Box2D")
    envs.check_openable(CORRIDOR, trusted=True)
    with pytest.raises(WorldError, match="gym:CarRacing-v3: Box2D is not installed"):
        envs.check_openable("gym:CarRacing-v3")


def test_a_registered_one_by_its_id_and_by_its_module():
    gymnasium.register("Corridor-v0", entry_point="tests.envs.corridor:Corridor", max_episode_steps=3)
    world = open_env("gym:Corridor-v0")
    world.reset(seed=0)
    with pytest.raises(WorldError, match="the episode is over"):  # its time limit holds
        for _ in range(4):
            list(world.step(Action()))
    assert open_env("gym:tests.envs.corridor:Corridor-v0", trusted=True).frame_size == (16, 32)


def test_a_name_out_of_a_file_opens_what_is_installed_and_runs_no_other_module(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("gym:evil:Game", "gym:evil:Game-v0?repeat=2", "gym:evil:worldplay.envs:X", "gym::evil:X",
                 "gym:worldplay.envs:evil:X", "gym:worldplayer:X", "gym:worldplay.:X", "gym:evil.\n:X"):
        with pytest.raises(WorldError, match=": no module is run because a file names it; .*--env .*--world"):
            open_env(name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(WorldError, match="Gymnasium cannot make it"):
        open_env("gym:evil:Game", trusted=True)
    assert (tmp_path / "ran").exists(), "the test would have seen it run"
    gymnasium.register("Corridor-v1", entry_point="tests.envs.corridor:Corridor")
    assert open_env("gym:Corridor-v1?actions=idle=0,a=1,d=2").frame_size == (16, 32)
    assert open_env("gym:worldplay.envs.car_racing:CarRacing?size=64x64").frame_size == (64, 64)


def test_repeat_holds_an_action_and_slows_the_clock():
    once, thrice = open_env(CORRIDOR, trusted=True), open_env(CORRIDOR + "&repeat=3", trusted=True)
    assert thrice.fps == 4
    once.reset(seed=1), thrice.reset(seed=1)
    frames = [frame for _ in range(3) for frame in once.step(Action({"d"}))]
    assert np.array_equal(frames[-1], *thrice.step(Action({"d"})))
    assert thrice.reward == 3


def test_the_picture_is_the_observation_where_that_is_one():
    name = CORRIDOR.replace("Corridor?", "Sighted?")
    seen, drawn = open_env(name, trusted=True), open_env(name + "&picture=render", trusted=True)
    assert np.array_equal(seen.reset(seed=1), 255 - drawn.reset(seed=1))
    small = open_env(name + "&size=16x8", trusted=True)
    assert small.frame_size == (8, 16)
    mean = seen.reset(seed=1)[0].reshape(8, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(small.reset(seed=1)[0] - mean).max() <= 1


@pytest.mark.parametrize("name, said", [
    ("gym:Nothing-v0", "Gymnasium cannot make it .*gym:MODULE:ID"),
    ("gym:no.such.module:Nothing", "Gymnasium cannot make it"),
    (CORRIDOR + "&speed=3", "no option 'speed'; there are actions, repeat, size, picture"),
    (CORRIDOR + "&repeat=0", "repeat=0: expected 1 to 100"), (CORRIDOR + "&size=3", "size=3: expected WIDTH"),
    (CORRIDOR + "&picture=observation", "expected render$"),
    (CORRIDOR.replace("d=2", "d=9"), "d=9: actions are 0 to 2")])
def test_a_name_that_cannot_be_is_refused_in_one_line(name, said):
    with pytest.raises((ValueError, WorldError), match=said) as caught:
        open_env(name, trusted=True)
    assert "\n" not in str(caught.value)


def test_stretches_go_on_behind_an_end_the_same_for_any_number_of_workers():
    one, two = (list(collect_rollouts(CORRIDOR, num_frames=140, seed=18, workers=workers, player=PLAYER,
                                      rollout_frames=70)) for workers in (1, 2))
    assert sum(len(rollout.frames) for rollout in one) == 140 and len(one) > 2
    for a, b in zip(one, two, strict=True):
        assert a.seed == b.seed and np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.actions, b.actions) and a.poses is None
    starts = [rollout for rollout in one if rollout.seed in (18, 19)]
    assert len(starts) == 2 and [is_held_out(r.seed) for r in one].count(True) >= 1
    for rollout in one:  # what followed an end is on the side of the stretch that it belongs to
        assert is_held_out(rollout.seed) == is_held_out(rollout.seed % 2_000_000)
        again = play_rollout(open_env(CORRIDOR, trusted=True), num_frames=len(rollout.frames),
                             seed=rollout.seed, player=PLAYER)
        assert np.array_equal(again.frames, rollout.frames)


def test_a_data_set_of_episodes_that_end_is_whole(tmp_path):
    made = run_collect(CORRIDOR, frames=120, out=tmp_path / "set", seed=18, workers=2, player=PLAYER)
    lerobot.verify(tmp_path / "set")
    opened = lerobot.LeRobotFolder.open(tmp_path / "set")
    assert opened.num_frames == 120 and len(opened.episodes) == made["episodes"] > 2
    assert made["held_out_episodes"] >= 1 and opened.source.name == CORRIDOR
    for rollout in opened.rollouts():
        again = play_rollout(open_env(CORRIDOR, trusted=True), num_frames=len(rollout.frames),
                             seed=rollout.seed, player=PLAYER)
        assert np.array_equal(again.frames, rollout.frames)
        assert np.array_equal(again.actions[1:], rollout.actions[1:])


@pytest.mark.parametrize("player, said", [("nobody", "unknown; there are explorer"),
                                          ("no_such_module:play", "No module named"),
                                          ("tests.envs.corridor:nobody", "nobody")])
def test_a_player_that_is_not_there_is_refused_before_play(tmp_path, player, said):
    with pytest.raises(ValueError, match=said):
        run_collect(CORRIDOR, frames=10, out=tmp_path / "set", player=player)
    assert not (tmp_path / "set").exists()


def test_random_players_hold_any_key():
    world = open_env(CORRIDOR, trusted=True)
    rollout = play_rollout(world, num_frames=9, seed=0, player="random")
    assert np.array_equal(rollout.actions[1:], PLAYERS["random"](world.action_space, 8, 0))
    pressed = PLAYERS["random"](world.action_space, 300, 0)
    assert {tuple(row) for row in pressed.tolist()} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_gymnasium_knows_our_worlds_by_name():
    env = gymnasium.make("worldplay.envs.gymnasium:worldplay/DoomMaze-v0")  # imports the module before it
    observation, _ = env.reset(seed=3)
    assert np.array_equal(observation, open_env("doom-maze").reset(seed=3)[-1])
    assert env.unwrapped.action_space.shape == (5,)
    env.close()
    dream = gymnasium.make("worldplay/Dream-v0", world="doom-maze", steps=1, device="cpu")
    first, _ = dream.reset(seed=1)
    frame, reward, terminated, truncated, _ = dream.step(np.eye(5, dtype=np.float32)[0])
    assert frame.shape == first.shape and not np.array_equal(frame, first)
    assert (reward, terminated, truncated) == (0, False, False)
    dream.close()


def test_an_environment_hands_on_its_worlds_reward_and_starts_elsewhere_each_time():
    env = WorldEnv(open_env(CORRIDOR, trusted=True))
    first = [env.reset(seed=3)[0], *(env.reset()[0] for _ in range(4))]
    again = [env.reset(seed=3)[0], *(env.reset()[0] for _ in range(4))]
    assert np.array_equal(first, again) and len({frame.tobytes() for frame in first}) > 1
    rewards = [env.step(np.array([0, 1], np.float32))[1] for _ in range(2)]
    assert rewards == [1, 1]
