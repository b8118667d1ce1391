"""Driving is the same task dreamed and for real, its reward is read off pictures, and PPO learns in it."""
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

import worldplay
from worldplay.action import ActionSpace
from worldplay.envs import open_env
from worldplay.envs.gymnasium import DreamVectorEnv, WorldEnv
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
    with pytest.raises(ValueError, match=r'pip install "worldplay\[agents\]"'):
        dream_agent.DreamAgent(out=tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


def test_ppo_learns_in_dreams_what_is_read_off_them():
    ppo = pytest.importorskip("worldplay.experiments.ppo")
    env = ppo.TogetherVecEnv(gymnasium.wrappers.vector.RecordEpisodeStatistics(shifts(ppo.PLAYS)))
    agent, returns = ppo.learn(env, frames=4 * 512 * HOLD, seed=0)
    assert agent.num_timesteps == 4 * 512 and len(returns) == 1
    torch.manual_seed(0)
    plays = ppo.TogetherVecEnv(shifts(3))
    total, shown, tiles = ppo.drive_episodes(plays, lambda seen: agent.predict(seen)[0], seed=5)
    assert shown.shape == (3, 1 + EPISODE, 40, 48, 3) and tiles is None
    assert total == pytest.approx([motion(frames[:-1], frames[1:]).sum() for frames in shown])
    assert total.mean() > 2 * HOLD * EPISODE / len(KEYS), "no better than random actions"
