"""Videos with logs of their input into a data set: brought to one rate and size, their offset searched."""
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from worldplay.action import Action
from worldplay.data.alignment import REACH, Motion, Offset, search
from worldplay.data.contact_sheet import write_contact_sheet
from worldplay.data.footage import VideoFootage, steady
from worldplay.data.frame_cache import Source
from worldplay.data.importing import ActionColumns, FrameFit
from worldplay.data.input_log import SUFFIXES, TAKE, Inputs, check_numbers, columns_of, own_actions, read_log
from worldplay.data.lerobot import describe
from worldplay.data.lerobot_writer import PACKED_SHARE, check_new, finish
from worldplay.data.named_formats import (
    CSGO_ACTIONS,
    CSGO_FPS,
    VPT_ACTIONS,
    VPT_FPS,
    CsgoFootage,
    read_vpt,
)
from worldplay.data.pack import PLAYER, SHORTEST, cut, rollouts, write_shards
from worldplay.data.stills import VIDEOS
from worldplay.files import require_space, visible, writable_folder
from worldplay.log import track

FPS, FIT = 20.0, "resize 160x112"
MAX_FPS = 1000  # frames a second of a data set
_LOOK_SHARE = 99.5  # percent of the frames that turn which turn no more than the world's look limit


@dataclass(frozen=True, eq=False)
class Recording:
    """One video, read once.

    footage   its pictures
    log       InputLog
    motion    Motion of its frames at the data set's rate
    size      (H, W) pixels
    repeated  share of those frames that show the picture of the frame before
    """
    footage: object
    log: object
    motion: Motion
    size: tuple[int, int]
    repeated: float

    @property
    def num_frames(self):
        return len(self.motion.energy)


@dataclass(frozen=True, eq=False)
class Part:
    """What is used of a Recording: frames first to stop - 1, with the degrees and keys that led to each.

    actions  float64 [stop - first, a], keys 0 or 1 and look in degrees
    offset   seconds by which its log was moved
    found    Offset of the search
    """
    recording: Recording
    first: int
    stop: int
    actions: np.ndarray
    offset: float
    found: Offset


def run_import(videos, *, out, **options):
    """make_data_set in a folder that is new or empty."""
    check_new(Path(out))
    return make_data_set(videos, out=out, **options)


def make_data_set(videos, *, out, logs=(), format="log", actions=None, time=None, events=None, fps=None,
                  fit=None, offset="0", name=None):
    """Make the LeRobot folder `out` of videos and the logs of their input, with progress on stderr.

    videos   files, or folders of them; with format "csgo" HDF5 files
    logs     one for each video; none: NAME.csv, .json, .jsonl or .parquet beside NAME.mp4
    format   "log", as read_log reads them; "vpt" or "csgo"
    actions  as ActionColumns.parse reads it; time, events: as read_log does
    fps      frames a second of the data set; fit: as FrameFit.parse reads it
    offset   seconds to add to the logs' times, or "auto": what the search finds
    name     of the environment; None is the folder's
    Returns  dict: out, episodes, held_out_episodes, frames, minutes, mib, fps, actions, fit, look_limit,
             contact_sheet, left_out (videos that are too short), recordings (of each what was used)

        Raises ValueError, before anything is written, for what cannot be read or does not belong together.
    """
    out = Path(out)
    seconds = read_offset(offset)
    if fps is not None:
        check_rate(fps, f"--fps {fps}")
    pairs = _pairs(videos, logs, format, time, events)
    read = [log for _, log in pairs]
    is_take = all(log.header.get("format") == TAKE for log in read)
    columns = columns_of(read)
    text = actions or {"vpt": VPT_ACTIONS, "csgo": CSGO_ACTIONS}.get(format) or read[0].header.get("actions")
    mapping = ActionColumns.parse(text or own_actions(read), columns)
    check_numbers(read, mapping.features)
    keys = mapping.space({})
    if fps is None:
        fps = read[0].header.get("fps", {"vpt": VPT_FPS, "csgo": CSGO_FPS}.get(format, FPS))
        check_rate(fps, f"{read[0].path}: fps {fps!r} in its first line")
    fps = float(fps)
    fit = FrameFit.parse(fit or FIT) if fit or not is_take else None
    with track(pairs, desc="read", unit="video") as bar:
        recordings = [_read(footage, log, fps, fit) for footage, log in bar]
    parts = [_part(recording, Inputs(recording.log, mapping, keys), fps, seconds) for recording in recordings]
    left_out = [part for part in parts if part.stop - part.first <= SHORTEST]
    parts = [part for part in parts if part not in left_out]
    if not parts:
        raise ValueError(f"{left_out[0].recording.footage.path}: {left_out[0].stop - left_out[0].first} "
                         f"frames, expected more than {SHORTEST}; record longer")
    source = Source(name=name or out.resolve().name, frame_size=_one_size(parts, fit), fps=fps,
                    action_space=mapping.space(_look_limits(parts, keys)))
    pieces = cut([part.stop - part.first for part in parts], gap=round(fps))
    writable_folder(out, "the data set")
    num_rows = sum(piece.stop - piece.start for piece in pieces)
    require_space(out, int(num_rows * np.prod(source.frame_size) * 3 * PACKED_SHARE))
    with track(desc="import", total=num_rows, unit="frame") as bar:
        played = rollouts(((_vectors(part, source.action_space), _frames(part, fps, fit)) for part in parts),
                          pieces)
        shards = write_shards(out, source, played, player=PLAYER, progress=bar.update)
    finish(out, source, shards, player=PLAYER, clips=[_facts(part, is_take) for part in parts])
    facts = describe(out)
    return {"out": str(out), **{name: facts[name] for name in ("episodes", "held_out_episodes", "frames")},
            "minutes": 60 * facts["hours"], "mib": facts["mib"], "fps": fps, "actions": mapping.text,
            "fit": fit and f"{fit.how} {fit.size[1]}x{fit.size[0]}",
            "look_limit": source.action_space.look_limit if source.action_space.look_axes else None,
            "contact_sheet": str(write_contact_sheet(out)),
            "left_out": [str(part.recording.footage.path) for part in left_out],
            "recordings": [_used(part, fps) for part in parts]}


# What is read -----------------------------------------------------------------------------------------------


def read_offset(text):
    """Seconds of "0.1", None of "auto"; ValueError otherwise."""
    if text == "auto":
        return None
    try:
        seconds = float(text)
        if not np.isfinite(seconds):
            raise ValueError
    except ValueError:
        raise ValueError(f"--offset {text}: expected a number of seconds, or auto") from None
    return seconds


def check_rate(fps, where):
    """Raise ValueError, beginning with `where`, for what are no frames a second."""
    if not isinstance(fps, int | float) or not 0 < fps <= MAX_FPS:
        raise ValueError(f"{where}: expected frames a second, more than 0 and at most {MAX_FPS}; --fps "
                         f"{FPS:g} is the usual rate")


def _pairs(videos, logs, format, time, events):
    """[(footage, InputLog)] of the videos named."""
    suffixes = (".hdf5", ".h5") if format == "csgo" else VIDEOS
    paths = []
    for path in map(Path, videos):
        found = [file for file in visible(path, "*") if file.suffix.lower() in suffixes]
        if path.is_dir() and not found:
            raise ValueError(f"{path}: holds no {' or '.join(suffixes)} file")
        paths += found or [path]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing or not paths:
        raise ValueError(f"{missing}: no such video" if missing else "no videos given")
    if format == "csgo":
        if logs:
            raise ValueError("--log: files of --format csgo hold their actions themselves; leave it out")
        footages = [CsgoFootage(path) for path in paths]
        return [(footage, footage.log()) for footage in footages]
    if logs and len(logs) != len(paths):
        raise ValueError(f"--log: {len(logs)} logs for {len(paths)} videos; name one for each, in their "
                         "order")
    logs = list(map(Path, logs)) or [_beside(path) for path in paths]
    read = read_vpt if format == "vpt" else lambda path: read_log(path, time=time, events=events)
    return [(VideoFootage(path), read(log)) for path, log in zip(paths, logs)]


def _beside(video):
    found = [video.with_suffix(suffix) for suffix in SUFFIXES if video.with_suffix(suffix).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{video}: beside it are {' and '.join(file.name for file in found)}; name one with "
                         "--log")
    raise ValueError(f"{video}: no log of its input is given (--log) or lies beside it ({video.stem}.csv, "
                     ".json, .jsonl or .parquet). A world learns what every key does from the keys that made "
                     "each frame, so a video alone is not enough: record both (record-desktop does)")


def _read(footage, log, fps, fit):
    facts = {"again": 0, "size": None}

    def tiny():
        for picture, again in steady(footage.pictures(), fps):
            if facts["size"] not in (None, picture.size) and fit is None:
                raise ValueError(f"{footage.path}: its pictures change their size; say --fit \"{FIT}\"")
            facts["size"] = facts["size"] or picture.size
            facts["again"] += again
            yield picture.tiny()
    motion = Motion.of(tiny())
    if fit:
        fit.check(facts["size"])
    return Recording(footage, log, motion, facts["size"], facts["again"] / len(motion.energy))


def _part(recording, inputs, fps, seconds):
    """The Part of a recording that its log covers; seconds: its offset, None for the one that is found."""
    log, num = recording.log, recording.num_frames
    times = np.arange(num) / fps
    found = search(recording.motion, inputs, times)
    if seconds is None:
        if not found.is_clear:
            raise ValueError(f"--offset auto: {recording.footage.path}: the best is {found}; within "
                             f"{REACH:g} s nothing stands out: look at the contact sheet of --offset 0, and "
                             "give the seconds")
        seconds = found.seconds
    first, stop = 0, num
    begin, end = log.times[0] + seconds, log.times[-1] + seconds
    if not log.is_events:  # it says nothing of the time before its first row and after its last one
        first = max(0, int(np.ceil(begin * fps - 1e-3)))
        stop = min(num, int(np.floor(end * fps + 1e-3)) + 1)
    if stop - first < 2 or end < 0 or begin >= times[-1]:
        raise ValueError(f"{log.path}: its times, {begin:.2f} to {end:.2f} s, are not those of the video, 0 "
                         f"to {times[-1]:.2f} s; say with --offset how many seconds to add, with --time how "
                         "long 1 is")
    actions = np.concatenate([np.zeros((1, inputs.between(times[:2]).shape[1])),
                              inputs.between(times[first:stop] - seconds)])
    return Part(recording, first, stop, actions, seconds, found)


def _one_size(parts, fit):
    """(H, W) of the frames of all parts."""
    if fit:
        return fit.size
    first, *others = (part.recording for part in parts)
    for other in others:
        if other.size != first.size:
            raise ValueError(f"{other.footage.path}: {other.size[1]}x{other.size[0]} pixels, but "
                             f"{first.size[1]}x{first.size[0]} in {first.footage.path}; say --fit \"{FIT}\"")
    return first.size


def _look_limits(parts, space):
    """{"look_yaw": degrees, ...}: what nearly all frames that turn stay within, so that a single jerk of the
    mouse does not make every other turn small.
    """
    names, limits = ("look_yaw", "look_pitch")[:space.look_axes], {}
    for i, name in enumerate(names, len(space.keys)):
        degrees = np.abs(np.concatenate([part.actions[:, i] for part in parts]))
        turned = degrees[degrees > 0]
        limits[name] = float(np.percentile(turned, _LOOK_SHARE)) if len(turned) else 0.0
    return limits


# What is written --------------------------------------------------------------------------------------------


def _vectors(part, space):
    """float32 [n a]: the encoded actions; what turns more than the look limit is cut to it."""
    keys = len(space.keys)
    return np.stack([space.encode(Action({key for key, down in zip(space.keys, row) if down}, (
        *row[keys:], 0.0, 0.0)[:2])) for row in part.actions])


def _frames(part, fps, fit):
    """Yield the frames of a part, uint8 [H W 3]."""
    frame = None
    for picture, again in islice(steady(part.recording.footage.pictures(), fps), part.first, part.stop):
        if frame is None or not again:
            frame = fit.apply(picture.rgb()) if fit else picture.rgb()
        yield frame


def _facts(part, is_take):
    """The entry of a video in the data set's info.json; what a take stores is exactly what was captured."""
    return {"name": Path(part.recording.footage.path).stem, "world": None, "world_hash": None, "seed": None,
            "scene": None, "frames": part.stop - part.first, "lossy": not is_take,
            "log": part.recording.log.path.name, "offset": part.offset}


def _used(part, fps):
    recording, found = part.recording, part.found
    return {"video": str(recording.footage.path), "frames": part.stop - part.first,
            "first_second": part.first / fps, "repeated": recording.repeated,
            "damage": recording.footage.damage, "offset": part.offset,
            "search": {"offset": found.seconds, "share": found.share, "at_zero": found.at_zero,
                       "elsewhere": found.elsewhere, "measured": found.measured, "columns": found.columns,
                       "clear": found.is_clear, "wrong_way": found.is_wrong_way, "text": str(found)}}
