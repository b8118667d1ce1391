"""LeRobot v3 folders: recorded play as tables and lossless video, written, checked and read."""
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldplay.data.frame_cache import Rollout, Source, is_held_out, write_frame_cache
from worldplay.data.video import DamagedVideo, H264Writer, read_frames
from worldplay.errors import WorldError
from worldplay.files import replacing, write_json

# https://huggingface.co/docs/lerobot/lerobot-dataset-v3
VERSION = "v3.0"
CAMERA, _STATE = "observation.images.screen", "observation.state"
_CHUNK_FILES = 1000
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA, _VIDEO = f"data/{_FILE}.parquet", f"videos/{{video_key}}/{_FILE}.mp4"
_EPISODES, _TASKS, _INFO = "meta/episodes/chunk-000/file-000.parquet", "meta/tasks.parquet", "meta/info.json"
_REMEDY = "collect or pack it again"
# episodes in one video file
SHARD_EPISODES = 4
# disk asked for, of the raw pixels; measured 0.41 in the maze, 0.45 in the arena
PACKED_SHARE = 0.6


def check_new(out):
    """Raise ValueError unless the data set `out` can be begun there: a folder that is new or empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: already holds something; choose a new folder")


class ShardWriter:
    """One video and one table of a folder being written; rollouts go in, their episodes' rows come out.

    Row i of a rollout is frames[i] with actions[i + 1], the action taken at it; the last frame has none and
    is dropped.

    folder   of the data set
    source   Source of the play
    shard    number of the file
    episode  number of the first episode in it, `row` of its first row, both counted over the whole folder
    player   who played
    """

    def __init__(self, folder, source, *, shard, episode, row, player):
        _libraries()
        where = {"chunk_index": shard // _CHUNK_FILES, "file_index": shard % _CHUNK_FILES}
        self._video_path = Path(folder, _VIDEO.format(video_key=CAMERA, **where))
        self._data_path = Path(folder, _DATA.format(**where))
        self._source, self._where, self._task = source, where, _task(player, source.name)
        self._episode, self._first_row, self._rows = episode, row, 0
        self._columns, self._episodes = [], []
        for path in (self._video_path, self._data_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._video = H264Writer(_part(self._video_path), source.frame_size, source.fps, codec="libx264rgb",
                                 pix_fmt="rgb24", preset="ultrafast", qp="0", **{"forced-idr": "1"})

    def add(self, rollout):
        """Append a Rollout of at least two frames as the next episode."""
        frames = rollout.frames[:-1]
        for i, frame in enumerate(frames):
            self._video.add(frame, is_key=i == 0)
        length, number = len(frames), self._episode + len(self._episodes)
        at = np.arange(length)
        poses = {} if rollout.poses is None else {_STATE: rollout.poses[:-1]}
        self._columns.append({
            "action": rollout.actions[1:], **poses,
            "timestamp": (at / self._source.fps).astype(np.float32), "frame_index": at,
            "episode_index": np.full(length, number), "index": self._first_row + self._rows + at,
            "task_index": np.zeros(length, np.int64)})
        first = self._first_row + self._rows
        video = {f"videos/{CAMERA}/{name}": value for name, value in self._where.items()}
        self._episodes.append({
            "episode_index": number, "tasks": [self._task], "length": length,
            **{f"data/{name}": value for name, value in self._where.items()},
            "dataset_from_index": first, "dataset_to_index": first + length,
            **video, f"videos/{CAMERA}/from_timestamp": self._rows / self._source.fps,
            f"videos/{CAMERA}/to_timestamp": (self._rows + length) / self._source.fps,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
            "seed": rollout.seed, "frames_crc32": zlib.crc32(np.ascontiguousarray(frames))})
        self._rows += length

    def close(self):
        """Finish both files; returns the episodes' rows for `finish`."""
        self._video.close()
        os.replace(_part(self._video_path), self._video_path)
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        _write_table(columns, self._data_path)
        return self._episodes


def finish(folder, source, episodes, *, player, clips=()):
    """Write what describes the shards; info.json comes last, a folder without it is unfinished.

    episodes  rows that every ShardWriter.close gave, in order
    clips     of a folder packed from recordings, which tell no poses: a dict of each, with `world_hash` (None of a real
              game), `frames` and `lossy`
    """
    pa, pq = _libraries()
    folder = Path(folder)
    (folder / _EPISODES).parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _EPISODES) as temporary:
        pq.write_table(pa.Table.from_pylist(episodes), temporary)
    _write_tasks(folder / _TASKS, _task(player, source.name))
    num_rows = episodes[-1]["dataset_to_index"]
    write_json(folder / _INFO, {
        "codebase_version": VERSION, "robot_type": None, "total_episodes": len(episodes),
        "total_frames": num_rows, "total_tasks": 1, "chunks_size": _CHUNK_FILES, "fps": source.fps,
        "splits": {"train": f"0:{len(episodes)}"}, "data_path": _DATA, "video_path": _VIDEO,
        "features": _features(source, has_poses=not clips), "worldplay": {
            **source.to_json(), "player": player, "lossy": any(clip["lossy"] for clip in clips),
            "clips": list(clips)}})


@dataclass(frozen=True, kw_only=True)
class LeRobotFolder:
    """A finished folder: its source and its episodes, checked; the frames are read by `rollouts`.

    episodes  rows of the episode table, in order
    info      meta/info.json
    """
    path: Path
    source: Source
    episodes: list
    info: dict

    @classmethod
    def open(cls, folder):
        """The data set in `folder`.

            Raises ValueError where it is unfinished, of another format, or contradicts itself.
        """
        folder = Path(folder)
        _, pq = _libraries()
        if not (folder / _INFO).is_file():
            raise ValueError(f"{folder}: no finished data set ({_INFO} is missing); {_REMEDY}")
        try:
            info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / _INFO}: no valid JSON ({error}); {_REMEDY}") from None
        if info.get("codebase_version") != VERSION or "worldplay" not in info:
            raise ValueError(f"{folder}: format {info.get('codebase_version')}, expected {VERSION} "
                             f"written by worldplay; {_REMEDY}")
        episodes = _readable(folder / _EPISODES, pq.read_table).to_pylist()
        row = 0
        for number, episode in enumerate(episodes):
            if (episode["episode_index"], episode["dataset_from_index"]) != (number, row):
                raise ValueError(f"{folder}: episode {number} is missing or out of order in {_EPISODES}; "
                                 f"{_REMEDY}")
            row += episode["length"]
        if (len(episodes), row) != (info["total_episodes"], info["total_frames"]):
            raise ValueError(f"{folder}: {_INFO} says {info['total_episodes']} episodes, "
                             f"{info['total_frames']} frames; {_EPISODES} lists {len(episodes)}, {row}; "
                             f"{_REMEDY}")
        return cls(path=folder, source=Source.from_json(info["worldplay"]), episodes=episodes, info=info)

    @property
    def num_frames(self):
        return self.info["total_frames"]

    @property
    def has_poses(self):
        """Whether it tells where the player stood; recorded clips do not."""
        return _STATE in self.info["features"]

    @property
    def is_lossy(self):
        """Whether its frames come from lossy video, which no codec that ships is trained on."""
        return self.info["worldplay"].get("lossy", False)

    @property
    def dreamed(self):
        """Share of its recorded frames that a learned world made, 0 to 1."""
        clips = self.info["worldplay"].get("clips", ())
        dreamed = sum(clip["frames"] for clip in clips if clip["world_hash"])
        return dreamed / max(1, sum(clip["frames"] for clip in clips))

    def files(self):
        """(video path, table path, their episodes) of every shard, in order."""
        shards = {}
        for episode in self.episodes:
            where = {name: episode[f"data/{name}"] for name in ("chunk_index", "file_index")}
            video = self.path / _VIDEO.format(video_key=CAMERA, **where)
            shards.setdefault((video, self.path / _DATA.format(**where)), []).append(episode)
        return [(*paths, episodes) for paths, episodes in shards.items()]

    def rollouts(self):
        """Yield every episode as a Rollout, each compared with what the folder says of it.

            Raises ValueError, naming file and episode, at the first thing that does not fit.
        """
        for video_path, data_path, episodes in self.files():
            table = _read_table(data_path)
            frames, start = _decode(video_path), 0
            for episode in episodes:
                stop = start + episode["length"]
                rows = {name: values[start:stop] for name, values in table.items()}
                self._check_rows(data_path, episode, rows)
                pixels = self._take(frames, video_path, episode)
                actions = np.concatenate([np.zeros_like(rows["action"][:1]), rows["action"][:-1]])
                yield Rollout(pixels, actions, rows.get(_STATE), episode["seed"], text_of(episode))
                start = stop
            if len(table["index"]) != start or next(frames, None) is not None:
                raise ValueError(f"{video_path}, {data_path}: more rows or frames than {start}; {_REMEDY}")

    def _check_rows(self, path, episode, rows):
        where = f"{path}, episode {episode['episode_index']}"
        at = np.arange(episode["length"])
        if rows.keys() != self.info["features"].keys() - {CAMERA}:
            raise ValueError(f"{where}: its columns are not those of {_INFO}; {_REMEDY}")
        if not np.array_equal(rows["index"], episode["dataset_from_index"] + at) \
                or not np.array_equal(rows["frame_index"], at):
            raise ValueError(f"{where}: rows are missing or out of order; {_REMEDY}")
        if np.abs(rows["timestamp"] - at / self.source.fps).max() > 1e-3:
            raise ValueError(f"{where}: time stamps are not {self.source.fps:g} a second; {_REMEDY}")
        num_channels = self.source.action_space.num_channels
        if rows["action"].shape[1] != num_channels or not (np.abs(rows["action"]) <= 1).all():
            raise ValueError(f"{where}: an action is not {num_channels} numbers in [-1, 1]; {_REMEDY}")

    def _take(self, frames, path, episode):
        where = f"{path}, episode {episode['episode_index']}"
        pixels = np.empty((episode["length"], *self.source.frame_size, 3), np.uint8)
        for i in range(len(pixels)):
            frame = next(frames, None)
            if frame is None or frame.shape != pixels.shape[1:]:
                found = "missing" if frame is None else frame.shape
                raise ValueError(f"{where}: frame {i} is {found}, expected {pixels.shape[1:]}; {_REMEDY}")
            pixels[i] = frame
        if zlib.crc32(pixels) != episode["frames_crc32"]:
            raise ValueError(f"{where}: the pixels are not those that were recorded (CRC-32); {_REMEDY}")
        return pixels


def verify(folder, *, progress=None):
    """Read a data set to its last pixel and return its LeRobotFolder; nothing is repaired.

    progress  called with the number of frames of every episode read

        Raises ValueError at the first thing that is not as written.
    """
    opened = LeRobotFolder.open(folder)
    for rollout in opened.rollouts():
        if progress:
            progress(len(rollout.frames))
    return opened


def describe(folder):
    """What a data set holds, from its tables alone: a dict of numbers and names for `dataset info`."""
    opened = LeRobotFolder.open(folder)
    space = opened.source.action_space
    actions = np.concatenate([_read_table(path)["action"] for _, path, _ in opened.files()])
    num_bytes = sum(path.stat().st_size for path in opened.path.rglob("*") if path.is_file())
    look = actions[:, len(space.keys):] * space.look_limit
    return {**opened.source.to_json(), "player": opened.info["worldplay"]["player"],
            "clips": len(opened.info["worldplay"].get("clips", ())), "lossy": opened.is_lossy,
            "dreamed": opened.dreamed, "episodes": len(opened.episodes), "frames": opened.num_frames,
            "held_out_episodes": sum(is_held_out(episode["seed"]) for episode in opened.episodes),
            "hours": opened.num_frames / opened.source.fps / 3600, "mib": num_bytes / 2**20,
            "bytes_per_frame": num_bytes / opened.num_frames,
            "share_of_frames": {**{key: float(actions[:, i].mean()) for i, key in enumerate(space.keys)},
                                "turning": float((np.abs(look) >= 1).any(axis=1).mean())}}


def decode_to_cache(folder, out, *, progress=None):
    """A FrameCache in `out` with every episode of a data set, checked while it is read."""
    opened = LeRobotFolder.open(folder)
    return write_frame_cache(opened.rollouts(), out, world=opened.source, num_frames=opened.num_frames,
                             has_poses=opened.has_poses, is_lossy=opened.is_lossy, progress=progress)


def text_of(episode):
    """The tasks of a row of the episode table, one after another; empty where it has none."""
    return " ".join(task.strip() for task in episode.get("tasks") or () if task.strip())


def _task(player, env):
    return f"{player} plays {env}"


def _part(path):
    return path.with_name(path.name + ".tmp")


def _features(source, has_poses):
    height, width = source.frame_size
    look = ("yaw", "pitch")[:source.action_space.look_axes]
    single = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in (
        ("timestamp", "float32"), ("frame_index", "int64"), ("episode_index", "int64"), ("index", "int64"),
        ("task_index", "int64"))}
    return {CAMERA: {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                     "info": {"video.height": height, "video.width": width, "video.codec": "h264",
                              "video.pix_fmt": "gbrp", "video.is_depth_map": False, "video.fps": source.fps,
                              "video.channels": 3, "has_audio": False}},
            "action": {"dtype": "float32", "shape": [source.action_space.num_channels],
                       "names": [*source.action_space.keys, *look]},
            **({_STATE: {"dtype": "float32", "shape": [4], "names": ["x", "y", "z", "yaw"]}} if has_poses else {}),
            **single}


def _write_table(columns, path):
    pa, pq = _libraries()
    arrays = {name: pa.array(values) if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values, np.float32).reshape(-1)), values.shape[1])
        for name, values in columns.items()}
    with replacing(path) as temporary:
        pq.write_table(pa.table(arrays), temporary)


def _write_tasks(path, task):
    # LeRobot reads this table with pandas and takes the task's text as the index
    pa, pq = _libraries()
    pandas = {"index_columns": ["task"], "column_indexes": [], "creator": {"library": "pyarrow"}, "columns": [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, kind, numpy_type in (("task_index", "int64", "int64"), ("task", "unicode", "object"))]}
    table = pa.table({"task_index": [0], "task": [task]})
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), temporary)


def _read_table(path):
    _, pq = _libraries()
    table = _readable(path, pq.read_table)
    columns = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        fixed = hasattr(column.type, "list_size")
        columns[name] = (column.flatten().to_numpy().reshape(-1, column.type.list_size) if fixed
                         else column.to_numpy())
    return columns


def _readable(path, read):
    pa, _ = _libraries()
    if not path.is_file():
        raise ValueError(f"{path}: missing; {_REMEDY}")
    try:
        return read(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: unreadable ({str(error).splitlines()[0]}); {_REMEDY}") from error


def _decode(path):
    if not path.is_file():
        raise ValueError(f"{path}: missing; {_REMEDY}")
    try:
        for _, frame in read_frames(path):
            yield frame
    except DamagedVideo as error:
        raise ValueError(f"{path}: unreadable ({error}); {_REMEDY}") from error


def _libraries():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise WorldError("not_found", f"data sets need {error.name}, which is not installed: "
                                      'run pip install ".[data]" in the checkout') from None
    return pyarrow, pyarrow.parquet
