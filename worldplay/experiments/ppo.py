"""PPO of Stable-Baselines3 on driving, in dreams or in the real game; imported where that is installed."""
from functools import partial

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from worldplay.experiments.driving import HOLD, real_drive
from worldplay.log import track

PLAYS = 16  # at once
STACK = 2  # pictures that an agent sees: before and after its last action
_STEPS, _EPOCHS, _BATCH = 32, 8, 128  # actions of each play between two updates; passes over them; of a pass
_CURVE = 48  # episodes that a point of the learning curve is the mean of
_GAMMA = 0.97  # sees about 5 seconds ahead


class TogetherVecEnv(VecEnv):
    """A Gymnasium vector environment whose plays all end together, as Stable-Baselines3 wants it."""

    def __init__(self, env):
        self._env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self):
        frames, _ = self._env.reset(seed=self._seeds[0])
        self._reset_seeds()
        return frames

    def step_async(self, actions):
        self._actions = actions

    def step_wait(self):
        frames, rewards, terminated, truncated, _ = self._env.step(self._actions)
        over, infos = terminated | truncated, [{} for _ in rewards]
        if over.all():
            infos = [{"terminal_observation": frame, "TimeLimit.truncated": bool(cut)}
                     for frame, cut in zip(frames, truncated)]
            frames, _ = self._env.reset()
        return frames, np.asarray(rewards, np.float32), over, infos

    def close(self):
        self._env.close()

    def get_attr(self, name, indices=None):
        return [getattr(self._env, name, None) for _ in self._get_indices(indices)]

    def set_attr(self, name, value, indices=None):
        setattr(self._env, name, value)

    def env_method(self, name, *args, indices=None, **kwargs):
        return [getattr(self._env, name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False for _ in self._get_indices(indices)]


def real_plays(name, num=PLAYS):
    """The real game, so many plays of it, one after another in this process."""
    return DummyVecEnv([partial(real_drive, name)] * num)


def learn(plays, *, frames, seed):
    """A PPO that has learned from so many frames.

    plays    VecEnv of pictures
    Returns  (PPO, [mean return of each 48 episodes, in their order; fewer at the end are left out])
    """
    returns, bar = [], track(total=frames, desc="PPO", unit="frame")
    monitored = VecMonitor(plays)
    env = VecNormalize(VecFrameStack(monitored, STACK), norm_obs=False, gamma=_GAMMA)
    model = PPO("CnnPolicy", env, n_steps=_STEPS, batch_size=_BATCH, n_epochs=_EPOCHS, gamma=_GAMMA,
                ent_coef=0.01, seed=seed)

    def note(running, _):
        returns.extend(info["episode"]["r"] for info in running["infos"] if "episode" in info)
        bar.update(HOLD * plays.num_envs)
        return True
    model.learn(frames // HOLD, callback=note)
    bar.close()
    return model, [float(np.mean(returns[i:i + _CURVE])) for i in range(0, len(returns) - _CURVE + 1, _CURVE)]


def drive_episodes(plays, choose, *, seed):
    """One episode of every play of a VecEnv.

    choose   function (stacked pictures uint8 [n H W 3 * STACK]) -> actions [n]
    seed     of the first play
    Returns  (returns [n], [frames uint8 [1 + actions H W 3] of each episode to its end], tiles [n] or None in
             a dream)
    """
    env = VecFrameStack(plays, STACK)
    env.seed(seed)
    seen, num = env.reset(), plays.num_envs
    total, over, tiles = np.zeros(num), np.zeros(num, bool), [None] * num
    shown = [[stacked[..., -3:].copy()] for stacked in seen]
    while not over.all():
        seen, rewards, ended, infos = env.step(choose(seen))
        total += np.where(over, 0, rewards)
        for i in np.flatnonzero(~over):
            last = infos[i]["terminal_observation"] if ended[i] else seen[i]
            shown[i].append(last[..., -3:].copy())
        for i in np.flatnonzero(ended & ~over):
            tiles[i] = infos[i].get("tiles")
        over |= ended
    return total, [np.stack(frames) for frames in shown], None if None in tiles else np.array(tiles)
