"""Writing a LeRobot v3 folder: recorded play as tables and lossless video, several files at once."""
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldplay.data.stats import field_stats, frame_stats, merge_stats
from worldplay.data.tables import libraries, write_table
from worldplay.data.video import H264Writer
from worldplay.files import replacing, visible, write_json

# https://huggingface.co/docs/lerobot/lerobot-dataset-v3
VERSION = "v3.0"
CAMERA, STATE, DONE = "observation.images.main", "observation.state", "next.done"
EPISODES, TASKS, INFO, STATS = "meta/episodes", "meta/tasks.parquet", "meta/info.json", "meta/stats.json"
_CHUNK_FILES = 1000
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{_FILE}.parquet", f"videos/{{video_key}}/{_FILE}.mp4"
# episodes in one video file
SHARD_EPISODES = 4
# disk asked for, of the raw pixels; measured 0.41 in the maze, 0.45 in the arena
PACKED_SHARE = 0.6


def check_new(out):
    """Raise ValueError unless the data set `out` can be begun there: a folder that is new or empty."""
    if out.exists() and (not out.is_dir() or visible(out, "*")):
        raise ValueError(f"--out {out}: already holds something; choose a new folder")


@dataclass(frozen=True)
class Shard:
    """One finished video of a data set and what `finish` writes about it.

    path      of its table
    columns   name -> values of its rows, but for the numbers that are counted over the whole folder
    episodes  a row each, without those numbers
    """
    path: Path
    columns: dict
    episodes: list


class ShardWriter:
    """Writes Rollouts into one video of a data set; `close` gives the Shard, which `finish` numbers.

    Row i of a rollout is frames[i] with actions[i + 1], the action taken at it; the last frame has none and
    is dropped. Its task is its text, where it has none PLAYER plays ENV.

    folder   of the data set
    source   Source of the play
    shard    number of the file
    player   who played
    """

    def __init__(self, folder, source, *, shard, player):
        libraries()
        where = {"chunk_index": shard // _CHUNK_FILES, "file_index": shard % _CHUNK_FILES}
        self._video_path = Path(folder, VIDEO_PATH.format(video_key=CAMERA, **where))
        self._data_path = Path(folder, DATA_PATH.format(**where))
        self._source, self._where, self._task = source, where, _task(player, source.name)
        self._rows, self._columns, self._episodes = 0, [], []
        for path in (self._video_path, self._data_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._video = H264Writer(_part(self._video_path), source.frame_size, source.fps, codec="libx264rgb",
                                 pix_fmt="rgb24", preset="ultrafast", qp="0", **{"forced-idr": "1"})

    def add(self, rollout):
        """Append a Rollout of at least two frames as the next episode."""
        frames = rollout.frames[:-1]
        for i, frame in enumerate(frames):
            self._video.add(frame, is_key=i == 0)
        length = len(frames)
        at = np.arange(length)
        poses = {} if rollout.poses is None else {STATE: rollout.poses[:-1]}
        columns = {"action": rollout.actions[1:], **poses,
                   DONE: at == length - 1,
                   "timestamp": (at / self._source.fps).astype(np.float32), "frame_index": at}
        self._columns.append(columns)
        stats = {name: field_stats(values) for name, values in columns.items()}
        stats[CAMERA] = frame_stats(frames)
        self._episodes.append({
            "tasks": [rollout.text or self._task], "length": length,
            **{f"data/{name}": value for name, value in self._where.items()},
            **{f"videos/{CAMERA}/{name}": value for name, value in self._where.items()},
            f"videos/{CAMERA}/from_timestamp": self._rows / self._source.fps,
            f"videos/{CAMERA}/to_timestamp": (self._rows + length) / self._source.fps,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
            **_stats_row(stats),
            "seed": rollout.seed, "frames_crc32": zlib.crc32(np.ascontiguousarray(frames))})
        self._rows += length

    def close(self):
        """Finish the video; returns the Shard."""
        self._video.close()
        os.replace(_part(self._video_path), self._video_path)
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._columns[0]}
        return Shard(self._data_path, columns, self._episodes)


def finish(folder, source, shards, *, player, clips=()):
    """Write the tables of the shards and meta/, which describes them; info.json comes last, a folder without
    it is unfinished.

    shards    the Shard of every ShardWriter, in order
    player    who played
    clips     of a folder packed from recordings: a dict of each, with `world_hash` (None of a real game),
              `frames` and `lossy`
    """
    tasks = list(dict.fromkeys(row["tasks"][0] for shard in shards for row in shard.episodes))
    episodes = _numbered(shards, tasks)
    pa, pq = libraries()
    folder = Path(folder)
    path = folder / EPISODES / "chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(episodes), temporary)
    _write_tasks(folder / TASKS, tasks)
    features = _features(source, has_poses=STATE in shards[0].columns)
    write_json(folder / STATS, {name: merge_stats([{stat: row[f"stats/{name}/{stat}"] for stat in (
        "min", "max", "mean", "std", "count")} for row in episodes]) for name in features})
    num_rows = episodes[-1]["dataset_to_index"]
    write_json(folder / INFO, {
        "codebase_version": VERSION, "robot_type": None, "total_episodes": len(episodes),
        "total_frames": num_rows, "total_tasks": len(tasks), "chunks_size": _CHUNK_FILES, "fps": source.fps,
        "splits": {"train": f"0:{len(episodes)}"}, "data_path": DATA_PATH, "video_path": VIDEO_PATH,
        "features": features, "worldplay": {
            **source.to_json(), "player": player, "lossy": any(clip["lossy"] for clip in clips),
            "clips": list(clips)}})


def _numbered(shards, tasks):
    """Write the shards' tables, counted over all of them, with tasks' numbers; returns the episodes' rows."""
    rows, first = [], 0
    for shard in shards:
        numbers = []
        for row in shard.episodes:
            counted = {"episode_index": np.full(row["length"], len(rows)),
                       "index": first + np.arange(row["length"]),
                       "task_index": np.full(row["length"], tasks.index(row["tasks"][0]))}
            numbers.append(counted)
            first += row["length"]
            rows.append({"episode_index": len(rows), **row, "dataset_from_index": first - row["length"],
                         "dataset_to_index": first, **_stats_row(
                             {name: field_stats(values) for name, values in counted.items()})})
        write_table(shard.path, {**shard.columns, **{
            name: np.concatenate([part[name] for part in numbers]) for name in numbers[0]}})
    return rows


def _stats_row(stats):
    return {f"stats/{name}/{stat}": value for name, part in stats.items() for stat, value in part.items()}


def _task(player, env):
    return f"{player} plays {env}"


def _part(path):
    return path.with_name(path.name + ".tmp")


def _features(source, has_poses):
    height, width = source.frame_size
    look = ("look_yaw", "look_pitch")[:source.action_space.look_axes]
    single = {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in (
        ("timestamp", "float32"), ("frame_index", "int64"), ("episode_index", "int64"), ("index", "int64"),
        ("task_index", "int64"))}
    return {CAMERA: {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
                     "info": {"video.height": height, "video.width": width, "video.codec": "h264",
                              "video.pix_fmt": "gbrp", "video.is_depth_map": False, "video.fps": source.fps,
                              "video.channels": 3, "has_audio": False}},
            "action": {"dtype": "float32", "shape": [source.action_space.num_channels],
                       "names": [*source.action_space.keys, *look]},
            **({STATE: {"dtype": "float32", "shape": [4], "names": ["x", "y", "z", "yaw"]}} if has_poses
               else {}),
            DONE: {"dtype": "bool", "shape": [1], "names": None},
            **single}


def _write_tasks(path, tasks):
    # LeRobot reads this table with pandas and takes the task's text as the index
    pa, pq = libraries()
    pandas = {"index_columns": ["task"], "column_indexes": [], "creator": {"library": "pyarrow"}, "columns": [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type, "metadata": None}
        for name, kind, numpy_type in (("task_index", "int64", "int64"), ("task", "unicode", "object"))]}
    table = pa.table({"task_index": range(len(tasks)), "task": tasks})
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), temporary)
