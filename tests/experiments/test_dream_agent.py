"""Driving is the same task dreamed and for real, its reward is read off pictures, and PPO learns in it."""
import json
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

import worldplay
from worldplay.action import ActionSpace
from worldplay.envs import open_env
from worldplay.envs.gymnasium import DreamVectorEnv, WorldEnv
from worldplay.errors import WorldError
from worldplay.experiments import dream_agent, driving, reward_reader
from worldplay.experiments.driving import EPISODE, HOLD, KEYS, ZOOM

GAME = "gym:worldplay.envs.car_racing:CarRacing?size=64x64"
SPACE = ActionSpace(("a", "d", "s", "w"), 0.0, look_axes=0)


class Shift:
    """Dreams of columns of light, 16 pixels apart, which move right by a pixel a frame while w is held."""
    name, frame_size, fps, action_space = "shift", (40, 48), 25.0, SPACE

    def __init__(self, size):
        self.world, self.size = self, size

    def reset(self, scenes=None, *, seed=None):
        self.at, self.given = np.arange(self.size) + seed % 7, []
        return self._frames()

    def step(self, vectors):
        self.given.append(vectors)
        self.at = self.at + vectors[:, SPACE.keys.index("w")].astype(int)
        return self._frames()

    def close(self):
        pass

    def _frames(self):
        frames = np.zeros((self.size, *self.frame_size, 3), np.uint8)
        for i, at in enumerate(self.at % 16):
            frames[i, :, at::16] = 255
        return frames


def motion(before, after):
    """How far the light moved, in pixels."""
    at = [frames[:, 0, :16, 0].argmax(1) for frames in (before, after)]
    return ((at[1] - at[0]) % 16).astype(np.float32)


def shifts(num):
    return driving.DreamDrives(DreamVectorEnv(Shift(num)), SPACE, motion)


def test_the_real_game_is_driven_by_held_actions_and_pays_its_own_reward():
    drive, plain = driving.real_drive(GAME), WorldEnv(open_env(GAME))
    frame, _ = drive.reset(seed=7)
    idle, gas = driving.vectors_of(plain._world.action_space)[[0, KEYS.index(("w",))]]
    plain.reset(seed=7)
    for _ in range(ZOOM):
        expected, *_ = plain.step(idle)
    assert np.array_equal(frame, expected)
    for _ in range(5):
        frame, reward, terminated, truncated, info = drive.step(KEYS.index(("w",)))
        paid = [plain.step(gas) for _ in range(HOLD)]
        assert np.array_equal(frame, paid[-1][0]) and reward == pytest.approx(sum(each[1] for each in paid))
        assert not terminated and not truncated
    assert info["tiles"] == plain._world.env.unwrapped.tile_visited_count > 1
    drive.close(), plain.close()


def test_a_dream_is_driven_alike_and_pays_what_is_read():
    dreams = shifts(3)
    first, _ = dreams.reset(seed=1)
    gas = KEYS.index(("w",))
    frames, rewards, terminated, truncated, _ = dreams.step(np.array([gas, 0, gas]))
    given = np.array(dreams.env._batch.given)
    assert given.shape == (HOLD, 3, 4) and (given == given[0]).all()
    assert np.array_equal(given[0], driving.vectors_of(SPACE)[[gas, 0, gas]])
    assert rewards.tolist() == [HOLD, 0, HOLD] and np.array_equal(frames[1], first[1])
    for i in range(1, EPISODE):
        assert not truncated.any() and not terminated.any()
        *_, truncated, _ = dreams.step(np.zeros(3, int))
    assert truncated.all()
    dreams.reset()
    assert not dreams.step(np.zeros(3, int))[3].any()


def test_what_frames_pay_is_summed_over_a_held_action():
    drive = reward_reader.Drive(np.zeros((9, 1, 1, 3), np.uint8), np.zeros((9, 4), np.float32),
                                np.arange(9, dtype=np.float32))
    assert drive.sums().tolist() == [sum(range(i + 1, i + 1 + HOLD)) for i in range(9 - HOLD)]


def _drives(rng, num):
    """Real play of Shift: the light moves in spells, a frame pays what it moved; one leaves the field."""
    drives = []
    for i in range(num):
        moved = np.repeat(rng.integers(0, 2, 40), 5)
        shift = Shift(1)
        frames = [shift.reset(seed=int(rng.integers(7)))[0]]
        frames += [shift.step(np.float32([[0, 0, 0, each]]))[0] for each in moved[1:]]
        rewards = moved.astype(np.float32)
        rewards[0] = 0
        rewards[150] -= 100 * (i == 0)
        drives.append(reward_reader.Drive(np.stack(frames), np.zeros((len(frames), 4), np.float32), rewards))
    return drives


def test_a_reader_finds_the_reward_in_pictures_and_its_agreement_says_so():
    rng = np.random.default_rng(0)
    reader = reward_reader.fit_reader(_drives(rng, 3))
    others = _drives(rng, 3)
    found = reward_reader.agreement(reader, others)
    assert found["r2"] > 0.8 and found["pairs"] >= 3 * 48 - 1, found
    exact = reward_reader.agreement(SimpleNamespace(read=motion), others)
    assert exact["r2"] == exact["window_r2"] == 1, "the true reward agrees wholly"
    nothing = SimpleNamespace(read=lambda before, after: np.zeros(len(before), np.float32))
    assert reward_reader.agreement(nothing, others)["r2"] < 0


def test_real_play_is_watched_through_the_worlds_codec_and_dreamed_again(monkeypatch):
    monkeypatch.setattr(reward_reader, "_FRAMES", 115)
    world, game = worldplay.load_world("car-racing", device="cpu", steps=1), open_env(GAME)
    drive, other = reward_reader.watch(game, world.codec, 230, held_out=True)
    game.close()
    assert not np.array_equal(drive.frames, other.frames)
    assert len(drive.frames) == len(drive.actions) == len(drive.rewards) == 115
    assert drive.frames.shape[1:] == (64, 64, 3) and drive.actions.any() and (drive.rewards != 0).all()
    asked = []
    reader = SimpleNamespace(read=lambda *pair: asked.append(pair) or pair[1].mean(axis=(1, 2, 3)))
    found = reward_reader.agreement_dreamed(reader, world, [drive, other])
    before, after = asked[0]
    assert found["dreams"] == len(asked) == 2 and len(before) == 25
    assert np.array_equal(before[0], drive.frames[world.config.window - 1])
    assert np.array_equal(before[1:], after[:-1])
    world.close()


def test_without_the_library_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(dream_agent, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "\.\[agents\]" in the checkout'):
        dream_agent.DreamAgent(out=tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("few", [{"frames": 0}, {"frames": 2047}, {"watched": 1999}, {"episodes": 1}])
def test_too_few_of_anything_is_refused_before_anything_is_made(few, tmp_path):
    (name, number), = few.items()
    with pytest.raises(ValueError, match=f"--{name} {number}: expected at least"):
        dream_agent.DreamAgent(out=tmp_path / "out", **few).run()
    assert not (tmp_path / "out").exists()


def _experiment(monkeypatch, out, world_hash="1", env=GAME, **options):
    world = SimpleNamespace(name="other", config=SimpleNamespace(env=env), info={"world_hash": world_hash})
    monkeypatch.setattr(worldplay, "load_world", lambda name: world)
    return dream_agent.Experiment(dream_agent.DreamAgent(out=out, **options))


@pytest.mark.parametrize("env", [None, "doom-maze"])
def test_a_world_of_no_game_or_another_is_refused(monkeypatch, tmp_path, env):
    with pytest.raises(WorldError, match="other is no world of gym:"):
        _experiment(monkeypatch, tmp_path, env=env)


def test_parts_that_other_options_or_another_world_made_are_not_taken(monkeypatch, tmp_path):
    _experiment(monkeypatch, tmp_path)._keep_options()
    _experiment(monkeypatch, tmp_path, seed=3)._keep_options()  # nothing was made yet
    (tmp_path / "reward.json").write_text("{}")
    _experiment(monkeypatch, tmp_path, seed=3, episodes=8)._keep_options()  # tests are always made again
    for name, before, given in (("seed", 3, {}), ("frames", 64_000, {"seed": 3, "frames": 5000}),
                                ("world_hash", 1, {"seed": 3, "world_hash": "2"})):
        with pytest.raises(ValueError, match=f"options.json was started with {name} {before}, now"):
            _experiment(monkeypatch, tmp_path, **given)._keep_options()


def test_a_drive_that_ends_early_is_shown_to_its_end():
    numbers = np.arange(EPISODE + 1, dtype=np.uint8)
    frames = np.broadcast_to(numbers[:, None, None, None], (EPISODE + 1, 32, 32, 3))
    whole, short = (dream_agent._sheet([("a drive", frames[:length])]) for length in (EPISODE + 1, 15))
    assert whole.shape == short.shape and whole[-10, -10, 0] == EPISODE and short[-10, -10, 0] == 14


def test_dreams_of_one_scene_say_little_of_others():
    returns = np.repeat([0.0, 10.0, 20.0], 8)
    alone = dream_agent._figures(returns, None, np.arange(24))
    by_scene = dream_agent._figures(returns, None, np.arange(24) // 8)
    assert alone["mean"] == by_scene["mean"] == 10
    assert by_scene["high"] - by_scene["low"] > 2 * (alone["high"] - alone["low"])


def test_the_published_table_is_that_of_its_json():
    results = Path(dream_agent.__file__).parents[2] / "docs/results"
    report = json.loads((results / "2026-11-27-agents.json").read_text())
    published, made = (
        {tuple(cell.strip() for cell in line.replace("**", "").split("|")) for line in text.splitlines()
         if line.startswith("|")} for text in ((results / "2026-11-27-agents.md").read_text(),
                                               dream_agent.table(report).partition("---:|\n")[2]))
    assert len(made) == 5 and made <= published, made - published
    for player in report["players"].values():
        for place, figures in player.items():
            starts = np.arange(24) % 6 if place == "dream" else np.arange(24)
            again = dream_agent._figures(np.array(figures["returns"]), None, starts)
            assert [figures[name] for name in ("mean", "low", "high")] == pytest.approx(
                [again[name] for name in ("mean", "low", "high")])


def test_ppo_learns_in_dreams_what_is_read_off_them(monkeypatch):
    pytest.importorskip("stable_baselines3")
    from worldplay.experiments import ppo
    monkeypatch.setattr(ppo, "_CURVE", 12)
    env = ppo.TogetherVecEnv(gymnasium.wrappers.vector.RecordEpisodeStatistics(shifts(ppo.PLAYS)))
    agent, returns = ppo.learn(env, frames=4 * 512 * HOLD, seed=0)
    assert agent.num_timesteps == 4 * 512 and len(returns) == 1, "16 episodes"
    torch.manual_seed(0)
    plays = ppo.TogetherVecEnv(shifts(3))
    total, shown, tiles = ppo.drive_episodes(plays, lambda seen: agent.predict(seen)[0], seed=5)
    assert [frames.shape for frames in shown] == 3 * [(1 + EPISODE, 40, 48, 3)] and tiles is None
    assert total == pytest.approx([motion(frames[:-1], frames[1:]).sum() for frames in shown])
    assert total.mean() > 2 * HOLD * EPISODE / len(KEYS), "no better than random actions"


class Counting(gymnasium.Env):
    """Shows how many actions were taken, and ends after so many."""
    observation_space = gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        self.taken = 0
        return self._picture(), {}

    def step(self, action):
        self.taken += 1
        return self._picture(), 1.0, self.taken == self.length, False, {"tiles": self.taken}

    def _picture(self):
        return np.full((36, 36, 3), self.taken, np.uint8)


def test_an_episode_holds_nothing_after_its_end():
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    from worldplay.experiments import ppo
    plays = vec_env.DummyVecEnv([lambda: Counting(2), lambda: Counting(5)])
    total, shown, tiles = ppo.drive_episodes(plays, lambda seen: np.zeros(2, int), seed=0)
    assert [frames[:, 0, 0, 0].tolist() for frames in shown] == [[0, 1, 2], [0, 1, 2, 3, 4, 5]]
    assert total.tolist() == tiles.tolist() == [2, 5]
