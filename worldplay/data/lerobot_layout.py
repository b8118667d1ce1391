"""The files of a LeRobot folder, v3.0 or v2.1, by any program; each field that is read is checked."""
import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np

from worldplay.data.frame_cache import held_out_positions, numbers_of_sides
from worldplay.data.lerobot_info import (
    INDEX_FIELDS,
    OTHERS_REMEDY,
    OWN_REMEDY,
    PICTURES,
    is_depth,
    parse_object,
    read_info,
    read_lines,
    read_object,
)
from worldplay.data.lerobot_writer import EPISODES, INFO, STATS, TASKS
from worldplay.data.tables import binary_column, column, read_table
from worldplay.files import visible


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A folder whose meta/ was read and checked; rows and frames are read and checked episode by episode.

    info      fields of meta/info.json
    episodes  a dict of each: episode_index, length, dataset_from_index, tasks (list of texts), data (path of
              its table), videos ({camera: (path, seconds at which it begins there)}) and seed; of a folder by
              another program the seed is a number that only says whether the episode is held out; where
              worldplay wrote it also frames_crc32
    """
    path: Path
    info: dict
    episodes: list
    _last: dict = field(default_factory=dict)  # of the table read last: {its path: its columns read so far}

    @classmethod
    def open(cls, folder):
        """The data set in `folder`.

            Raises ValueError, naming file and field, where it is unfinished, of another format, or
            contradicts itself.
        """
        folder = Path(folder)
        info = read_info(folder / INFO)
        layout = cls(path=folder, info=info, episodes=[])
        rows = layout._rows_of_v2() if info["codebase_version"] == "v2.1" else layout._rows_of_v3()
        layout.episodes.extend(layout._checked_episodes(rows))
        return layout

    @property
    def is_own(self):
        """Whether worldplay wrote it."""
        return "worldplay" in self.info

    @property
    def fps(self):
        return self.info["fps"]

    @property
    def num_frames(self):
        return self.info["total_frames"]

    @property
    def remedy(self):
        return OWN_REMEDY if self.is_own else OTHERS_REMEDY

    @property
    def cameras(self):
        """Names of the features that are pictures for the eye: videos, or picture files in the tables."""
        return [name for name, feature in self.info["features"].items()
                if feature["dtype"] in PICTURES and not is_depth(feature)]

    @property
    def videos(self):
        """Those cameras that are videos."""
        return [name for name in self.cameras if self.info["features"][name]["dtype"] == "video"]

    @property
    def number_fields(self):
        """Names of the features that are numbers in the tables."""
        return [name for name, feature in self.info["features"].items()
                if feature["dtype"].startswith(("float", "int", "uint", "bool"))]

    def frame_size(self, camera):
        """(H, W) pixels."""
        feature = self.info["features"][camera]
        shape, names = feature["shape"], feature.get("names") or ()
        is_first = str(names[0]).startswith("channel") if names else shape[0] in (1, 3)
        return tuple(shape[1:]) if is_first else tuple(shape[:2])

    # Episodes

    def _rows_of_v3(self):
        """[("FILE, row NUMBER", row)] of the tables of episodes; "data" and "videos" as in `episodes`."""
        files = visible(self.path / EPISODES, "*/*.parquet")
        if not files:
            raise ValueError(f"{self.path / EPISODES}: holds no table; {self.remedy}")
        found = []
        for file in files:
            table = read_table(file, self.remedy)
            names = [name for name in table.column_names if not name.startswith("stats/")]
            found += [(f"{file}, row {i}", row) for i, row in enumerate(table.select(names).to_pylist())]
        for where, row in found:
            for name in ("dataset_to_index", "data/chunk_index", "data/file_index"):
                self._whole_number(row, name, where)
            row["data"] = self._place("data_path", where, chunk_index=row["data/chunk_index"],
                                      file_index=row["data/file_index"])
            row["videos"] = {camera: self._video_place(row, camera, where) for camera in self.videos}
        return found

    def _video_place(self, row, camera, where):
        key = f"videos/{camera}"
        begins = self._seconds(row, f"{key}/from_timestamp", where)
        ends = self._seconds(row, f"{key}/to_timestamp", where)
        length = self._length(row, where)
        if abs(ends - begins - length / self.fps) > 0.5 / self.fps:
            raise ValueError(f"{where}: field {key}/to_timestamp is {ends:g}, expected "
                             f"{begins + length / self.fps:g}, "
                             f"{length} frames after from_timestamp; {self.remedy}")
        numbers = {name: self._whole_number(row, f"{key}/{name}", where)
                   for name in ("chunk_index", "file_index")}
        return self._place("video_path", where, video_key=camera, **numbers), begins

    def _rows_of_v2(self):
        """The same as _rows_of_v3, of meta/episodes.jsonl; every episode has files of its own."""
        found, first, size = [], 0, self.info["chunks_size"]
        for where, row in read_lines(self.path / "meta/episodes.jsonl", self.remedy):
            number, length = self._whole_number(row, "episode_index", where), self._length(row, where)
            files = {"episode_chunk": number // size, "episode_index": number}
            row |= {"dataset_from_index": first, "dataset_to_index": first + length,
                    "data": self._place("data_path", where, **files), "videos": {
                        camera: (self._place("video_path", where, video_key=camera, **files), 0.0)
                        for camera in self.videos}}
            first += length
            found.append((where, row))
        return found

    def _checked_episodes(self, found):
        first, ends = 0, {}
        for number, (where, row) in enumerate(found):
            length = self._length(row, where)
            for name, expected in (("episode_index", number), ("dataset_from_index", first),
                                   ("dataset_to_index", first + length)):
                if self._whole_number(row, name, where) != expected:
                    raise ValueError(f"{where}: field {name} is {row[name]}, expected {expected}; "
                                     f"{self.remedy}")
            tasks = row.get("tasks")
            if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
                raise ValueError(f"{where}: field tasks is no list of texts; {self.remedy}")
            if self.is_own:
                self._whole_number(row, "seed", where), self._whole_number(row, "frames_crc32", where)
                for camera, (video, begins) in row["videos"].items():  # one after another, without a gap
                    if abs(begins - ends.get(video, 0.0)) > 0.1 / self.fps:
                        raise ValueError(f"{where}: field videos/{camera}/from_timestamp is {begins:g}, "
                                         f"expected {ends.get(video, 0.0):g}; {self.remedy}")
                    ends[video] = begins + length / self.fps
            first += length
        path, counts = self.path / INFO, {"total_episodes": len(found), "total_frames": first}
        for name, expected in counts.items():
            if self.info[name] != expected:
                raise ValueError(f"{path}: field {name} is {self.info[name]}, the episodes' tables say "
                                 f"{expected}; {self.remedy}")
        if not found:
            raise ValueError(f"{path}: no episodes; {self.remedy}")
        rows = [row for _, row in found]
        if not self.is_own:
            held_out = held_out_positions(len(rows))
            seeds = numbers_of_sides(i in held_out for i in range(len(rows)))
            rows = [row | {"seed": seed} for row, seed in zip(rows, seeds)]
        return rows

    def _place(self, template, where, **values):
        """The path that a template of info.json, data_path or video_path, makes of these values."""
        try:
            return self.path / self.info[template].format(**values)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{self.path / INFO}: field {template} {self.info[template]!r} cannot be filled "
                             f"in for {where} ({error}); {self.remedy}") from None

    def _whole_number(self, row, name, where):
        if name not in row:
            raise ValueError(f"{where}: field {name} is missing; {self.remedy}")
        if type(row[name]) is not int or row[name] < 0:
            raise ValueError(f"{where}: field {name} is {row[name]!r}, expected a whole number; "
                             f"{self.remedy}")
        return row[name]

    def _length(self, row, where):
        if not self._whole_number(row, "length", where):
            raise ValueError(f"{where}: field length is 0, an empty episode; {self.remedy}")
        return row["length"]

    def _seconds(self, row, name, where):
        if name not in row:
            raise ValueError(f"{where}: field {name} is missing; {self.remedy}")
        if type(row[name]) not in (int, float) or not 0 <= row[name] < math.inf:
            raise ValueError(f"{where}: field {name} is {row[name]!r}, expected seconds; {self.remedy}")
        return row[name]

    # Rows

    def rows(self, episode, names):
        """{name: array [n] or [n c]} of the rows of an episode: fields `names` and all INDEX_FIELDS, checked.

            Raises ValueError naming file, row and field.
        """
        path, length = episode["data"], episode["length"]
        names = list(dict.fromkeys([*INDEX_FIELDS, *names]))
        columns, at = self._columns(path, names, column), self._places(episode)
        rows = {name: columns[name][at] for name in names}
        for name in INDEX_FIELDS:
            rows[name] = rows[name].reshape(length, -1)[:, 0]
        self._check_rows(path, at.start, episode, rows)
        return rows

    def picture_files(self, episode, camera):
        """Yield ("FILE, row NUMBER: field NAME", bytes of a picture file) for every row of an episode, of a
        camera without videos.

            Raises ValueError naming file, row and field.
        """
        path, at = episode["data"], self._places(episode)
        files = self._columns(path, [camera], binary_column)[camera]
        for i in range(at.start, at.stop):
            yield f"{path}, row {i}: field {camera}", files[i].as_py()

    def _check_rows(self, path, first, episode, rows):
        def require(name, is_good, expected):
            bad = np.flatnonzero(~is_good)
            if len(bad):
                value = rows[name][bad[0]]
                raise ValueError(f"{path}, row {first + bad[0]}: field {name} is {value}, expected "
                                 f"{expected(bad[0])}; {self.remedy}")
        number = np.arange(episode["length"])
        require("frame_index", rows["frame_index"] == number, lambda i: i)
        start = episode["dataset_from_index"]
        require("index", rows["index"] == start + number, lambda i: start + i)
        time = number / self.fps
        require("timestamp", np.abs(rows["timestamp"] - time) <= 1e-3 + 1e-6 * time, lambda i: f"{time[i]:g}")
        for name, values in rows.items():
            shape = self.info["features"][name]["shape"]
            width = math.prod(shape)
            if values.size != width * len(values):
                raise ValueError(f"{path}, row {first}: field {name} has {values.size // len(values)} "
                                 f"numbers, {INFO} says {width}; {self.remedy}")
            require(name, np.isfinite(values.reshape(len(values), -1)).all(1), lambda i: "finite numbers")
        if self.is_own:
            require("action", (np.abs(rows["action"]) <= 1).all(1), lambda i: "numbers from -1 to 1")

    def _places(self, episode):
        """The slice of rows that an episode has in its table."""
        path, length = episode["data"], episode["length"]
        numbers = self._columns(path, ["episode_index"], column)["episode_index"]
        at = np.flatnonzero(numbers.ravel() == episode["episode_index"])
        if len(at) != length or length and at[-1] - at[0] != length - 1:
            raise ValueError(f"{path}: field episode_index: {len(at)} rows of episode "
                             f"{episode['episode_index']}, expected "
                             f"{length} one after another; {self.remedy}")
        return slice(int(at[0]), int(at[0]) + length)

    def _columns(self, path, names, read):
        """{name: column} of a table, at least these, of which those not read before are by `read`."""
        if path not in self._last:
            self._last.clear()
            self._last[path] = {}
        columns = self._last[path]
        if new := [name for name in names if name not in columns]:
            table = read_table(path, self.remedy, new)
            if table.num_rows != self._num_rows[path]:
                raise ValueError(f"{path}: {table.num_rows} rows, the episodes' tables say "
                                 f"{self._num_rows[path]}; {self.remedy}")
            columns |= {name: read(table, name, path, self.remedy) for name in new}
        return columns

    @cached_property
    def _num_rows(self):
        """{path: rows that the table there must have}; of v2.1 every episode has a table of its own."""
        counts = Counter()
        for episode in self.episodes:
            counts[episode["data"]] += episode["length"]
        return counts

    # What only LeRobot reads

    def check_rest(self):
        """Check what only LeRobot reads: the table of tasks, and the statistics where there are some.

        Returns the number of tasks; ValueError naming file and field where they are missing or wrong.
        """
        tasks = self.tasks()
        known = set(tasks)
        for number, episode in enumerate(self.episodes):
            strange = [task for task in episode["tasks"] if task not in known]
            if strange:
                raise ValueError(f"{self.path / EPISODES}: episode {number}: field tasks holds "
                                 f"{strange[0]!r}, which is not in the table of tasks; {self.remedy}")
        if self.info.get("total_tasks", len(tasks)) != len(tasks):
            raise ValueError(f"{self.path / INFO}: field total_tasks is {self.info['total_tasks']}, the "
                             f"table of tasks has {len(tasks)}; {self.remedy}")
        if (self.path / STATS).exists():
            stats = read_object(self.path / STATS, self.remedy)
            for name, stat in product(stats, ("min", "max", "mean", "std", "count")):
                try:
                    is_good = np.isfinite(np.asarray(stats[name][stat], np.float64)).all()
                except (KeyError, TypeError, ValueError):
                    is_good = False
                if not is_good:
                    raise ValueError(f"{self.path / STATS}: field {name}.{stat} is missing or no finite "
                                     f"numbers; {self.remedy}")
        return len(tasks)

    def tasks(self):
        """The texts of all tasks, by their number."""
        if self.info["codebase_version"] == "v2.1":
            path = self.path / "meta/tasks.jsonl"
            rows = [row for _, row in read_lines(path, self.remedy)]
        else:
            path = self.path / TASKS
            table = read_table(path, self.remedy)
            # LeRobot takes the text from the index that pandas writes
            pandas = parse_object((table.schema.metadata or {}).get(b"pandas", b"{}"), path, self.remedy)
            index = pandas.get("index_columns") or [None]
            if index[0] not in table.column_names:
                raise ValueError(f"{path}: its texts are not the index of a pandas table, where LeRobot "
                                 "looks for them: pandas.DataFrame({'task_index': [0]}, "
                                 f"index=['the text']).to_parquet({path.name!r}) writes one; {self.remedy}")
            rows = [row | {"task": row[index[0]]} for row in table.to_pylist()]
        for i, row in enumerate(rows):
            if row.get("task_index") != i or not isinstance(row.get("task"), str):
                raise ValueError(f"{path}, row {i}: fields task_index and task are {row.get('task_index')!r} "
                                 f"and {row.get('task')!r}, expected {i} and a text; {self.remedy}")
        return [row["task"] for row in rows]
