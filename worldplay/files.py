"""Files written whole or not at all, and the room they need on disk."""
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
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ValueError(f"{folder}: needs {num_bytes / _GIB:.1f} GiB, the disk has {free / _GIB:.1f} GiB "
                         "left; free some or choose another folder")
