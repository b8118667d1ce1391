"""A saved place of a world on disk: one file with the state, the actions that led there and a picture."""
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from worldplay.data.clip import actions_from_json
from worldplay.errors import WorldError
from worldplay.files import missing_space, replacing

FORMAT, VERSION, SUFFIX = "worldplay save", 1, ".save"
_STATE = "state/"  # before the names of the state's arrays


@dataclass(frozen=True)
class Save:
    """What a file holds.

    fields  header of a clip (worldplay.data.clip_writer.describe, "start" left out), "title", "saved" (UTC),
            `number` of the frame shown, `prompts`, `paths`, `threads`, `steps` and `windows` as in a clip's
            sidecar, and "state": fields that the world's `pack` gave, None of a world that is taken back by
            its actions
    frame   uint8 [H W 3], what was seen; keys uint64 [n] and look float64 [n 2], as in an ActionLog
    start   uint8 [n H W 3], the frames the branch began from; None: it began from a scene
    state   {name: array} of the world's `pack`
    """
    fields: dict
    frame: np.ndarray
    keys: np.ndarray
    look: np.ndarray
    start: np.ndarray | None
    state: dict


def write_save(path, saved):
    """Replace the file `path` by a Save, whole or not at all; OSError in one line where it cannot be."""
    path = Path(path)
    arrays = {"frame": saved.frame, "keys": saved.keys, "look": saved.look}
    if saved.start is not None:
        arrays["start"] = saved.start
    arrays |= {_STATE + name: array for name, array in saved.state.items()}
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()},
                {"worldplay": json.dumps({"format": FORMAT, "version": VERSION, "place": saved.fields})})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if missing_space(path.parent, len(data)):
            raise OSError(f"the disk is too full for {len(data) / 2**20:.0f} MiB")
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from None


def rename_save(path, title):
    """Give a saved place another title; its state stays as it is."""
    saved = read_save(path)
    write_save(path, replace(saved, fields=saved.fields | {"title": title}))


def read_save(path):
    """The Save in a file.

        Raises WorldError("not_found" or "bad_save") for a file that is missing, damaged or too new.
    """
    with _opened(path) as (fields, file):
        try:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, TypeError) as error:  # the latter: numbers that numpy does not know
            raise _damaged(path, error) from None
    state = {name.removeprefix(_STATE): array for name, array in arrays.items() if name.startswith(_STATE)}
    try:
        saved = Save(fields, arrays["frame"], arrays["keys"], arrays["look"], arrays.get("start"), state)
        _check(saved)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from None
    return saved


def read_picture(path):
    """(fields, frame) of a saved place, without its state; raises as read_save."""
    with _opened(path) as (fields, file):
        try:
            frame = file.get_tensor("frame")
            _check_place(fields, frame)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error) from None
    return fields, frame


def is_of_world(fields, world):
    """Whether a header (worldplay.data.clip_writer.describe) is of an open world with its weights."""
    theirs, ours = fields["world_hash"], world.info.get("world_hash")
    return theirs == ours and (bool(theirs) or fields["env"] == world.info.get("env"))


def check_world(saved, world, name):
    """Raise WorldError("bad_save") unless a Save, called `name`, is of this open world with its weights."""
    if not is_of_world(saved.fields, world):
        theirs, ours = (each or "the real game"
                        for each in (saved.fields["world_hash"], world.info.get("world_hash")))
        raise WorldError("bad_save", f"{name} was saved in {saved.fields['world']} ({theirs}), this is "
                         f"{world.name} ({ours}); open that world to go on from it")


def how_it_differs(saved, world):
    """Why frames after loading may differ from those that followed the saving; "" where none should."""
    then, now = saved.fields["info"], world.info
    names = {"device": "device", "dtype": "number type", "steps": "number of sampling steps"}
    differing = [f"{says} {then.get(name)}, here {now.get(name)}" for name, says in names.items()
                 if then.get(name) != now.get(name)]
    return f"saved with {'; '.join(differing)}: frames may differ" if differing else ""


class _opened:
    """Context manager: (fields, open safetensors file) of a saved place."""

    def __init__(self, path):
        self._path = Path(path)

    def __enter__(self):
        try:
            self._file = safe_open(self._path, "np").__enter__()
            written = json.loads((self._file.metadata() or {})["worldplay"])
            if written["format"] != FORMAT:
                raise ValueError("it is something else")
            version, fields = int(written["version"]), dict(written["place"])
        except FileNotFoundError:
            raise WorldError("not_found", f"nothing is saved as {self._path.stem} ({self._path})") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise _damaged(self._path, error) from None
        if version > VERSION:
            raise WorldError("bad_save", f"{self._path} was written by a newer worldplay (format {version}); "
                             "update this one")
        return fields, self._file

    def __exit__(self, *error):
        return self._file.__exit__(*error)


def _check_place(fields, frame):
    for name in ("world", "world_hash", "env", "info", "scene", "seed", "number", "prompts", "paths",
                 "threads", "steps", "windows", "frame_size", "state", "title", "saved"):
        fields[name]
    height, width = fields["frame_size"]
    if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
        raise ValueError(f"its picture is {frame.dtype} {frame.shape}")
    for name, kind in (("number", int), ("title", str), ("saved", str), ("info", dict)):
        if not isinstance(fields[name], kind):
            raise ValueError(f"its {name} is {fields[name]!r:.40}")
    for name in ("prompts", "paths", "threads", "steps", "windows"):
        for step, _ in fields[name]:
            int(step)


def _check(saved):
    _check_place(saved.fields, saved.frame)
    if (saved.keys.dtype, saved.look.dtype) != (np.uint64, np.float64) or not len(saved.keys) \
            or saved.look.shape != (len(saved.keys), 2):
        raise ValueError("its actions are no actions")
    past = actions_from_json(saved.fields.get("start_actions"))
    if past is not None and (saved.start is None or len(past) != len(saved.start)):
        raise ValueError("the actions of its start are not as many as its frames")


def _damaged(path, error):
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return WorldError("bad_save", f"{path} is no saved place, or is damaged ({reason:.120}); delete it or "
                      "restore it from a copy")
