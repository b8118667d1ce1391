"""LeRobot folders, ours and those of other programs, as training reads them."""
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from worldplay.cores import allowed_cores
from worldplay.data.frame_cache import Rollout, Source, is_held_out, write_frame_cache
from worldplay.data.importing import LOOK, ActionColumns, FrameFit, action_columns
from worldplay.data.lerobot_frames import camera_frames, stretches
from worldplay.data.lerobot_layout import Layout
from worldplay.data.lerobot_writer import STATE

# rows of a rollout at most: an episode of another program may be longer than memory
MAX_ROWS = 1024
_AT_ONCE = 32  # frames that are scaled together, each by a thread


@dataclass(frozen=True, kw_only=True)
class LeRobotFolder:
    """A finished data set, one of its cameras, and its actions; `rollouts` reads the frames.

    camera   name of the feature whose pictures are read
    source   Source of the play; in a folder by another program its action space follows from `columns`
    columns  ActionColumns of a folder by another program; None of our own, whose actions are encoded already
    fit      FrameFit of the frames; None leaves them as they are
    """
    layout: Layout
    camera: str
    source: Source
    columns: ActionColumns | None
    fit: FrameFit | None

    @classmethod
    def open(cls, folder, *, camera=None, actions=None, fit=None):
        """The data set in `folder`.

        camera   name of the camera, where there are several
        actions  which action columns are which keys, as ActionColumns.parse reads it; needed for other
                 programs' folders
        fit      as FrameFit.parse reads it

            Raises ValueError where it is unfinished, of another format, or contradicts itself, and for a
            camera or columns that are not named or not there.
        """
        layout = Layout.open(folder)
        camera, fit = _camera(layout, camera), FrameFit.parse(fit) if fit else None
        size = layout.frame_size(camera)
        if fit:
            fit.check(size)
            size = fit.size
        if layout.is_own:
            if actions:
                raise ValueError(f"--actions: {folder} was written by worldplay, whose actions need none; "
                                 "leave it out")
            own = Source.from_json(layout.info["worldplay"])
            columns, source = None, replace(own, frame_size=size)
        else:
            columns = _columns(layout, actions)
            space = columns.space(_largest_look(layout, columns))
            source = Source(name=Path(folder).resolve().name, action_space=space, frame_size=size,
                            fps=float(layout.fps))
        return cls(layout=layout, camera=camera, source=source, columns=columns, fit=fit)

    @property
    def path(self):
        return self.layout.path

    @property
    def info(self):
        return self.layout.info

    @property
    def episodes(self):
        return self.layout.episodes

    @property
    def num_frames(self):
        return self.layout.num_frames

    @property
    def is_own(self):
        """Whether worldplay wrote it."""
        return self.layout.is_own

    @property
    def has_poses(self):
        """Whether it has the player's poses; recorded clips and folders by other programs have none."""
        return self.is_own and STATE in self.info["features"]

    @property
    def is_lossy(self):
        """Whether its frames come from lossy video, which no codec that ships is trained on."""
        return self.info["worldplay"].get("lossy", False) if self.is_own else True

    @property
    def is_others(self):
        """Whether another program compressed its pictures: a folder of one, or videos that were imported."""
        return not self.is_own or any("log" in clip for clip in self.info["worldplay"].get("clips", ()))

    @property
    def dreamed(self):
        """Share of its frames that a learned world made, 0 to 1."""
        clips = self.info.get("worldplay", {}).get("clips", ())
        dreamed = sum(clip["frames"] for clip in clips if clip["world_hash"])
        return dreamed / max(1, self.num_frames, sum(clip["frames"] for clip in clips))

    @cached_property
    def parts(self):
        """[(episode, start, stop)] of every rollout in order: rows of an episode, which is read in parts of
        equal length, MAX_ROWS at most, so that none is too short for a window.
        """
        found = []
        for episode in self.episodes:
            num_parts = -(-episode["length"] // MAX_ROWS)
            borders = np.linspace(0, episode["length"], num_parts + 1).astype(int).tolist()
            found += [(episode, *rows) for rows in zip(borders, borders[1:])]
        return found

    def rollouts(self, parts=None):
        """Yield Rollouts of these of `parts`, in their order; None is all.

        Of an episode that is read whole the checksum is compared.

            Raises ValueError, naming file and row or frame, at the first one that contradicts the tables.
        """
        names = ["action", *[STATE] * self.has_poses] if self.is_own else self.columns.features
        with ThreadPoolExecutor(allowed_cores()) as fitters:  # scaling a frame takes longer than decoding it
            yield from self._rollouts(_runs(self.parts if parts is None else parts), names, fitters)

    def _rollouts(self, runs, names, fitters):
        wanted = [(episode, borders[0], borders[-1]) for episode, borders in runs]
        for (episode, borders), frames in zip(runs, stretches(self.layout, self.camera, wanted), strict=True):
            rows = self.layout.rows(episode, names)
            vectors = rows["action"] if self.is_own else self.columns.encode(rows, self.source.action_space)
            # a row holds the action taken at its frame, a Rollout the action that led to the frame
            actions = np.concatenate([np.zeros_like(vectors[:1]), vectors[:-1]])
            if borders[-1] - borders[0] == episode["length"]:
                frames = checked_frames(frames, self.layout, episode, self.camera)
            for start, stop in zip(borders, borders[1:]):
                part = slice(start, stop)
                pixels = np.empty((stop - start, *self.source.frame_size, 3), np.uint8)
                for i in range(0, len(pixels), _AT_ONCE):
                    taken = list(islice(frames, len(pixels[i:i + _AT_ONCE])))
                    pixels[i:i + _AT_ONCE] = list(fitters.map(self.fit.apply, taken)) if self.fit else taken
                vectors = actions[part].copy()
                vectors[0] = 0  # null at the start of every rollout
                poses = rows[STATE][part] if self.has_poses else None
                yield Rollout(pixels, vectors, poses, episode["seed"], text_of(episode))
            next(frames, None)  # compares the checksum


def verify(folder, *, progress=None):
    """Read a data set to its last pixel and return its Layout; nothing is repaired.

    Every field that training or LeRobot reads is compared with the others, of every camera.

    progress  called with the number of frames of every episode read

        Raises ValueError, naming file, row and field, at the first thing that is not as written.
    """
    layout = Layout.open(folder)
    num_tasks = layout.check_rest()
    for episode in layout.episodes:
        tasks = layout.rows(episode, layout.number_fields)["task_index"]
        if not ((0 <= tasks) & (tasks < num_tasks)).all():
            raise ValueError(f"{episode['data']}: field task_index of episode {episode['episode_index']} is "
                             f"beyond the table of tasks, which has {num_tasks}; {layout.remedy}")
    for number, camera in enumerate(layout.cameras):
        for episode, frames in zip(layout.episodes, camera_frames(layout, camera), strict=True):
            num = sum(1 for _ in checked_frames(frames, layout, episode, camera))
            if progress and not number:
                progress(num)
    return layout


def describe(folder):
    """What a data set holds, from its tables alone: a dict of numbers and names for `dataset info`."""
    layout = Layout.open(folder)
    num_bytes = sum(path.stat().st_size for path in layout.path.rglob("*") if path.is_file())
    num_frames = layout.num_frames
    counts = {"episodes": len(layout.episodes), "frames": num_frames,
              "held_out_episodes": sum(is_held_out(episode["seed"]) for episode in layout.episodes),
              "hours": num_frames / layout.fps / 3600, "mib": num_bytes / 2**20,
              "bytes_per_frame": num_bytes / num_frames}
    if not layout.is_own:
        sizes = {camera: dict(zip(("height", "width"), layout.frame_size(camera)))
                 for camera in layout.cameras}
        columns = action_columns(layout.info["features"])
        least, greatest = _ranges(layout, columns)
        ranges = {f"{i} {column.label}": [float(low), float(high)]
                  for i, (column, low, high) in enumerate(zip(columns, least, greatest))}
        return {"format": layout.info["codebase_version"], "fps": layout.fps, "cameras": sizes,
                "action_columns": ranges, **counts}
    opened = LeRobotFolder.open(folder)
    space = opened.source.action_space
    actions = np.concatenate([layout.rows(episode, ["action"])["action"] for episode in layout.episodes])
    look = actions[:, len(space.keys):] * space.look_limit
    return {**opened.source.to_json(), "player": opened.info["worldplay"]["player"],
            "clips": len(opened.info["worldplay"].get("clips", ())), "lossy": opened.is_lossy,
            "dreamed": opened.dreamed, **counts,
            "share_of_frames": {**{key: float(actions[:, i].mean()) for i, key in enumerate(space.keys)},
                                "turning": float((np.abs(look) >= 1).any(axis=1).mean())}}


def decode_to_cache(opened, out, *, parts=None, progress=None):
    """A FrameCache in `out` of the episodes of a LeRobotFolder, checked while it is read.

    parts     those of its `parts` that are read; None reads all
    progress  called with the number of frames of every rollout written
    """
    parts = opened.parts if parts is None else parts
    imported = {"camera": opened.camera, "actions": opened.columns and opened.columns.text,
                "fit": opened.fit and opened.fit.text}
    return write_frame_cache(opened.rollouts(parts), out, world=opened.source,
                             num_frames=sum(stop - start for _, start, stop in parts),
                             has_poses=opened.has_poses, is_lossy=opened.is_lossy, imported=imported,
                             progress=progress)


def _runs(parts):
    """[(episode, [start, ..., stop])]: the borders of parts that follow one another, joined."""
    runs = []
    for episode, start, stop in parts:
        if runs and runs[-1][0] is episode and runs[-1][1][-1] == start:
            runs[-1][1].append(stop)
        else:
            runs.append((episode, [start, stop]))
    return runs


def text_of(episode):
    """The tasks of an episode (a dict of Layout.episodes) as one text; empty where it has none."""
    return " ".join(task.strip() for task in episode.get("tasks") or () if task.strip())


def _camera(layout, name):
    found = layout.cameras
    if name in found or name is None and len(found) == 1:
        return name or found[0]
    if not found:
        raise ValueError(f"{layout.path}: has no camera (a feature whose dtype is video or image, other than "
                         "a depth map), so there is nothing to learn from")
    asked = f"has no camera {name!r}" if name else "has several cameras"
    raise ValueError(f"{layout.path}: {asked}; name one of them with --camera: {', '.join(found)}")


def _columns(layout, text):
    columns = action_columns(layout.info["features"])
    if not columns:
        raise ValueError(f"{layout.path}: has no actions (a feature called action), so nothing could be "
                         "played")
    if text:
        return ActionColumns.parse(text, columns)
    least, greatest = _ranges(layout, columns)
    listed = ", ".join(f"{i} {column.label!r} ({low:g} to {high:g})"
                       for i, (column, low, high) in enumerate(zip(columns, least, greatest)))
    raise ValueError(f"{layout.path}: was not written by worldplay: say which action columns are which keys "
                     "and the look, for "
                     'example --actions "w=0, look_yaw=1*12" or, of numbered actions, "left=0:1, '
                     'right=0:2"; the columns '
                     f"are {listed}")


def _ranges(layout, columns):
    """(least, greatest) value of every Column, two rows of numbers."""
    if not columns:
        return (), ()
    parts = []
    for episode in layout.episodes:
        rows = layout.rows(episode, {column.feature: None for column in columns})
        values = np.stack([rows[column.feature].reshape(episode["length"], -1)[:, column.place]
                           for column in columns])
        parts.append((values.min(1), values.max(1)))
    return np.min([low for low, _ in parts], axis=0), np.max([high for _, high in parts], axis=0)


def _largest_look(layout, columns):
    """{LOOK name: degrees}: the most that any row turns."""
    largest = {}
    if not any(target in LOOK for target, *_ in columns.terms):
        return largest
    for episode in layout.episodes:
        for name, degrees in columns.look(layout.rows(episode, columns.features)).items():
            largest[name] = max(largest.get(name, 0.0), float(np.abs(degrees).max()))
    return largest


def checked_frames(frames, layout, episode, camera):
    """Yield the frames of an episode; ValueError at the end where a checksum of worldplay's differs."""
    crc = 0
    for frame in frames:
        if layout.is_own:
            crc = zlib.crc32(np.ascontiguousarray(frame), crc)
        yield frame
    if layout.is_own and crc != episode["frames_crc32"]:
        raise ValueError(f"{episode['videos'][camera][0]}, episode {episode['episode_index']}: the pixels "
                         f"are not those that were recorded (CRC-32); {layout.remedy}")
