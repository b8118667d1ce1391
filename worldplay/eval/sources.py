"""Where held-out play comes from: a real game that plays any actions, or episodes of a data set."""
import logging
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Iterator

import numpy as np

from worldplay.cores import allowed_cores
from worldplay.data.frame_cache import HELD_OUT_EVERY, FrameCache, Rollout, is_held_out
from worldplay.envs import ENVS, open_env
from worldplay.envs.collect import in_processes, own_world, play_actions
from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.eval.streams import held_out_seeds, stack

log = logging.getLogger(__name__)

_MOST_EPISODES = 64  # of a data set that are read
WALKER = "explorer"
NO_PLAY = "a game of Gymnasium has no held-out play to measure on"
_GOLDEN = 0.618034  # parts of an episode by which one start of a walk lies after the last: never near another


@dataclass(frozen=True, eq=False)
class Walk:
    """A long way through the real thing.

    frames   uint8 [c H W 3], the context that the world starts from
    actions  float32 [c + n a], encoded by the source's action space
    real     yields the n frames after the context, uint8 [H W 3]; read it to its end before the next walk is
             begun
    """
    frames: np.ndarray
    actions: np.ndarray
    real: Iterator[np.ndarray]


class Game:
    """A real game as a source: scripted players give streams, and any script can be played from a held-out
    start.

    players  names of the players in worldplay.envs.players that give streams
    is_game  True: poses are true, and the game plays any sequence of actions
    """
    players, is_game = ("explorer", "tester"), True

    def __init__(self, env, skip=0):
        """env: its name (worldplay.envs.open_env); skip: held-out seeds left to others, see
        `held_out_seeds`.
        """
        self._world, self._skip = open_env(env), skip
        self.name, self.action_space = env, self._world.action_space
        self.frame_size, self.fps = tuple(self._world.frame_size), self._world.fps

    def streams(self, player, num, *, context, horizon):
        """`num` Streams of a player, `context` + `horizon` frames each, on a held-out seed each."""
        script = PLAYERS[player]
        return stack(self.play([(seed, script(self.action_space, context + horizon - 1, seed))
                                for seed in self.seeds(num)]), context)

    def seeds(self, num):
        """The first `num` seeds that no training data was collected from, after the `skip` left out."""
        return held_out_seeds(num, self._skip)

    def play(self, scripts):
        """Rollouts of scripts, in parallel processes: each a seed and encoded actions float32 [n a] after the
        start.
        """
        return list(in_processes(_play, [(self.name, *script) for script in scripts], allowed_cores()))

    def walk(self, number, length, context):
        """The Walk of that number: the explorer's, on the held-out seed of that number."""
        seed = self.seeds(number + 1)[number]
        vectors = PLAYERS[WALKER](self.action_space, context - 1 + length, seed)
        shown = chain(self._world.reset(seed=seed)[-1:], self._shown(vectors))
        frames = np.stack(list(islice(shown, context)))
        return Walk(frames, np.concatenate([np.zeros_like(vectors[:1]), vectors]), shown)

    def check(self):
        """Start the engine once: one that cannot start says so here and not from every process."""
        self._world.reset(seed=0)

    def close(self):
        self._world.close()

    def _shown(self, vectors):
        for vector in vectors:
            yield from self._world.step(self.action_space.decode(vector))


class Recording:
    """The held-out episodes of a data set as a source (`is_held_out` of their seeds), for worlds without a
    game.

    players   one, "recorded"
    is_game   False: only what was recorded can be compared
    """
    players, is_game = ("recorded",), False

    def __init__(self, folder):
        """folder: a LeRobot folder, or a frame cache.

            Raises ValueError for another folder, and for one without held-out episodes.
        """
        self.name, folder = str(folder), Path(folder)
        data, episodes = _cached(folder) if (folder / "index.json").is_file() else _packed(folder)
        self.action_space, self.frame_size, self.fps = data.action_space, tuple(data.frame_size), data.fps
        self._episodes = list(islice(episodes, _MOST_EPISODES))
        if not self._episodes:
            raise ValueError(f"{folder}: no episode is held out (every {HELD_OUT_EVERY}th seed is), so there "
                             "is nothing to measure on that no training saw; record more episodes")

    def streams(self, player, num, *, context, horizon):
        """At most `num` Streams of `context` + `horizon` frames, from as many episodes as there are.

        The horizon is shorter where the longest episode is.

            Raises ValueError where no episode is longer than the context.
        """
        longest = max(len(episode.frames) for episode in self._episodes)
        if longest <= context:
            raise ValueError(f"{self.name}: the longest held-out episode has {longest} frames, and a world "
                             f"is given {context} before the first one it predicts; record longer episodes")
        length = min(context + horizon, longest)
        pieces = [[_cut(episode, start, length)
                   for start in range(0, len(episode.frames) - length + 1, length)]
                  for episode in self._episodes]
        in_turn = [(number, piece) for row in range(max(map(len, pieces)))
                   for number, each in enumerate(pieces) for piece in each[row:row + 1]]
        if len(in_turn) < num or length < context + horizon:
            log.info("%s: %d held-out streams of %d frames", self.name, min(num, len(in_turn)),
                     length - context)
        episodes, chosen = zip(*in_turn[:num])
        return stack(chosen, context, np.array(episodes))

    def walk(self, number, length, context):
        """The Walk of that number: one held-out episode after another, begun anew where they are too few.

        The first walks begin with an episode each, further ones within the episodes.
        """
        usable = [episode for episode in self._episodes if len(episode.frames) > context]
        round_, at = divmod(number, len(usable))
        usable = usable[at:] + usable[:at]
        start = int(round_ * _GOLDEN % 1 * (len(usable[0].frames) - context))
        stop = start + context
        frames = np.asarray(usable[0].frames[start:stop])
        after = chain(zip(usable[0].frames[stop:], usable[0].actions[stop:]), chain.from_iterable(
            zip(episode.frames[1:], episode.actions[1:]) for episode in islice(cycle(usable), 1, None)))
        steps = [(frame, action) for frame, action in islice(after, length)]
        actions = np.concatenate([usable[0].actions[start:stop], np.stack([action for _, action in steps])])
        return Walk(frames, actions, (np.asarray(frame) for frame, _ in steps))

    def check(self):
        """Nothing has to be started."""

    def close(self):
        """Nothing is held open."""


def open_source(name):
    """The source called `name`: the Game of an environment, else the Recording of a folder.

        Raises WorldError("not_found") where there is neither.
    """
    if name in ENVS:
        return Game(name)
    if str(name).startswith("gym:"):
        raise WorldError("not_found", f"{name}: {NO_PLAY}; name the data of a run on it: --against RUN/data")
    if not Path(name).is_dir():
        raise WorldError("not_found", f"{name} is no environment (there are {', '.join(ENVS)}), no folder "
                         "of a data set")
    return Recording(name)


def _cached(folder):
    cache = FrameCache.open(folder)
    rows = ((slice(start, start + length), seed) for start, length, seed in cache.split("held_out").tolist())
    return cache, (Rollout(cache.frames[row], cache.actions[row],
                           None if cache.poses is None else cache.poses[row], seed) for row, seed in rows)


def _packed(folder):
    from worldplay.data.lerobot import LeRobotFolder
    from worldplay.data.lerobot_layout import Layout
    if not Layout.open(folder).is_own:
        raise ValueError(f"{folder} was written by another program and does not say what its actions "
                         "mean; name the frame cache of a run trained on it, RUN/data")
    opened = LeRobotFolder.open(folder)
    return opened.source, (rollout for rollout in opened.rollouts() if is_held_out(rollout.seed))


def _cut(episode, start, length):
    part = slice(start, start + length)
    return Rollout(np.asarray(episode.frames[part]), episode.actions[part],
                   None if episode.poses is None else episode.poses[part], episode.seed)


def _play(task):
    env, seed, vectors = task
    return play_actions(own_world(env), vectors, seed=seed)
