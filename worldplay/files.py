"""Files written whole or not at all, the room they need on disk, and the folders that take them."""
import json
import os
import shutil
from pathlib import Path

_GIB = 2 ** 30


def write_json(path, fields):
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def require_space(folder, num_bytes):
    """Raise ValueError unless the disk of `folder` can take `num_bytes` more."""
    if missing_space(folder, num_bytes):
        free = shutil.disk_usage(folder).free
        raise ValueError(f"{folder}: needs {num_bytes / _GIB:.1f} GiB, the disk has {free / _GIB:.1f} GiB "
                         "left; free some or choose another folder")


def missing_space(folder, num_bytes):
    """Bytes that the disk of `folder` lacks for `num_bytes` more; 0 where they fit."""
    return max(0, num_bytes - shutil.disk_usage(folder).free)


def writable_folder(folder, what):
    """The folder, made if need be, where files can be written.

        Raises OSError in one line that names `what` cannot be written there.
    """
    folder = Path(folder)
    probe = folder / ".worldplay.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # a name with a zero in it is a ValueError
        raise OSError(f"{what} cannot be written to {folder} ({getattr(error, 'strerror', None) or error}); name "
                      "another folder") from None
    return folder


def visible(folder, pattern):
    """Paths in `folder` that fit the pattern, sorted; without names that begin with a dot, which other programs leave
    there (`._clip.mp4`); none where there is no folder.
    """
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))
