"""Collecting play of a real environment: scripted players in processes, into Rollouts or a data set."""
import importlib
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count, islice
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path

import numpy as np

from worldplay.cores import allowed_cores
from worldplay.data.frame_cache import HELD_OUT_EVERY, Rollout, Source, is_held_out
from worldplay.data.lerobot_writer import PACKED_SHARE, SHARD_EPISODES, ShardWriter, check_new, finish
from worldplay.envs import open_env
from worldplay.envs.players import PLAYERS
from worldplay.errors import WorldError
from worldplay.files import require_space, writable_folder
from worldplay.log import track

ROLLOUT_FRAMES = 512
# from one start to the next within a stretch of a world that ends: beyond the seeds of other stretches
_NEXT_SEED = 100_000 * HELD_OUT_EVERY

_world = None


def play_rollout(world, *, num_frames, seed, player="explorer"):
    """A Rollout of `num_frames` frames, the start included, or fewer where the world ends before.

    player  as in `script`

        Raises ValueError for an unknown player and a negative seed.
    """
    _check_player(player, seed)
    return play_actions(world, script(player, world, num_frames - 1, seed), seed=seed)


def play_actions(world, vectors, *, seed):
    """A Rollout of encoded actions, an iterable of float32 [a], from a reset with `seed`.

    An action is drawn when the frame before it is there. Play ends with the actions, or where the world ends.
    A world without a `pose` gives a rollout without poses.
    """
    space, has_pose = world.action_space, hasattr(world, "pose")
    frames, actions = [world.reset(seed=seed)[-1]], [np.zeros(space.num_channels, np.float32)]
    poses = [np.array(world.pose)] if has_pose else []
    for vector in vectors:
        try:
            *_, frame = world.step(space.decode(vector))
        except WorldError as error:
            if error.kind != "ended":
                raise
            break
        frames.append(frame)
        actions.append(vector)
        poses += [np.array(world.pose)] if has_pose else []
    return Rollout(np.stack(frames), np.stack(actions), np.stack(poses).astype(np.float32) if has_pose
                   else None, seed)


def script(player, world, num_frames, seed):
    """Yield encoded actions, float32 [a], at most num_frames of them.

    player  a name in PLAYERS, or "module:function": function(world, seed) yields Actions, each after the
            world has shown the frame before it; it may look at the world, of a GymWorld at world.env
    """
    if player in PLAYERS:
        yield from PLAYERS[player](world.action_space, num_frames, seed)
        return
    for action in islice(_function(player)(world, seed), num_frames):
        yield world.action_space.encode(world.action_space.fit(action))


def play_to_the_last(world, *, num_frames, seed, player, spare=0):
    """Yield Rollouts of num_frames frames in all, each with `spare` more: one where the world does not end,
    else one after another.

    The next one's seed is on the same side of the held-out split.
    """
    while num_frames:
        rollout = play_rollout(world, num_frames=num_frames + spare, seed=seed, player=player)
        length = len(rollout.frames) - spare
        if length < 1:
            raise ValueError(f"{world.name}: it ends at its first action, from seed {seed}")
        yield rollout
        num_frames -= length
        seed += _NEXT_SEED


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

    env             as worldplay.envs.open_env takes it, of the user's naming
    seed            of the first rollout; see plan_episodes
    workers         processes that play, each with its own engine
    rollout_frames  frames of each rollout at most
    """
    planned = plan_episodes(num_frames, rollout_frames, seed)
    tasks = [(env, length, own_seed, player) for length, own_seed in planned]
    for rollouts in in_processes(_play, tasks, workers):
        yield from rollouts


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


def own_world(env, trusted=False):
    """The environment called `env`, opened once in this process and closed when the process ends; see
    open_env.
    """
    global _world
    if _world is None or _world.name != env:
        if _world is not None:
            _world.close()
        _world = open_env(env, trusted)
        Finalize(_world, _world.close, exitpriority=10)
    return _world


def _play(task):
    env, num_frames, seed, player = task
    world = own_world(env, trusted=True)
    return list(play_to_the_last(world, num_frames=num_frames, seed=seed, player=player))


def run_collect(env, *, frames, out, seed=0, workers=None, player="explorer"):
    """Play `frames` frames of `env` into a new LeRobot folder `out`, with progress on stderr.

    env      as worldplay.envs.open_env takes it, of the user's naming
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
    check_new(out)
    world = open_env(env, trusted=True)
    # an engine that cannot start says so here, once, and not from every process
    world.reset(seed=seed)
    world.close()
    writable_folder(out, "the data set")
    source = Source.of(world)
    require_space(out, int(frames * np.prod(source.frame_size) * 3 * PACKED_SHARE))
    start, shards = time.monotonic(), []
    tasks = _shards(source, str(out), frames, seed, player)
    with track(total=frames, unit="frame", desc=f"collect {env}") as bar:
        for shard in in_processes(_write_shard, tasks, workers):
            shards.append(shard)
            bar.update(sum(episode["length"] for episode in shard.episodes))
    finish(out, source, shards, player=player)
    episodes = [episode for shard in shards for episode in shard.episodes]
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
        _function(player)


def _function(player):
    """The function that "module:function" names; ValueError where there is none."""
    module, _, name = player.partition(":")
    if not name:
        raise ValueError(f"--player {player}: unknown; there are {', '.join(PLAYERS)}, and functions of your "
                         "own as MODULE:FUNCTION")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--player {player}: {error}; modules are looked for where Python does, in the "
                         "current folder too") from None


def _shards(source, out, num_rows, seed, player):
    """Tasks of _write_shard, one for each file; its stretches are (rows, seed)."""
    stretches = plan_episodes(num_rows, ROLLOUT_FRAMES, seed)
    return [(source, out, player, shard, stretches[i:i + SHARD_EPISODES])
            for shard, i in enumerate(range(0, len(stretches), SHARD_EPISODES))]


def _write_shard(task):
    """Play the stretches of one file and write its video; returns its Shard."""
    source, out, player, shard, stretches = task
    world = own_world(source.name, trusted=True)
    writer = ShardWriter(out, source, shard=shard, player=player)
    for num_rows, seed in stretches:
        # a frame more than rows: the last one of an episode has no action and is dropped
        for rollout in play_to_the_last(world, num_frames=num_rows, seed=seed, player=player, spare=1):
            writer.add(rollout)
    return writer.close()
