"""Packing recorded clips into a LeRobot data set: checked, cut into episodes, a part of them held out."""
import zlib
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from worldplay.data.clip import read_clip
from worldplay.data.clip_recovery import part
from worldplay.data.frame_cache import HELD_OUT_EVERY, Rollout, Source, held_out_positions, numbers_of_sides
from worldplay.data.lerobot import describe
from worldplay.data.lerobot_writer import PACKED_SHARE, SHARD_EPISODES, ShardWriter, check_new, finish
from worldplay.errors import WorldError
from worldplay.files import require_space, visible, writable_folder
from worldplay.log import track

# rows of an episode; the shipped worlds train on windows of 20, and a longer recording is cut into episodes
SHORTEST, LONGEST = 32, 512
PLAYER = "a player"
_SHOWN = 3  # bad clips that are named one by one


@dataclass(frozen=True)
class Piece:
    """One episode: rows start to stop - 1 of clip number `clip`; frame `stop` shows its last action."""
    clip: int
    start: int
    stop: int
    is_held_out: bool = False


def run_pack(paths, *, out):
    """Make the LeRobot folder `out` of recorded clips, with progress on stderr.

    paths    clips (.mp4, .json or without either) and folders of clips
    Returns  dict: out, clips, episodes, held_out_episodes, frames, minutes, lossy, dreamed (share of the
             clips' frames), mib

        Raises ValueError, before anything is written, where `out` holds something, a clip cannot be packed,
        or there is too little to hold a part out.
    """
    out = Path(out)
    check_new(out)
    with track(find_clips(paths), desc="read", unit="clip") as found:
        clips = fit_clips(found)
    source = _source(clips[0])
    pieces = cut([clip.num_frames for clip in clips], gap=round(source.fps))
    writable_folder(out, "the data set")
    num_rows = sum(piece.stop - piece.start for piece in pieces)
    require_space(out, int(num_rows * np.prod(source.frame_size) * 3 * PACKED_SHARE))
    with track(desc="pack", total=num_rows, unit="frame") as bar:
        played = rollouts(((_vectors(clip), clip.frames()) for clip in clips), pieces)
        shards = write_shards(out, source, played, player=PLAYER, progress=bar.update)
    finish(out, source, shards, player=PLAYER, clips=[_facts(clip) for clip in clips])
    facts = describe(out)
    return {"out": str(out), "minutes": 60 * facts["hours"], **{name: facts[name] for name in (
        "clips", "episodes", "held_out_episodes", "frames", "lossy", "dreamed", "mib")}}


# Which clips ------------------------------------------------------------------------------------------------


def find_clips(paths):
    """Paths without suffix of the clips that are named, and of those in folders that are named, each once.

        Raises ValueError where there is none.
    """
    found = {}
    for path in map(Path, paths):
        if path.is_dir():
            folder, names = path, sorted({_name(file) for file in visible(path, "*")} - {None})
        else:
            folder, names = path.parent, [_name(path) or path.name]
        if not names:
            raise ValueError(f"{path}: holds no clips; record some into it (python play.py --record {path})")
        found |= {(folder / name).resolve(): folder / name for name in names}
    if not found:
        raise ValueError("no clips given: name some, or a folder of them")
    return list(found.values())


def _name(file):
    """Name of the clip that a file belongs to, finished or not; None for another file."""
    name, is_part, _ = file.name.partition(".part.")
    if is_part:
        return name
    return file.stem if file.suffix in (".mp4", ".json") else None


def fit_clips(paths):
    """The Clips at `paths`, each read to its last frame.

        Raises ValueError that counts those that cannot be packed and says why of the first three.
    """
    clips, problems, known = [], [], {}
    for path in paths:
        try:
            clip = _read(path)
            content = _check_content(clip)
            if clips:
                _check_same(clip, clips[0])
            if content in known:
                raise ValueError(f"clip {path}: shows the same as {known[content]}; leave one of them out")
        except (ValueError, WorldError) as error:
            problems.append(str(error))
            continue
        known[content] = clip.path.with_suffix("").name
        clips.append(clip)
    if problems:
        numbered = [f"({i}) {text}" for i, text in enumerate(problems, 1)]
        shown = problems if len(problems) == 1 else numbered[:_SHOWN]
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(f"{len(problems)} of {len(problems) + len(clips)} clips cannot be packed, and "
                         f"nothing was written: {'; '.join(shown)}{more}")
    return clips


def _read(path):
    if part(path, "jsonl").exists():
        raise ValueError(f"clip {path}: is still being recorded, or was cut off; the next recording into its "
                         "folder finishes it")
    clip = read_clip(path)
    sidecar = clip.sidecar
    if sidecar["info"].get("path") == "playback":
        raise ValueError(f"clip {path}: was recorded from a recording, whose frames follow no action; pack "
                         "that one")
    if not sidecar["env"]:
        raise ValueError(f"clip {path}: its .json names no environment")
    if clip.num_frames <= SHORTEST:
        raise ValueError(f"clip {path}: {clip.num_frames} frames, expected more than {SHORTEST}; leave it "
                         "out")
    steps = [record["step"] for record in sidecar["frames"]]
    if not {0, 1} >= set(np.diff(steps).tolist()):
        raise ValueError(f"clip {path}: its .json leaves out steps between its frames; restore it from a "
                         "copy")
    try:
        _vectors(clip)
    except ValueError as error:
        raise ValueError(f"clip {path}: {error}") from None
    return clip


def _check_content(clip):
    """CRC-32 of the clip's frames and actions; WorldError for a video that does not fit the sidecar."""
    crc = zlib.crc32(_vectors(clip))
    for frame in clip.frames():
        crc = zlib.crc32(frame, crc)
    return crc


def _check_same(clip, first):
    """Raise ValueError where the clips cannot be in one data set."""
    ours, theirs = _traits(clip), _traits(first)
    for what, value in ours.items():
        if value != theirs[what]:
            raise ValueError(f"clip {clip.path.with_suffix('')}: its {what} {_text(value)}, but "
                             f"{_text(theirs[what])} in {first.path.stem}; pack them apart")


def _traits(clip):
    source = _source(clip)
    space = source.action_space
    return {"environment is": source.name, "keys are": space.keys, "look axes are": space.look_axes,
            "look limit is": space.look_limit, "height and width are": source.frame_size,
            "frames a second are": source.fps}


def _text(value):
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _source(clip):
    sidecar = clip.sidecar
    return Source(name=sidecar["env"], action_space=clip.action_space,
                  frame_size=tuple(sidecar["frame_size"]), fps=sidecar["fps"])


def _facts(clip):
    """The entry of one clip in the data set's info.json; world_hash is None where it shows the real game."""
    sidecar = clip.sidecar
    video = sidecar.get("video")
    return {"name": clip.path.stem, "world": sidecar["world"], "world_hash": sidecar["world_hash"],
            "seed": sidecar["seed"], "scene": sidecar["scene"], "frames": clip.num_frames,
            "lossy": not isinstance(video, dict) or video.get("lossy") is not False}


# Episodes ---------------------------------------------------------------------------------------------------


def cut(lengths, gap):
    """The Pieces that recordings are cut into, every twentieth and at least one of them held out.

    lengths  frames of each recording
    gap      rows left out where a held-out piece touches another one of its recording: neighbouring frames
             show nearly the same

    A recording is cut evenly into pieces of at least as many rows as make 20 in all, or LONGEST where that is
    less, and never so few that two gaps leave less than SHORTEST; one that is shorter than two such pieces
    stays whole.

        Raises ValueError where there is only one piece.
    """
    rows = [length - 1 for length in lengths]  # the last frame has no action
    size = max(min(sum(rows) // HELD_OUT_EVERY, LONGEST), SHORTEST + 2 * gap)
    pieces = []
    for clip, num_rows in enumerate(rows):
        borders = np.linspace(0, num_rows, max(1, num_rows // size) + 1).astype(int).tolist()
        pieces += [Piece(clip, start, stop) for start, stop in zip(borders, borders[1:])]
    if len(pieces) < 2:
        raise ValueError(f"one clip of {lengths[0]} frames: too little to learn from one part and hold out "
                         f"another; record at least {2 * size + 1} frames, better twenty minutes")
    for i in held_out_positions(len(pieces)):
        before, after = (0 <= j < len(pieces) and pieces[j].clip == pieces[i].clip for j in (i - 1, i + 1))
        pieces[i] = replace(pieces[i], start=pieces[i].start + gap * before,
                            stop=pieces[i].stop - gap * after, is_held_out=True)
    return pieces


def rollouts(recordings, pieces):
    """Yield a Rollout for each Piece, in order.

    recordings  iterable of (float32 [n a], the encoded action that caused each frame; iterable of those n
                frames, uint8 [H W 3])
    """
    numbers = numbers_of_sides(piece.is_held_out for piece in pieces)
    for number, (vectors, frames) in enumerate(recordings):
        todo, shown = iter([piece for piece in pieces if piece.clip == number]), []
        piece = next(todo)
        for i, frame in enumerate(frames):
            if i >= piece.start:
                shown.append(frame)
            if i == piece.stop:
                actions = vectors[piece.start:piece.stop + 1].copy()
                actions[0] = 0
                yield Rollout(np.stack(shown), actions, None, next(numbers))
                piece = next(todo, None)
                if piece is None:
                    break
                shown = [frame] if i == piece.start else []


def _vectors(clip):
    """float32 [n a]: the encoded action that caused each frame of the video.

        Raises ValueError for an action that cannot be encoded.
    """
    space, actions = clip.action_space, [action.share(clip.latents_per_action) for action in clip.actions]
    vectors = np.stack([space.encode(actions[record["step"]]) for record in clip.sidecar["frames"]])
    if not np.isfinite(vectors).all():
        raise ValueError("an action in its .json turns by no number of degrees; restore it from a copy")
    return vectors


def write_shards(out, source, rollouts, *, player, progress):
    """Write rollouts of a Source, SHARD_EPISODES to a file; returns the Shards.

    progress  called with the number of rows of every rollout
    """
    shards = []
    while part := list(islice(rollouts, SHARD_EPISODES)):
        writer = ShardWriter(out, source, shard=len(shards), player=player)
        for rollout in part:
            writer.add(rollout)
            progress(len(rollout.frames) - 1)
        shards.append(writer.close())
    return shards
