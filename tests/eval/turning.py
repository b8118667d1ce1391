"""A world that is known exactly, as the real game and as a dream of it: a round picture that turns."""
import numpy as np

from worldplay.action import ActionSpace
from worldplay.envs.collect import play_actions, play_rollout
from worldplay.errors import WorldError
from worldplay.eval.sources import Walk
from worldplay.eval.streams import Material, held_out_seeds, stack

SPACE = ActionSpace(("w", "a", "s", "d"), 12.0, look_axes=1)
HEIGHT, WIDTH = 48, 96
PIXELS_PER_DEGREE = 1


class TurningWorld:
    """A round picture that turns by whole pixels; as a dream it turns the frame it is given, exactly.

    blur      pixels over which a dreamed frame is smeared more at every step, so that it melts
    is_deaf   its dreams ignore the turns
    """

    def __init__(self, blur=0, is_deaf=False):
        self.name, self.action_space, self.frame_size, self.fps = "turning", SPACE, (HEIGHT, WIDTH), 17.5
        self.scenes, self.info = ("start",), {"env": "turning", "window": 4, "device": "cpu", "seed": 0,
                                              "steps": 2,
                                              "world_hash": None, "dtype": "float32", "path": "test"}
        self.blur, self.is_deaf, self._frame, self._is_mid_step = blur, is_deaf, None, False
        self.pose = np.zeros(4, np.float32)

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        self._is_mid_step, self.pose = False, np.zeros(4, np.float32)
        if frames is None:
            frames = texture(0 if seed is None else seed)[None]
        self._frame = frames[-1]
        return frames

    def step(self, action):
        if self._is_mid_step:
            raise WorldError("unfinished_step", "the previous step was not run to its end")
        self._is_mid_step = True
        self.pose = self.pose - np.float32([0, 0, 0, _pixels(action.look[0])])
        self._frame = smeared(self._turned(self._frame, action.look[0]), self.blur)
        yield self._frame
        self._is_mid_step = False

    def follow(self, frames, actions, others=(), *, start, is_free=False, seed=None):
        last = frames[:, start - 1]
        for i in range(start, actions.shape[1]):
            before = last if is_free else frames[:, i - 1]
            made = [np.stack([smeared(self._turned(frame, degrees * SPACE.look_limit),
                                      self.blur if is_free else 0)
                              for frame, degrees in zip(before, given[:, i, -1])])
                    for given in (actions, *others)]
            yield made
            last = made[0]

    def reconstruct(self, frames):
        return frames ^ 1

    def close(self):
        self._frame = None

    def _turned(self, frame, yaw):
        return frame if self.is_deaf else np.roll(frame, -_pixels(yaw), axis=1)


def _pixels(yaw):
    return round(float(yaw) * PIXELS_PER_DEGREE)


def texture(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def smeared(frame, pixels):
    if not pixels:
        return frame
    return np.mean([np.roll(frame, i, 1) for i in range(pixels + 1)], axis=0).astype(np.uint8)


class TurningGame:
    """A TurningWorld as a source (worldplay.eval.sources.Game), played in this process."""
    players, is_game, name = ("explorer", "tester"), True, "turning"
    action_space, frame_size, fps = SPACE, (HEIGHT, WIDTH), 17.5

    def __init__(self):
        self.world = TurningWorld()

    def streams(self, player, num, *, context, horizon):
        return stack((play_rollout(self.world, num_frames=context + horizon, seed=seed, player=player)
                      for seed in self.seeds(num)), context)

    def seeds(self, num):
        return held_out_seeds(num)

    def play(self, scripts):
        return [play_actions(self.world, vectors, seed=seed) for seed, vectors in scripts]

    def walk(self, number, length, context):
        rollout = play_rollout(self.world, num_frames=context + length, seed=self.seeds(number + 1)[-1])
        return Walk(rollout.frames[:context], rollout.actions, iter(rollout.frames[context:]))

    def check(self):
        pass

    def close(self):
        pass


def material(streams, world, **options):
    """A Material of streams of the TurningGame."""
    return Material(**{"world": world, "source": TurningGame(), "streams": streams, "num_dreams": 4,
                       "walks": (100,),
                       "num_targets": 16, "num_trials": 2} | options)
