"""Real play that no trainer sees, and what a world makes of the same actions."""
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from worldplay.data.frame_cache import HELD_OUT_EVERY, is_held_out
from worldplay.envs.collect import in_processes, own_world, play_rollout
from worldplay.world import World

# far above the seeds of any collection
_FIRST_SEED = 1_000_000


@dataclass(frozen=True, eq=False)
class Streams:
    """Real streams of equal length; frames from number `context` on are to be predicted.

    frames   uint8 [s n H W 3]; frames[:, i] is what was seen because of actions[:, i]
    actions  float32 [s n a], encoded
    poses    float32 [s n 4], x, y, z in map units and yaw in degrees to the left
    seeds    int [s] of the real game
    context  frames at the start that are given to the world
    """
    frames: np.ndarray
    actions: np.ndarray
    poses: np.ndarray
    seeds: np.ndarray
    context: int

    @property
    def moves(self):
        """float64 [s n 3]: map units forward, to the right, and degrees to the right since the last frame."""
        step = np.diff(self.poses.astype(np.float64), axis=1, prepend=self.poses[:, :1])
        heading = np.deg2rad(self.poses[..., 3].astype(np.float64))
        forward = step[..., 0] * np.cos(heading) + step[..., 1] * np.sin(heading)
        right = step[..., 0] * np.sin(heading) - step[..., 1] * np.cos(heading)
        return np.stack([forward, right, -((step[..., 3] + 180) % 360 - 180)], axis=-1)


@dataclass(kw_only=True, eq=False)
class Material:
    """What the suites measure a world on; the dreams are made once, on first use.

    world        the World under test, with `walk`, `follow` and `reconstruct`
    streams      {player: Streams} of the real environment
    open_real    called without arguments: the real environment, a World
    num_targets  frames of each stream that are predicted one by one
    num_dreams   streams that are also played freely to their end
    walks        frames of each drift walk
    track        wraps an iterable as tqdm does: track(iterable, desc=, total=, unit=)
    """
    world: World
    streams: dict
    open_real: object
    num_targets: int
    num_dreams: int
    walks: tuple[int, ...]
    track: object = field(default=lambda iterable, **_: iterable)
    _dreams: dict = field(default_factory=dict)

    def dreams(self, player):
        """uint8 [r n H W 3]: the first streams played by the world from their (real) context on."""
        if player not in self._dreams:
            streams = self.streams[player]
            jobs = self.track(range(min(self.num_dreams, len(streams.frames))), desc=f"{player}: free play",
                              unit="stream")
            self._dreams[player] = np.stack([dream(self.world, streams, i) for i in jobs])
        return self._dreams[player]


def held_out_seeds(num, skip=0):
    """`num` seeds of play that no trainer sees (worldplay.data.frame_cache.is_held_out), after the first `skip` ones.

    Evaluation takes the first ones, so whoever tunes a world skips them.
    """
    first = _FIRST_SEED + HELD_OUT_EVERY - 1
    seeds = [first + HELD_OUT_EVERY * i for i in range(skip, skip + num)]
    assert all(map(is_held_out, seeds))
    return seeds


def real_streams(env, *, seeds, context, horizon, player, workers):
    """One stream for each seed, `context` + `horizon` frames each.

    env      name in worldplay.envs.ENVS
    player   name in worldplay.envs.players.PLAYERS
    """
    tasks = [(env, context + horizon, seed, player) for seed in seeds]
    return stack(in_processes(_play, tasks, workers), context)


def stack(rollouts, context):
    """Streams made of rollouts of equal length."""
    rollouts = list(rollouts)
    return Streams(*(np.stack([getattr(rollout, name) for rollout in rollouts])
                     for name in ("frames", "actions", "poses", "seed")), context)


def told_in(streams, space, other):
    """The same streams with their actions, encoded by ActionSpace `space`, as `other` says them; keys it lacks go."""
    if space == other:
        return streams
    vectors = streams.actions.reshape(-1, space.num_channels)
    told = np.stack([other.encode(other.fit(space.decode(vector))) for vector in vectors])
    return replace(streams, actions=told.reshape(*streams.actions.shape[:2], -1))


def dream(world, streams, i):
    """uint8 [n H W 3]: stream `i` played by `world` from its context on."""
    decode = partial(map, world.action_space.decode)
    frames, actions = streams.frames[i, :streams.context], streams.actions[i]
    shown = list(world.reset(frames=frames, actions=list(decode(actions[:streams.context]))))
    return np.stack([*shown, *world.walk(list(decode(actions[streams.context:])))])


def _play(task):
    env, num_frames, seed, player = task
    return play_rollout(own_world(env), num_frames=num_frames, seed=seed, player=player)
