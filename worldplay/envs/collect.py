"""Collecting play of a real environment: scripted players in processes, into Rollouts or a data set."""
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np

from worldplay.cores import allowed_cores
from worldplay.data.frame_cache import Rollout, Source, is_held_out
from worldplay.data.lerobot_writer import PACKED_SHARE, SHARD_EPISODES, ShardWriter, check_new, finish
from worldplay.envs import open_env
from worldplay.envs.players import PLAYERS
from worldplay.files import require_space, writable_folder
from worldplay.log import track

ROLLOUT_FRAMES = 512

_world = None


def play_rollout(world, *, num_frames, seed, player="explorer"):
    """A Rollout of `num_frames` frames, the start included, in an open world that has a `pose`.

        Raises ValueError for an unknown player and a negative seed.
    """
    _check_player(player, seed)
    return play_actions(world, PLAYERS[player](world.action_space, num_frames - 1, seed), seed=seed)


def play_actions(world, vectors, *, seed):
    """A Rollout of encoded actions, float32 [n - 1 a], from a reset with `seed`, in a world with a `pose`."""
    actions = np.concatenate([np.zeros((1, world.action_space.num_channels), np.float32), vectors])
    frames = np.empty((len(actions), *world.frame_size, 3), np.uint8)
    poses = np.empty((len(actions), 4), np.float32)
    frames[0], poses[0] = world.reset(seed=seed)[-1], world.pose
    for i in range(1, len(actions)):
        for frame in world.step(world.action_space.decode(actions[i])):
            frames[i] = frame
        poses[i] = world.pose
    return Rollout(frames, actions, poses, seed)


def plan_episodes(num_frames, longest, seed):
    """[(frames, seed)] of the episodes of a collection, at least two and as equal in length as can be.

    longest  frames of an episode at most

    The seeds count up from `seed`. Where none of them is held out, that of the last episode is the next one
    that is.
    """
    num = max(2, -(-num_frames // longest))
    seeds = list(range(seed, seed + num))
    if not any(map(is_held_out, seeds)):
        seeds[-1] = next(filter(is_held_out, count(seeds[-1])))
    return list(zip(np.diff(np.linspace(0, num_frames, num + 1).astype(int)).tolist(), seeds))


def collect_rollouts(env, *, num_frames, seed, workers, player="explorer", rollout_frames=ROLLOUT_FRAMES):
    """Yield Rollouts of `num_frames` frames in all; the same, in the same order, for any number of workers.

    env             a name in ENVS
    seed            of the first rollout; see plan_episodes
    workers         processes that play, each with its own engine
    rollout_frames  frames of each rollout at most
    """
    planned = plan_episodes(num_frames, rollout_frames, seed)
    tasks = [(env, length, own_seed, player) for length, own_seed in planned]
    yield from in_processes(_play, tasks, workers)


def in_processes(function, tasks, workers):
    """Yield function(task) for every task, in order; at most two tasks per process are begun ahead.

        Raises what a task raises, and OSError where a process is killed.
    """
    pool = ProcessPoolExecutor(min(workers, max(len(tasks), 1)), mp_context=get_context("spawn"))
    try:
        pending = deque()
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise OSError(f"one of {workers} processes was killed; where memory ran out fewer are needed: "
                      "--workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def own_world(env):
    """The environment called `env`, opened once in this process and closed when the process ends."""
    global _world
    if _world is None or _world.name != env:
        if _world is not None:
            _world.close()
        _world = open_env(env)
        Finalize(_world, _world.close, exitpriority=10)
    return _world


def _play(task):
    env, num_frames, seed, player = task
    return play_rollout(own_world(env), num_frames=num_frames, seed=seed, player=player)


def run_collect(env, *, frames, out, seed=0, workers=None, player="explorer"):
    """Play `frames` frames of `env` into a new LeRobot folder `out`, with progress on stderr.

    seed     of the first episode; see plan_episodes
    workers  processes; None is one for every core that may be used
    Returns  dict: env, player, seed, out, episodes, held_out_episodes, frames, workers, seconds,
             frames_per_second, mib, bytes_per_frame

        Raises ValueError for fewer than 2 frames (one part is held out), a worker count below 1, a negative
        seed, an unknown player, or an `out` that already holds something.
    """
    out, workers = Path(out), allowed_cores() if workers is None else workers
    if frames < 2:
        raise ValueError(f"--frames {frames}: expected at least 2, an episode to learn from and one that is "
                         "held out")
    if workers < 1:
        raise ValueError(f"--workers {workers}: expected at least 1")
    _check_player(player, seed)
    world = open_env(env)
    check_new(out)
    # an engine that cannot start says so here, once, and not from every process
    world.reset(seed=seed)
    world.close()
    writable_folder(out, "the data set")
    source = Source.of(world)
    require_space(out, int(frames * np.prod(source.frame_size) * 3 * PACKED_SHARE))
    start, episodes = time.monotonic(), []
    tasks = _shards(source, str(out), frames, seed, player)
    with track(total=frames, unit="frame", desc=f"collect {env}") as bar:
        for shard in in_processes(_write_shard, tasks, workers):
            episodes += shard
            bar.update(sum(episode["length"] for episode in shard))
    finish(out, source, episodes, player=player)
    seconds = time.monotonic() - start
    num_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {"env": env, "player": player, "seed": seed, "out": str(out), "episodes": len(episodes),
            "held_out_episodes": sum(is_held_out(episode["seed"]) for episode in episodes), "frames": frames,
            "workers": workers, "seconds": seconds, "frames_per_second": frames / seconds,
            "mib": num_bytes / 2**20, "bytes_per_frame": num_bytes / frames}


def _check_player(player, seed):
    if seed < 0:
        raise ValueError(f"--seed {seed}: expected at least 0")
    if player not in PLAYERS:
        raise ValueError(f"--player {player}: unknown; there are {', '.join(PLAYERS)}")


def _shards(source, out, num_rows, seed, player):
    """Tasks of _write_shard, one for each file: its episodes are (number, first row, rows, seed)."""
    episodes, first = [], 0
    for number, (length, own_seed) in enumerate(plan_episodes(num_rows, ROLLOUT_FRAMES, seed)):
        episodes.append((number, first, length, own_seed))
        first += length
    return [(source, out, player, shard, episodes[i:i + SHARD_EPISODES])
            for shard, i in enumerate(range(0, len(episodes), SHARD_EPISODES))]


def _write_shard(task):
    """Play the episodes of one file and write it; returns their rows of the table of episodes."""
    source, out, player, shard, episodes = task
    world = own_world(source.name)
    number, row, _, _ = episodes[0]
    writer = ShardWriter(out, source, shard=shard, episode=number, row=row, player=player)
    for _, _, num_rows, seed in episodes:
        # one frame more than rows: the last one has no action and is dropped
        writer.add(play_rollout(world, num_frames=num_rows + 1, seed=seed, player=player))
    return writer.close()
