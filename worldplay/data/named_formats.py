"""Two published kinds of recordings: OpenAI's VPT logs, and the Counter-Strike files of DIAMOND."""
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from worldplay.data.footage import ArrayPicture
from worldplay.data.input_log import InputLog, read_objects
from worldplay.errors import WorldError

# VPT: openai/Video-Pre-Training, run_inverse_dynamics_model.py and data_loader.py. A line a frame, 20 of them
# a second; 2400 counts of the mouse are a full turn.
VPT_FPS = 20.0
VPT_ACTIONS = ", ".join([
    *(f"{key}=key.keyboard.{key}" for key in ("w", "a", "s", "d", "space", "e", "q", "f", *"123456789")),
    "shift=key.keyboard.left.shift", "ctrl=key.keyboard.left.control", "mouse_left=mouse.0",
    "mouse_right=mouse.1", "mouse_middle=mouse.2", "look_yaw=mouse.dx*0.15", "look_pitch=mouse.dy*0.15"])
_VPT_KEYS = tuple(term.split("=")[1] for term in VPT_ACTIONS.split(", ") if "key." in term)

# CS:GO: TeaPearce/Counter-Strike_Behavioural_Cloning, config.py and README, read as eloialonso/diamond does
# (src/data/dataset.py: pictures in BGR). 16 frames a second; a count of the mouse is the game's 0.022 degrees
# times the sensitivity, 2.5.
CSGO_FPS = 16.0
_CSGO_KEYS = ("w", "a", "s", "d", "space", "ctrl", "shift", "1", "2", "3", "r", "mouse_left", "mouse_right")
_RIGHT, _DOWN = (2, 4, 10, 20, 30, 60, 100, 200, 300, 500, 1000), (2, 4, 10, 20, 50, 100, 200)
_CSGO_X, _CSGO_Y = (np.array([*(-x for x in reversed(side)), 0, *side], np.float64)
                    for side in (_RIGHT, _DOWN))
CSGO_ACTIONS = ", ".join([*(f"{key}={key}" for key in _CSGO_KEYS), "look_yaw=mouse_x*0.055",
                          "look_pitch=mouse_y*0.055"])


def read_vpt(path):
    """The InputLog of a VPT file of JSON lines, a row a frame.

    Where the game shows a screen of its own (isGuiOpen) the mouse moves a cursor and no view: its movement is
    0 there. An attack that the first line says is held before it is pressed is none, as in OpenAI's loader.

        Raises ValueError, naming file and line, for anything else, and for a file without lines.
    """
    path = Path(path)
    lines, rows, is_stuck = read_objects(path), [], False
    if not lines:
        raise ValueError(f"{path}: no rows")
    for i, line in enumerate(lines):
        try:
            keys, mouse = set(line["keyboard"]["keys"]), line["mouse"]
            buttons, pressed = set(mouse["buttons"]), mouse.get("newButtons", [])
            moved = (0.0, 0.0) if line.get("isGuiOpen") else (float(mouse["dx"]), float(mouse["dy"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {i + 1}: no line of VPT's recorder ({error!r}); leave --format "
                             "vpt out for a log of another kind") from None
        is_stuck = pressed == [0] if i == 0 else is_stuck and 0 not in pressed
        rows.append([*(key in keys for key in _VPT_KEYS),
                     *(button in buttons and not (button == 0 and is_stuck) for button in range(3)), *moved])
    names = (*_VPT_KEYS, "mouse.0", "mouse.1", "mouse.2", "mouse.dx", "mouse.dy")
    return _log(path, VPT_FPS, dict(zip(names, np.array(rows, np.float64).T)), ("mouse.dx", "mouse.dy"))


@dataclass
class CsgoFootage:
    """A file of the Counter-Strike data set: frame_i_x, uint8 [150 280 3] BGR, and frame_i_y, 51 numbers.

    path    of it
    damage  None: a file that is not whole is refused
    """
    path: Path
    damage: None = field(default=None, init=False)

    def pictures(self):
        """Yield (seconds, picture) as VideoFootage does."""
        with _opened(self.path) as file:
            for i in range(_num_frames(file, self.path)):
                yield i / CSGO_FPS, ArrayPicture(np.ascontiguousarray(file[f"frame_{i}_x"][:][..., ::-1]))

    def log(self):
        """Its InputLog: keys, and the middle of the bin in which the mouse moved, in counts.

            Raises ValueError for a file of another layout.
        """
        with _opened(self.path) as file:
            num = _num_frames(file, self.path)
            vectors = np.stack([file[f"frame_{i}_y"][:].reshape(-1) for i in range(num)]).astype(np.float64)
        keys, x = len(_CSGO_KEYS), len(_CSGO_X)
        if vectors.shape[1] != keys + x + len(_CSGO_Y):
            raise ValueError(f"{self.path}: frame_0_y has {vectors.shape[1]} numbers, expected "
                             f"{keys + x + len(_CSGO_Y)} of this data set")
        rows = {key: (vectors[:, i] > 0.5).astype(np.float64) for i, key in enumerate(_CSGO_KEYS)}
        rows |= {"mouse_x": _CSGO_X[vectors[:, keys:keys + x].argmax(1)],
                 "mouse_y": _CSGO_Y[vectors[:, keys + x:].argmax(1)]}
        return _log(self.path, CSGO_FPS, rows, ("mouse_x", "mouse_y"))


def _log(path, fps, rows, moved):
    """The InputLog of a row a frame, {column: float64 [n]}, in which the columns `moved` hold what is moved
    until the next row: it is told by the row after it, and a last row ends the log.
    """
    num = len(next(iter(rows.values())))
    rows = {name: np.append(0.0, column) if name in moved else np.append(column, column[-1])
            for name, column in rows.items()}
    return InputLog(path, np.arange(num + 1) / fps, rows, False, {})


def _opened(path):
    try:
        import h5py
    except ImportError:
        raise WorldError("not_found", "--format csgo needs h5py, which is not installed: run pip install h5py"
                         ) from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: no HDF5 file that can be read ({str(error).splitlines()[0]})") from None


def _num_frames(file, path):
    num = sum(1 for name in file if name.startswith("frame_") and name.endswith("_x"))
    missing = next((f"frame_{i}_{part}" for i in range(max(num, 1)) for part in "xy"
                    if f"frame_{i}_{part}" not in file), None)
    if missing:
        raise ValueError(f"{path}: {missing} is missing; it is no whole file of the Counter-Strike data set")
    return num
