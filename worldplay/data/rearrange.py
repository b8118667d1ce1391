"""Merging and splitting worldplay's data sets: whole episodes go into a new folder, pixel for pixel."""
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from worldplay.data.frame_cache import Rollout
from worldplay.data.lerobot import LeRobotFolder, checked_frames, describe, text_of
from worldplay.data.lerobot_frames import camera_frames
from worldplay.data.lerobot_layout import Layout
from worldplay.data.lerobot_writer import (
    PACKED_SHARE,
    SHARD_EPISODES,
    STATE,
    ShardWriter,
    check_new,
    finish,
)
from worldplay.files import require_space, writable_folder
from worldplay.log import track


def run_merge(folders, *, out):
    """Write all episodes of several data sets, one set after another, into the new folder `out`.

    Each episode keeps its seed, and so its side of the held-out split. Poses stay where all sets have them;
    where the sets' largest turns of a frame differ, turns are encoded anew for the largest.

    Returns  dict: out, episodes, held_out_episodes, frames, mib

        Raises ValueError, before anything is written, where fewer than two are given, two hold the same play,
        or they differ in environment, keys, frame size or rate, or one is another program's.
    """
    folders = [Path(folder) for folder in folders]
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("merge: name two data sets or more, each once")
    opened = [_open(folder) for folder in folders]
    for each in opened[1:]:
        _check_same(each, opened[0])
    _check_disjoint(opened)
    return _write([(each, range(len(each.episodes))) for each in opened], Path(out))


def _check_same(opened, first):
    """Raise ValueError where two data sets are of different play."""
    ours, theirs = opened.source, first.source
    for what, mine, other, remedy in (
            ("environment", ours.name, theirs.name, "; dataset import --name gives imports one name"),
            ("keys", ours.action_space.keys, theirs.action_space.keys, ""),
            ("look axes", ours.action_space.look_axes, theirs.action_space.look_axes, ""),
            ("frame size", ours.frame_size, theirs.frame_size, ""), ("fps", ours.fps, theirs.fps, "")):
        if mine != other:
            raise ValueError(f"{opened.path} and {first.path} differ in {what} ({mine} and {other}); only "
                             f"data sets of the same play are merged{remedy}")


def _check_disjoint(opened):
    """Raise ValueError where an episode, or a clip that episodes were cut from, is in two data sets.

    Cut otherwise, what one set holds out would be trained on in the other.
    """
    known = {}
    for each in opened:
        clips = [(clip["name"], clip["seed"], clip["frames"], clip["world_hash"]) for clip in each.info[
            "worldplay"].get("clips", ()) if "world_hash" in clip]
        for material in [("frames", episode["frames_crc32"]) for episode in each.episodes] + clips:
            other = known.setdefault(material, each.path)
            if other != each.path:
                raise ValueError(f"{each.path} and {other} hold the same play, so that what one holds out "
                                 "the other trains on; pack all clips into one set, or leave one out")


def run_split(folder, *, episodes, out):
    """Write some episodes of a data set, in their order, into the new folder `out`; the set stays as it is.

    episodes  as `chosen_episodes` reads it
    Returns   as run_merge

        Raises ValueError, before anything is written, as chosen_episodes does, and for a set of another
        program.
    """
    opened = _open(Path(folder))
    return _write([(opened, chosen_episodes(episodes, len(opened.episodes)))], Path(out))


def chosen_episodes(text, num):
    """Sorted numbers below num of "0:50", "60,70:" and the like; START:STOP as Python slices, STOP left out.

        Raises ValueError where that chooses none, or cannot be read.
    """
    chosen = set()
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(?:(\d+)|(\d*):(\d*))\s*", part)):
            raise ValueError(f"--episodes {text}: expected numbers and ranges such as 0:50,60 (50 is left "
                             "out)")
        one, start, stop = match.groups()
        chosen |= {int(one)} if one else set(range(int(start or 0), int(stop or num)))
    strange = sorted(number for number in chosen if number >= num)
    if strange or not chosen:
        what = f"episode {strange[0]}" if strange else "none"
        raise ValueError(f"--episodes {text}: chooses {what}; there are 0 to {num - 1}")
    return sorted(chosen)


def _open(folder):
    if not Layout.open(folder).is_own:
        raise ValueError(f"{folder}: was written by another program, which has tools of its own for that "
                         "(lerobot-edit-dataset); only worldplay's data sets are merged and split here")
    return LeRobotFolder.open(folder)


def _write(parts, out):
    """Write the chosen episodes of (LeRobotFolder, numbers) into `out`."""
    check_new(out)
    source, has_poses = parts[0][0].source, all(opened.has_poses for opened, _ in parts)
    limit = max(opened.source.action_space.look_limit for opened, _ in parts)
    source = replace(source, action_space=replace(source.action_space, look_limit=limit))
    writable_folder(out, "the data set")
    num_rows = sum(opened.episodes[i]["length"] for opened, numbers in parts for i in numbers)
    require_space(out, int(num_rows * np.prod(source.frame_size) * 3 * PACKED_SHARE))
    players = list(dict.fromkeys(opened.info["worldplay"]["player"] for opened, _ in parts))
    player, shards = " and ".join(players), []
    rollouts = (rollout for opened, numbers in parts for rollout in _whole_episodes(opened, numbers, limit))
    with track(desc="write", total=num_rows, unit="frame") as bar:
        while batch := list(islice(rollouts, SHARD_EPISODES)):
            writer = ShardWriter(out, source, shard=len(shards), player=player)
            for rollout in batch:
                writer.add(rollout if has_poses else replace(rollout, poses=None))
                bar.update(len(rollout.frames) - 1)
            shards.append(writer.close())
    clips = [clip for opened, _ in parts for clip in opened.info["worldplay"].get("clips", ())]
    finish(out, source, shards, player=player, clips=clips)
    facts = describe(out)
    return {"out": str(out), **{name: facts[name] for name in (
        "episodes", "held_out_episodes", "frames", "mib")}}


def _whole_episodes(opened, numbers, look_limit):
    """Yield the episodes of these numbers as ShardWriter takes them: with a frame more than rows."""
    wanted, layout, space = set(numbers), opened.layout, opened.source.action_space
    scale = np.ones(space.num_channels, np.float32)
    if look_limit:
        scale[len(space.keys):] = space.look_limit / look_limit
    names = ["action", *[STATE] * opened.has_poses]
    for number, (episode, frames) in enumerate(zip(layout.episodes, camera_frames(layout, opened.camera))):
        if number > max(wanted):
            return
        pixels = list(checked_frames(frames, layout, episode, opened.camera))
        if number not in wanted:
            continue
        rows = layout.rows(episode, names)
        actions = np.concatenate([np.zeros_like(rows["action"][:1]), rows["action"] * scale])
        poses = np.concatenate([rows[STATE], rows[STATE][-1:]]) if opened.has_poses else None
        yield Rollout(np.stack([*pixels, pixels[-1]]), actions, poses, episode["seed"], text_of(episode))
