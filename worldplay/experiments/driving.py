"""CarRacing as a task for agents, in the real game and dreamed: few actions, each held, and one reward."""
import gymnasium
import numpy as np

from worldplay.action import Action
from worldplay.envs import open_env
from worldplay.envs.gymnasium import WorldEnv

KEYS = ((), ("a",), ("d",), ("w",), ("s",))  # the game's own five discrete actions
HOLD = 4  # frames that an action holds for
EPISODE = 80  # actions
ZOOM = 28  # frames at the start in which the game zooms in and nobody plays; no dream begins with them


def vectors_of(space):
    """float32 [actions a]: KEYS as an ActionSpace encodes them."""
    return np.stack([space.encode(Action(keys)) for keys in KEYS])


class RealDrive(gymnasium.Wrapper):
    """The real game by numbered actions, each held for HOLD frames.

    observation  uint8 [H W 3], the newest frame
    action       index in KEYS
    reward       the game's own of all these frames: -0.1 a step of the game, two a frame, and 1000 / n for
                 each of the n pieces of road that is reached for the first time; -100 outside the field
    info         "tiles": pieces of road reached since the start
    """

    def __init__(self, name):
        """name: of the game, "gym:worldplay.envs.car_racing:CarRacing" with options."""
        world = open_env(name)
        super().__init__(WorldEnv(world))
        self.action_space = gymnasium.spaces.Discrete(len(KEYS))
        self._vectors, self._game = vectors_of(world.action_space), world.env.unwrapped
        self._game.steps *= HOLD  # and draws the last frame alone

    def reset(self, *, seed=None, options=None):
        frame, info = self.env.reset(seed=seed, options=options)
        for _ in range(ZOOM // HOLD):
            frame, *_ = self.env.step(self._vectors[0])
        return frame, info

    def step(self, action):
        frame, reward, terminated, truncated, _ = self.env.step(self._vectors[action])
        return frame, reward, terminated, truncated, {"tiles": self._game.tile_visited_count}


def real_drive(name):
    """A RealDrive that ends after EPISODE actions."""
    return gymnasium.wrappers.TimeLimit(RealDrive(name), EPISODE)


class DreamDrives(gymnasium.vector.VectorWrapper):
    """Many dreams of the game by numbered actions, as RealDrive's; all are truncated after EPISODE actions.

    reward  what `read` makes of the frames before and after the action; a dream pays none
    """

    def __init__(self, env, space, read):
        """env: DreamVectorEnv without a horizon; space: its world's ActionSpace.

        read: function (before, after uint8 [n H W 3]) -> rewards [n].
        """
        super().__init__(env)
        self.single_action_space = gymnasium.spaces.Discrete(len(KEYS))
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, env.num_envs)
        self._vectors, self._read, self._frames, self._steps = vectors_of(space), read, None, 0

    def reset(self, *, seed=None, options=None):
        self._frames, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        return self._frames, info

    def step(self, actions):
        """As gymnasium.vector.VectorEnv; whoever steps resets, when all are truncated."""
        before = self._frames
        for _ in range(HOLD):
            self._frames, _, terminated, truncated, _ = self.env.step(self._vectors[actions])
        self._steps += 1
        return self._frames, self._read(before, self._frames), terminated, truncated | (
            self._steps == EPISODE), {}
