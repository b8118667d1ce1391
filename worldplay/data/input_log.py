"""Logs of keys and mouse beside a video, with times: CSV, JSON, JSON lines or Parquet of another program."""
import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldplay.action import KEYS
from worldplay.data.importing import LOOK, Column
from worldplay.data.tables import libraries, read_table

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
TAKE = "worldplay take"  # `format` of the first line of what `record-desktop` writes
_TIMES = ("t", "time", "timestamp", "seconds")
_EVENTS = ("key", "down")  # columns of a log of events
_DOWN = {"1", "true", "down", "press", "pressed", "keydown", "1.0"}
_UP = {"0", "false", "up", "release", "released", "keyup", "0.0"}
_SAME = 1e-4  # seconds: a row so close to the border of an interval is at it


@dataclass(frozen=True, eq=False)
class InputLog:
    """What was held and moved, over time.

    path       the file
    times      float64 [n], seconds, ascending
    rows       {column: float64 [n]}: a key's column is 1 from a row on until one in which it is 0; the column
               of a movement holds what was moved since the row before, of a log of events what was moved at
               that moment; not finite where the file has no number
    is_events  whether it has a row where something changed; else a row for every moment, up to its end
    header     what its first line says of a take of `record-desktop`; {} of another log
    """
    path: Path
    times: np.ndarray
    rows: dict
    is_events: bool
    header: dict


def read_log(path, *, time=None, events=None):
    """The InputLog in a file.

    time    its column of times, "COLUMN" in seconds or "COLUMN*X", X seconds for 1; None is one called t,
            time, timestamp or seconds
    events  "KEY_COLUMN=DOWN_COLUMN" of a log with a row for every key that goes down or up; None is
            "key=down" where there are such columns

        Raises ValueError, naming file, row and column, for what cannot be read; it lists the columns where
        one is not there. A cell without a number is none of that: see check_numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such log")
    header, table = _table(path)
    if not table:
        raise ValueError(f"{path}: no rows")
    columns = list(dict.fromkeys(name for row in table for name in row))
    times = _times(path, table, columns, time)
    order = np.argsort(times, kind="stable")
    table, times = [table[i] for i in order], times[order]
    is_take = header.get("format") == TAKE
    names = _EVENTS if is_take else _event_columns(path, columns, events)
    when = _time_column(path, columns, time)[0]  # its name may be a key's too: T
    rows = _event_rows(path, table, names, is_take) if names else {}
    rows |= {name: numbers for name in columns if name not in (when, *(names or ())) for numbers in [
        _numbers(table, name, blank=0.0 if names else np.nan)] if numbers is not None}
    return InputLog(path, times, rows, bool(names), header)


def columns_of(logs):
    """The Columns of several logs; one that only some logs of events have is 0 in the others, where nothing
    of it happened.

        Raises ValueError for a log without events that lacks a column of the others.
    """
    names = list(dict.fromkeys(name for log in logs for name in log.rows))
    for log in logs:
        missing = [name for name in names if name not in log.rows]
        if missing and not log.is_events:
            raise ValueError(f"{log.path}: has no column {missing[0]!r}, which another of the logs has; "
                             "import them apart")
        for name in missing:
            log.rows[name] = np.zeros(len(log.times))
    return [Column(name, name, 0) for name in names]


def check_numbers(logs, names):
    """Raise ValueError, naming file, row and column, where one of these columns holds no finite number."""
    for log in logs:
        for name in names:
            wrong = np.flatnonzero(~np.isfinite(log.rows[name]))
            if len(wrong):
                at = log.times[wrong[0]]
                raise ValueError(f"{log.path}, row {wrong[0]} (at {at:g} s): column {name!r} is empty or no "
                                 "finite number; write one there, 0 for a key that is up and for no "
                                 "movement, or leave the column out of --actions")


def own_actions(logs):
    """The text of ActionColumns for columns that are called by their keys, look_yaw or look_pitch; of keys
    those that were ever down. Empty where there are none.
    """
    def is_used(name):
        return any(log.rows[name].any() for log in logs)
    terms = [f"{name}={name}" for name in (*KEYS, *LOOK) if name in logs[0].rows and is_used(name)]
    if logs[0].header.get("format") == TAKE:
        terms += [f"{look}={name}*0.1" for look, name in zip(LOOK, ("dx", "dy")) if is_used(name)]
    return ", ".join(terms)


class Inputs:
    """The inputs of a log as actions of any stretch of time.

    num_keys  of the columns of its actions; the others are yaw and pitch in degrees
    """

    def __init__(self, log, columns, space):
        """log: InputLog; columns: ActionColumns; space: its ActionSpace with a look limit of 1."""
        self._times, self.num_keys = log.times, len(space.keys)
        self._is_events = log.is_events
        states = columns.encode(log.rows, space).astype(np.float64)
        self._before = np.concatenate([np.zeros((1, self.num_keys)), states[:, :self.num_keys]])
        self._sums = np.concatenate([np.zeros((1, states.shape[1])), np.cumsum(states, axis=0)])

    def between(self, edges):
        """float64 [n a]: the actions between the moments `edges`, float64 [n + 1] seconds of the log.

        A key counts where it was down at any time between two moments; movements are added up. Of a row at
        the border of two stretches, what was moved since the row before is the first one's, an event is the
        second one's.
        """
        begin = np.searchsorted(self._times, edges[:-1] - _SAME)
        end = np.searchsorted(self._times, edges[1:] - _SAME)
        moved = np.searchsorted(self._times, edges + (-_SAME if self._is_events else _SAME))
        actions = self._sums[end] - self._sums[begin]
        actions[:, self.num_keys:] = np.diff(self._sums[moved, self.num_keys:], axis=0)
        # what was held before goes on, unless a row at the very beginning says otherwise
        goes_on = np.append(self._times, np.inf)[begin] > edges[:-1] + _SAME
        actions[:, :self.num_keys] += self._before[np.where(goes_on, begin, 0)]
        actions[:, :self.num_keys] = actions[:, :self.num_keys] > 0.5
        return actions


# Files ------------------------------------------------------------------------------------------------------


def _table(path):
    """(header of a take or {}, list of rows as dicts) of a log."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: a log is one of {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        libraries()
        return {}, read_table(path, "write the log again").to_pylist()
    if suffix == ".csv":
        rows = list(csv.DictReader(_text(path).splitlines()))
        wrong = next((i for i, row in enumerate(rows) if None in row or None in row.values()), None)
        if wrong is not None:
            raise ValueError(f"{path}, line {wrong + 2}: has another number of columns than the first line")
        return {}, rows
    rows = read_objects(path)
    header = rows.pop(0) if rows and rows[0].get("format") == TAKE else {}
    return header, rows


def read_objects(path):
    """The objects of a JSON file, a list of them, or of one of JSON lines, without a torn last line.

        Raises ValueError, naming the file and the line, for anything else.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such log")
    text = _text(path)
    rows = _json_lines(path, text) if path.suffix.lower() == ".jsonl" else _json(path, text)
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise ValueError(f"{path}, row {wrong}: expected an object of columns, such as "
                         '{"t": 1.25, "key": "w", "down": 1}')
    return rows


def _text(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no UTF-8 text; write the log again") from None


def _json(path, text):
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no valid JSON ({error})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{path}: expected a list of objects, one a row")
    return rows


def _json_lines(path, text):
    lines, rows = text.split("\n"), []
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if i == len(lines) - 1 and rows:  # without its end: the program that wrote it was cut off there
                break
            raise ValueError(f"{path}, line {i + 1}: no valid JSON ({error})") from None
    return rows


def _times(path, table, columns, time):
    name, factor = _time_column(path, columns, time)
    times = _numbers(table, name, blank=np.nan)
    if times is None:
        raise ValueError(f"{path}: column {name!r} holds no numbers of seconds")
    wrong = np.flatnonzero(~np.isfinite(times))
    if len(wrong):
        raise ValueError(f"{path}, row {wrong[0]}: column {name!r} holds no number of seconds")
    return times * factor


def _time_column(path, columns, text):
    there_are = f"the columns are {', '.join(map(repr, columns))}"
    if text is None:
        found = [name for name in columns if name.lower() in _TIMES]
        if not found:
            raise ValueError(f"{path}: no column is called {', '.join(_TIMES)}: name the times with --time "
                             f"COLUMN, or --time COLUMN*0.001 of milliseconds; {there_are}")
        return found[0], 1.0
    match = re.fullmatch(r"(?P<name>.+?)(?:\*(?P<factor>\d+(?:\.\d*)?(?:e-?\d+)?))?", text)
    if not match or match["name"] not in columns or float(match["factor"] or 1) <= 0:
        raise ValueError(f"{path}: --time {text!r}: expected COLUMN or COLUMN*X, X seconds for 1; "
                         f"{there_are}")
    return match["name"], float(match["factor"] or 1)


def _event_columns(path, columns, text):
    """(column of keys, column of down or up) of a log of events; None of another."""
    if text is None:
        return _EVENTS if set(_EVENTS) <= set(columns) else None
    names = tuple(text.split("="))
    if len(names) != 2 or not set(names) <= set(columns):
        raise ValueError(f"{path}: --events {text!r}: expected KEY_COLUMN=DOWN_COLUMN; the columns are "
                         f"{', '.join(map(repr, columns))}")
    return names


def _event_rows(path, table, names, is_take):
    """{key: float64 [n]} of a log of events: 1 from a row in which it goes down until it goes up."""
    key_column, down_column = names
    keys = [str(row.get(key_column) or "").strip() for row in table]
    found = list(KEYS) if is_take else list(dict.fromkeys(filter(None, keys)))
    changes = {key: [] for key in found}  # (row, whether it is down from there on)
    for i, (key, row) in enumerate(zip(keys, table)):
        if not key:
            continue
        word = str(row.get(down_column)).strip().lower()
        if word not in _DOWN | _UP:
            raise ValueError(f"{path}, row {i}: column {down_column!r} is {word!r}, expected down or up, "
                             "true or false, 1 or 0")
        if key in changes:
            changes[key].append((i, word in _DOWN))
    rows = {key: _held(part, len(table)) for key, part in changes.items()}
    if is_take:
        rows |= {name: np.zeros(len(table)) for name in ("dx", "dy")}
    return rows


def _held(changes, num_rows):
    at, is_down = [i for i, _ in changes], [0.0, *(float(down) for _, down in changes)]
    return np.array(is_down)[np.searchsorted(at, np.arange(num_rows), side="right")]


def _numbers(table, name, blank):
    """float64 [n] of a column, `blank` where a cell is empty; None where it holds what is no number."""
    try:
        return np.array([_number(row.get(name), blank) for row in table], np.float64)
    except (TypeError, ValueError):
        return None


def _number(cell, blank):
    if cell is None or cell == "":
        return blank
    word = cell.strip().lower() if isinstance(cell, str) else cell
    return {"true": 1.0, "false": 0.0}[word] if word in ("true", "false") else float(word)
