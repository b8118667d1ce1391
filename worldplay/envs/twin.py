"""The real game behind a learned world, begun where the world's scenes begin."""
from collections import deque
from pathlib import Path

import numpy as np

from worldplay.envs import check_openable, open_env
from worldplay.errors import WorldError
from worldplay.worlds.scene import load_scene, scene_names


def frames_per_step(world):
    """Frames that an open World shows for an action."""
    return world.info.get("frames_per_chunk", 1) * world.info.get("frames_per_latent", 1)


class Twin:
    """A real game as a World (worldplay.world.World) with the scenes of a learned one: the same actions from
    the same start. It can cross processes until its engine has started, which the first reset does.

    game        the World of the real game once it has begun, else None; `environment` is its name
    difference  levels by which the game's picture of the start differs from the scene's at most; 0 where this
                machine has the game that the scene was taken from
    """

    def __init__(self, name, folder, *, action_space, frame_size, fps, frames_per_step=1, env=None):
        """name, action_space, frame_size, fps: of the learned world; folder: of its files.

        frames_per_step  that it makes of an action, which the game gets in equal shares
        env              the game's name where the user gave it: the scenes are files, and what they name is
                         trusted under this name only (worldplay.envs.open_env)
        """
        self.name, self.action_space, self.frame_size, self.fps = name, action_space, tuple(frame_size), fps
        self.folder, self.frames_per_step = Path(folder), frames_per_step
        self.scenes = scene_names(self.folder / "scenes")
        self.info, self.difference = {"device": "cpu"}, 0
        self.game = self.environment = None
        self._env = env

    @classmethod
    def of(cls, world, env=None):
        """The Twin of an open world; WorldError("not_found") where that is no learned one with files."""
        folder = getattr(world, "folder", None)
        if folder is None or not world.info.get("world_hash"):
            raise WorldError("not_found", f"{world.name} is no learned world: no real game is beside it")
        return cls(world.name, folder, action_space=world.action_space, frame_size=world.frame_size,
                   fps=world.fps, frames_per_step=frames_per_step(world), env=env)

    def start(self, scene):
        """The worldplay.worlds.scene.Scene called so; None: a start that is no scene.

            Raises WorldError("bad_scene") where the game cannot be brought there, "not_found" where it is not
            installed or not trusted.
        """
        if scene is None:
            raise WorldError("bad_scene", "The real game cannot be brought to where a picture is; begin in a "
                             "scene")
        if scene not in self.scenes:
            raise WorldError("bad_scene", f"There is no real game behind {self.name}, scene {scene}")
        start = load_scene(self.folder / "scenes" / f"{scene}.safetensors", self.frame_size)
        if not {"environment", "seed"} <= start.origin.keys():
            raise WorldError("bad_scene", f"Scene {scene} does not say where in a real game it is")
        check_openable(start.origin["environment"], self._trusts(start.origin["environment"]))
        return start

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """Bring the game to a scene (None: the first) by its seed, whatever `seed`; see World.

            Raises WorldError as `start` does, also for frames, and what the game raises.
        """
        start = self.start(None if frames is not None else scene or next(iter(self.scenes), "start"))
        self._open(start.origin["environment"])
        shown = [self.game.reset(seed=start.origin["seed"])[-1]]
        for action in start.led:
            shown += self.game.step(action)
        shown = shown[-len(start.frames):]
        self.info = {**self.game.info}
        self.difference = int(np.abs(shown[-1].astype(np.int16) - start.frames[-1]).max())
        return np.stack(shown)

    def step(self, action):
        """Yield the game's frames of an action, one for each that the learned world makes; see World."""
        self._check_begun()
        for share in self.shares([action]):
            yield from self.game.step(share)

    def skip(self, actions):
        """Play Actions whose frames nobody sees, quickly where the game has a way to."""
        self._check_begun()
        if hasattr(self.game, "skip"):
            self.game.skip(self.shares(actions))
        else:
            for share in self.shares(actions):
                deque(self.game.step(share), maxlen=0)

    def shares(self, actions):
        """The Actions that the game gets in their place, one for each frame."""
        return [share for action in actions
                for share in [action.share(self.frames_per_step)] * self.frames_per_step]

    def close(self):
        if self.game is not None:
            self.game.close()
        self.game = None

    def _check_begun(self):
        if self.game is None:
            raise WorldError("ended", f"the real game of {self.name}: reset it before the first step")

    def _open(self, environment):
        """Have the game of that name open; WorldError("bad_scene") where its frames are not the world's."""
        if self.game is not None and environment == self.environment:
            return
        self.close()
        env = open_env(environment, self._trusts(environment))
        if tuple(env.frame_size) != self.frame_size or abs(env.fps - self.fps) > 0.01 * self.fps:
            env.close()
            theirs, ours = ("{} x {} at {:g} frames/s".format(*each.frame_size[::-1], each.fps)
                            for each in (env, self))
            raise WorldError("bad_scene", f"The real {environment} shows {theirs}, {self.name} {ours}")
        self.game, self.environment = env, environment

    def _trusts(self, environment):
        return environment == self._env
