"""Real play that no trainer sees, from a game or a data set, and what a world makes of the same actions."""
from dataclasses import dataclass, field, replace

import numpy as np

from worldplay.action import ActionSpace
from worldplay.data.frame_cache import HELD_OUT_EVERY, is_held_out
from worldplay.eval.statistics import motion
from worldplay.world import World

# the player moved or turned by more than this since the last frame: map units, degrees
_MOVED, _TURNED = 0.5, 0.5
_ANSWERED = 0.25  # of the mean change of the picture under an action, above which it answers
_FIRST_SEED = 1_000_000  # far above the seeds of any collection
_BATCH = 13  # streams; larger ones outgrow a laptop's caches


@dataclass(frozen=True, eq=False)
class Streams:
    """Real streams of equal length; frames from number `context` on are to be predicted.

    frames   uint8 [s n H W 3]; frames[:, i] is what was seen because of actions[:, i]
    actions  float32 [s n a], encoded
    poses    float32 [s n 4], x, y, z in map units and yaw in degrees to the left; None of recordings without
             them
    context  frames at the start that are given to the world
    episodes int [s], number of the episode that each is cut from; given as None, one of its own each
    moving   bool [s n], see is_moving, by the actions from before `encoded_for`; None of others
    """
    frames: np.ndarray
    actions: np.ndarray
    poses: np.ndarray | None
    context: int
    episodes: np.ndarray | None = None
    moving: np.ndarray | None = None

    def __post_init__(self):
        if self.episodes is None:
            object.__setattr__(self, "episodes", np.arange(len(self.frames)))

    @property
    def moves(self):
        """float64 [s n 3]: map units forward, to the right, and degrees to the right since the last frame."""
        step = np.diff(self.poses.astype(np.float64), axis=1, prepend=self.poses[:, :1])
        heading = np.deg2rad(self.poses[..., 3].astype(np.float64))
        forward = step[..., 0] * np.cos(heading) + step[..., 1] * np.sin(heading)
        right = step[..., 0] * np.sin(heading) - step[..., 1] * np.cos(heading)
        return np.stack([forward, right, -((step[..., 3] + 180) % 360 - 180)], axis=-1)

    def is_moving(self, space):
        """bool [s n]: whether the player moved or turned since the last frame.

        Without poses whether the action, of ActionSpace `space`, holds a key or turns and the picture
        answers: it changes by a quarter or more of what it changes under such actions in the mean. It is the
        action that was recorded, also where a world lacks its key, so that all worlds are asked for the same
        frames.
        """
        if self.moving is not None:
            return self.moving
        if self.poses is None:
            keys, look = np.split(self.actions, [len(space.keys)], axis=-1)
            acts = (keys > 0.5).any(-1) | (np.abs(look) * space.look_limit > _TURNED).any(-1)
            acts[:, 0] = False  # no frame before it says what the picture did
            change = np.pad(motion(self.frames), ((0, 0), (1, 0)))
            return acts & (change >= _ANSWERED * change[acts].mean()) if acts.any() else acts
        forward, right, turn = np.moveaxis(self.moves, -1, 0)
        return (np.hypot(forward, right) > _MOVED) | (np.abs(turn) > _TURNED)

    def encoded_for(self, space, other):
        """The same streams with their actions, of ActionSpace `space`, encoded for `other`."""
        return replace(self, actions=encode_for(self.actions, space, other), moving=self.is_moving(space))


@dataclass(kw_only=True, eq=False)
class Material:
    """What the suites measure a world on; free play is made once, on first use.

    world        the World under test, with `follow` and `reconstruct`
    source       worldplay.eval.sources.Game or Recording: where real play comes from
    streams      {player: Streams} of it, with actions as the world encodes them
    num_targets  frames of each stream that are predicted one by one
    num_dreams   streams that are also played freely to their end
    walks        frames of each drift walk
    num_trials   runs against a wall, turns on the spot and walks there and back, each
    advance      called with the work done since the last call, see `work`
    kept         what suites leave for each other, by name
    """
    world: World
    source: object
    streams: dict
    num_targets: int
    num_dreams: int
    walks: tuple[int, ...]
    num_trials: int = 0
    advance: object = field(default=lambda work: None)
    kept: dict = field(default_factory=dict)
    _dreams: dict = field(default_factory=dict)

    def dreams(self, player):
        """uint8 [r n H W 3]: the first streams played by the world from their (real) context on."""
        if player not in self._dreams:
            streams = self.streams[player]
            chosen = slice(self.num_dreams)
            self._dreams[player] = self.play(streams.frames[chosen], streams.actions[chosen], streams.context)
        return self._dreams[player]

    def play(self, frames, actions, context, seed=None):
        """uint8 [s n H W 3]: `context` frames of uint8 [s m H W 3], then free play with actions float32 [s n
        a] and noise of `seed` (None is the world's own).
        """
        made = np.empty((*actions.shape[:2], *frames.shape[2:]), np.uint8)
        made[:, :context] = frames[:, :context]
        for part, i, (shown,) in self.predict(frames, actions, start=context, is_free=True, seed=seed):
            made[part, i] = shown
        return made

    def predict(self, frames, actions, others=(), *, start, is_free=False, seed=None):
        """Yield (slice of streams, frame number, [uint8 [b H W 3], ...]) of DreamWorld.follow, in batches of
        streams.
        """
        for first in range(0, len(actions), _BATCH):
            part = slice(first, first + _BATCH)
            size, done = len(actions[part]), 0
            made = self.world.follow(frames[part], actions[part], [other[part] for other in others],
                                     start=start, is_free=is_free, seed=seed)
            for i, shown in enumerate(made, start):
                yield part, i, shown
                work = self.work(size, i + 1, start, 1 + len(others), is_free)
                self.advance(work - done)
                done = work

    def reconstruct(self, frames):
        """uint8 [s H W 3] through the codec and back: the ceiling of every prediction."""
        made = np.empty_like(frames)
        for first in range(0, len(frames), _BATCH):
            part = slice(first, first + _BATCH)
            made[part] = self.world.reconstruct(frames[part])
            self.advance(2 * len(made[part]))
        return made

    def work(self, streams, frames, start, variants=1, is_free=False):
        """What `predict` of so many streams and frames costs, in passes of one frame through transformer or
        codec.
        """
        committed = frames if not is_free else start
        return streams * (frames + committed + (frames - start) * variants * (1 + self.world.info["steps"]))


def held_out_seeds(num, skip=0):
    """`num` seeds of play that no trainer sees (worldplay.data.frame_cache.is_held_out), after the first
    `skip` ones.

    Evaluation takes the first ones, so whoever tunes a world skips them.
    """
    first = _FIRST_SEED + HELD_OUT_EVERY - 1
    seeds = [first + HELD_OUT_EVERY * i for i in range(skip, skip + num)]
    assert all(map(is_held_out, seeds))
    return seeds


def stack(rollouts, context, episodes=None):
    """Streams made of rollouts of equal length; episodes: see Streams."""
    rollouts = list(rollouts)
    frames, actions = (np.stack([getattr(rollout, name) for rollout in rollouts])
                       for name in ("frames", "actions"))
    has_poses = all(rollout.poses is not None for rollout in rollouts)
    return Streams(frames, actions, np.stack([rollout.poses for rollout in rollouts]) if has_poses else None,
                   context, episodes)


def encode_for(vectors, space: ActionSpace, other: ActionSpace):
    """float32 [... a]: actions encoded by `space` as `other` encodes them; keys that it lacks are left
    out.
    """
    if space == other:
        return vectors
    flat = vectors.reshape(-1, space.num_channels)
    encoded = np.stack([other.encode(other.fit(space.decode(vector))) for vector in flat])
    return encoded.reshape(*vectors.shape[:-1], -1)
