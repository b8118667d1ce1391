"""Gymnasium in both directions: an environment with pictures as a World, a World as an environment."""
import gymnasium
import numpy as np

from worldplay.errors import WorldError


class GymWorld:
    """A Gymnasium environment as a World; its frames are the pictures that the environment renders.

    env           made with render_mode="rgb_array" and render_fps in its metadata
    name          what the world is called
    action_space  ActionSpace of the player
    to_action     function from an Action to an action of `env`
    reward        of the latest step; 0.0 after a reset

        Raises ValueError if `env` does not render, or does not say at what rate.
    """

    def __init__(self, env, *, name, action_space, to_action):
        if env.render_mode != "rgb_array" or not env.metadata.get("render_fps"):
            raise ValueError(f'{name}: make the environment with render_mode="rgb_array" and with render_fps '
                             "in its metadata")
        self.name, self.action_space, self.fps = name, action_space, float(env.metadata["render_fps"])
        self.scenes, self.info = ("start",), {"env": name, "device": "cpu", "path": "gymnasium"}
        self._env, self._to_action, self._seed = env, to_action, 0
        self._stepping, self._ended, self.reward = False, False, 0.0
        self._env.reset(seed=self._seed)
        self.frame_size = self._render().shape[:2]

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """Reset the environment with `seed`; see World.

            Raises WorldError("bad_scene") for another scene or for frames.
        """
        if frames is not None or actions is not None or scene not in (None, *self.scenes):
            raise WorldError("bad_scene", f"{self.name}: it starts from a seed, not from a scene or frames")
        self._seed = self._seed if seed is None else seed
        self._env.reset(seed=self._seed)
        self._stepping, self._ended, self.reward = False, False, 0.0
        return self._render()[None]

    def step(self, action):
        """Yield the frame rendered after one step of the environment; see World.

            Raises WorldError("ended") after the environment has terminated or truncated the episode.
        """
        if self._stepping:
            raise WorldError("unfinished_step", f"{self.name}: the previous step was not run to its end")
        if self._ended:
            raise WorldError("ended", f"{self.name}: the episode is over; reset to play on")
        self._stepping = True
        action = self._to_action(self.action_space.fit(action))
        _, self.reward, terminated, truncated, _ = self._env.step(action)
        self._ended = terminated or truncated
        yield self._render()
        self._stepping = False

    def close(self):
        """Close the environment; calling it twice is fine."""
        self._env.close()

    def _render(self):
        return np.array(self._env.render(), np.uint8)


class WorldEnv(gymnasium.Env):
    """A World as a Gymnasium environment: pictures in, encoded actions out, no reward, no end of its own.

    observation  uint8 [H W 3], RGB: the newest frame
    action       float32 [a] in [-1, 1], encoded: a key is down above 0.5, look is a share of the largest turn
                 of a step
    info         "frames" uint8 [n H W 3]: every frame since the last action
    """

    def __init__(self, world):
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": world.fps}
        self.render_mode = "rgb_array"
        self.observation_space = gymnasium.spaces.Box(0, 255, (*world.frame_size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Box(-1, 1, (world.action_space.num_channels,), np.float32)
        self._space = world.action_space.over(world.info.get("frames_per_chunk", 1))
        self._world, self._frame = world, None

    def reset(self, *, seed=None, options=None):
        """Reset the world; options may hold "scene", one of its scenes."""
        super().reset(seed=seed)
        frames = self._world.reset((options or {}).get("scene"), seed=seed)
        self._frame = frames[-1]
        return self._frame, {"frames": frames}

    def step(self, action):
        """One world step; a world that has ended truncates the episode and shows its last frame again."""
        try:
            frames = np.stack(list(self._world.step(self._space.decode(action))))
        except WorldError as error:
            if error.kind != "ended":
                raise
            return self._frame, 0.0, False, True, {"frames": self._frame[None]}
        self._frame = frames[-1]
        return self._frame, 0.0, False, False, {"frames": frames}

    def render(self):
        """The newest frame, uint8 [H W 3]."""
        return self._frame

    def close(self):
        self._world.close()
