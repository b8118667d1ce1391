"""A small Gymnasium environment of a stranger's: a dot in a corridor whose end ends the episode."""
import gymnasium
import numpy as np

from worldplay.action import Action


class Corridor(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}
    observation_space = gymnasium.spaces.Discrete(64)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, render_mode=None, length=24):
        self.render_mode, self._length = render_mode, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self._colour = int(self.np_random.integers(2, 9)), self.np_random.integers(64, 255, 3)
        return self.at, {}

    def step(self, action):
        self.at = max(0, self.at + (0, -1, 1)[action])
        return self.at, 1.0, self.at >= self._length, False, {}

    def render(self):
        frame = np.zeros((16, 32, 3), np.uint8)
        frame[:, self.at:self.at + 4] = self._colour
        return frame


class Sighted(Corridor):
    observation_space = gymnasium.spaces.Box(0, 255, (16, 32, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 255 - self.render(), {}

    def step(self, action):
        _, *rest = super().step(action)
        return 255 - self.render(), *rest


def to_the_right(world, seed):
    """A player that looks at the environment: two steps to the right, then one to the left."""
    while True:
        yield Action({"a"} if world.env.unwrapped.at % 3 == 2 and seed % 2 else {"d"})
