"""Gymnasium both ways: its environments as Worlds, our Worlds as environments by their names."""
import importlib
from urllib.parse import parse_qsl

import gymnasium
import numpy as np
from PIL import Image

import worldplay
from worldplay.envs import open_env
from worldplay.envs.gym_actions import gym_actions
from worldplay.errors import WorldError

PREFIX = "gym:"
_REAL = {"DoomMaze": "doom-maze", "DoomArena": "doom-arena", "DoomGallery": "doom-gallery"}
_OPTIONS = ("actions", "repeat", "size", "picture")


def open_gym(name):
    """The GymWorld called "gym:ID" or "gym:ID?option=value&option=value".

    ID is an environment's, as "CarRacing-v3", "module:ID", whose module registers it, or "module:Class". The
    name holds all that decides what is played, so that a data set, a world and a clip can name it.

    actions  what the keys do, as worldplay.envs.gym_actions reads it; without it drawn from the environment
    repeat   steps of the environment that an action holds for, and that a frame shows the last of; 1
    size     "96x96", width x height: pictures are averaged to it
    picture  observation or render; without it the observation where that is a picture

    A module's own code runs: worldplay.envs.open_env lets pass only names that may do that.

        Raises WorldError("not_found") for what cannot be made, ValueError for an option that does not fit.
    """
    env_id, _, query = name.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    strange = sorted(options.keys() - set(_OPTIONS))
    if strange:
        raise ValueError(f"{name}: no option {strange[0]!r}; there are {', '.join(_OPTIONS)}")
    env = _make(env_id, name)
    try:
        actions = gym_actions(env.action_space, options.get("actions", ""), name=env_id,
                              meanings=_meanings(env.unwrapped))
        return GymWorld(env, name=name, action_space=actions.action_space, to_action=actions,
                        repeat=_repeat(options.get("repeat", "1")), size=_size(options.get("size")),
                        picture=options.get("picture"))
    except ValueError as error:
        env.close()
        raise ValueError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from None


def _make(env_id, name):
    """The gymnasium.Env of an id, of "module:ID" or of "module:Class", which renders pictures."""
    module, _, attribute = env_id.rpartition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None) if module else None
        if isinstance(found, type):
            return found(render_mode="rgb_array")
        return gymnasium.make(env_id, render_mode="rgb_array")
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise WorldError("not_found", f"{name}: Gymnasium cannot make it "
                         f"({str(error).strip().splitlines()[0]}); install its package, or name the module "
                         "that registers it: gym:MODULE:ID") from None


def _meanings(env):
    """Names of numbered actions where an environment says them: Atari's games, MiniGrid."""
    if hasattr(env, "get_action_meanings"):
        return env.get_action_meanings()
    names = getattr(env, "actions", ())
    return [x.name for x in names] if isinstance(names, type) else ()


def _repeat(text):
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise ValueError(f"repeat={text}: expected 1 to 100")
    return int(text)


def _size(text):
    if text is None:
        return None
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ValueError(f"size={text}: expected WIDTHxHEIGHT, for example 96x96")
    return int(height), int(width)


class GymWorld:
    """A Gymnasium environment as a World; its frames are its pictures.

    env           the gymnasium.Env, made with render_mode="rgb_array"; a player's function may look at it
    name          what the world is called
    action_space  ActionSpace of the player
    reward        of the latest step; 0.0 after a reset
    """

    def __init__(self, env, *, name, action_space, to_action, repeat=1, size=None, picture=None):
        """to_action: function from an Action to an action of `env`, which holds for `repeat` of its steps.

        size: (H, W) that pictures are averaged to; picture: "observation", "render", or None for the
        observation where that is one.

            Raises ValueError if `env` does not render, or does not say at what rate.
        """
        if env.render_mode != "rgb_array" or not env.metadata.get("render_fps"):
            raise ValueError(f'{name}: make the environment with render_mode="rgb_array" and with render_fps '
                             "in its metadata")
        shows = _is_picture(env.observation_space)
        if picture not in (None, "observation", "render") or picture == "observation" and not shows:
            raise ValueError(f"picture={picture}: expected render" + ", or observation" * shows)
        self.name, self.action_space = name, action_space
        self.fps = float(env.metadata["render_fps"]) / repeat
        self.scenes, self.info = ("start",), {"env": name, "device": "cpu", "path": "gymnasium"}
        if hasattr(to_action, "text"):
            self.info["actions"] = to_action.text
        self.env, self._to_action, self._repeat, self._size, self._seed = env, to_action, repeat, size, 0
        self._observes = shows and picture != "render"
        self._stepping, self._ended, self.reward = False, False, 0.0
        observation, _ = self.env.reset(seed=self._seed)
        self.frame_size = self._picture(observation).shape[:2]

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """Reset the environment with `seed`; see World.

            Raises WorldError("bad_scene") for another scene or for frames.
        """
        if frames is not None or actions is not None or scene not in (None, *self.scenes):
            raise WorldError("bad_scene", f"{self.name}: it starts from a seed, not from a scene or frames")
        self._seed = self._seed if seed is None else seed
        observation, _ = self.env.reset(seed=self._seed)
        self._stepping, self._ended, self.reward = False, False, 0.0
        return self._picture(observation)[None]

    def step(self, action):
        """Yield the picture after `repeat` steps of the environment, or at its end; see World.

            Raises WorldError("ended") after the environment has terminated or truncated the episode.
        """
        if self._stepping:
            raise WorldError("unfinished_step", f"{self.name}: the previous step was not run to its end")
        if self._ended:
            raise WorldError("ended", f"{self.name}: the episode is over; reset to play on")
        self._stepping = True
        action, self.reward = self._to_action(self.action_space.fit(action)), 0.0
        for _ in range(self._repeat):
            observation, reward, terminated, truncated, _ = self.env.step(action)
            self.reward += float(reward)
            self._ended = terminated or truncated
            if self._ended:
                break
        yield self._picture(observation)
        self._stepping = False

    def close(self):
        """Close the environment; calling it twice is fine."""
        self.env.close()

    def _picture(self, observation):
        frame = np.array(observation if self._observes else self.env.render(), np.uint8)
        if self._size is None or frame.shape[:2] == self._size:
            return frame
        return np.array(Image.fromarray(frame).resize(self._size[::-1], Image.Resampling.BOX))


def _is_picture(space):
    return isinstance(space, gymnasium.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 \
        and space.shape[2] == 3 and min(space.shape[:2]) >= 16


class WorldEnv(gymnasium.Env):
    """A World as a Gymnasium environment: pictures in, encoded actions out, no end of its own.

    observation  uint8 [H W 3], RGB: the newest frame
    action       float32 [a] in [-1, 1], encoded: a key is down above 0.5, look is a share of the largest turn
                 of a step
    reward       the world's own where it has one, as a GymWorld does; else 0
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
        """Reset the world; options may hold "scene", one of its scenes. Without a seed it starts from a new
        one, drawn after the last that was given.
        """
        super().reset(seed=seed)
        frames = self._world.reset((options or {}).get("scene"), seed=_next_seed(self, seed))
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
        return self._frame, getattr(self._world, "reward", 0.0), False, False, {"frames": frames}

    def render(self):
        """The newest frame, uint8 [H W 3]."""
        return self._frame

    def close(self):
        self._world.close()


def _next_seed(env, seed):
    return int(env.np_random.integers(2**31)) if seed is None else seed


def real_env(name, render_mode="rgb_array"):
    """The WorldEnv of a real game, a name in ENVS; entry point of worldplay/DoomMaze-v0 and the like."""
    return WorldEnv(open_env(name))


def dream_env(world=None, render_mode="rgb_array", **options):
    """The WorldEnv of a learned world; entry point of worldplay/Dream-v0.

    world    name or folder; None is the default world
    options  as worldplay.load_world takes them: device, steps, seed, prompt
    """
    return WorldEnv(worldplay.load_world(world, **options))


class DreamVectorEnv(gymnasium.vector.VectorEnv):
    """Many plays of one learned world, in a batch, as a Gymnasium vector environment.

    Observations and actions are those of WorldEnv, batched; there is no reward. All plays begin together,
    from the world's scenes in turn, each with noise of its own. After `horizon` steps all are truncated; the
    step after that starts them again, with new noise, whatever its actions are (AutoresetMode.NEXT_STEP).
    """

    def __init__(self, batch, horizon=None):
        """batch: worldplay.engine.batch.DreamBatch; horizon: steps of an episode, None never ends it."""
        world, self.num_envs = batch.world, batch.size
        self.metadata = {"render_fps": world.fps, "autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
        self.single_observation_space = gymnasium.spaces.Box(0, 255, (*world.frame_size, 3), np.uint8)
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (world.action_space.num_channels,), np.float32)
        self.observation_space, self.action_space = (gymnasium.vector.utils.batch_space(space, self.num_envs)
                                                     for space in (self.single_observation_space,
                                                                   self.single_action_space))
        self._batch, self._horizon, self._steps, self._scenes = batch, horizon, 0, None

    def reset(self, *, seed=None, options=None):
        """Start all plays; options may hold "scenes", a name for each, which later starts keep. Without a
        seed they start from a new one, drawn after the last that was given.
        """
        super().reset(seed=seed)
        self._steps, self._scenes = 0, (options or {}).get("scenes", self._scenes)
        return self._batch.reset(self._scenes, seed=_next_seed(self, seed)), {}

    def step(self, actions):
        """The next frame of every play; see gymnasium.vector.VectorEnv."""
        nothing = np.zeros(self.num_envs)
        if self._horizon is not None and self._steps == self._horizon:
            frames, _ = self.reset()
            return frames, nothing, nothing.astype(bool), nothing.astype(bool), {}
        space = self._batch.world.action_space
        frames = self._batch.step(np.stack([space.encode(space.decode(vector)) for vector in actions]))
        self._steps += 1
        is_over = np.full(self.num_envs, self._steps == self._horizon)
        return frames, nothing, nothing.astype(bool), is_over, {}

    def close_extras(self, **kwargs):
        """Close the world."""
        self._batch.world.close()


def dream_vector_env(num_envs, world=None, horizon=None, **options):
    """The DreamVectorEnv of a learned world; vector entry point of worldplay/Dream-v0.

    num_envs  plays in the batch; world, options: as for `dream_env`; horizon: steps of an episode
    """
    return DreamVectorEnv(worldplay.load_world(world, **options).batch(num_envs), horizon)


def _register():
    """Tell Gymnasium the names of our environments; Gymnasium 1 looks for none by itself."""
    for title, name in _REAL.items():
        gymnasium.register(f"worldplay/{title}-v0", entry_point=f"{__name__}:real_env", kwargs={"name": name})
    gymnasium.register("worldplay/Dream-v0", entry_point=f"{__name__}:dream_env",
                       vector_entry_point=f"{__name__}:dream_vector_env")


_register()
