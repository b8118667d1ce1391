"""Reading JSON, writing files so that readers never see half of one, room on disk, and folders that can be written."""
import json
import os
import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

from worldplay.errors import WorldError, remedy

_GIB = 2 ** 30


@contextmanager
def replacing(path):
    """Context manager: the block writes to the temporary path it is given, which then becomes `path` by renaming.

    A reader sees the old file or the new one, whole. The temporary file lies in the same folder under a name of its
    own, NAME.RANDOM.tmp, so that several processes may write the same file: the last to finish wins. Its content is
    on the disk before the rename. The new file has the permissions that the umask gives, whatever those were that the
    writing library chose. Where the block raises, `path` stays as it was and the temporary file is removed.

        Raises OSError where the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.stem[:40]}.{secrets.token_hex(4)}.tmp")  # a long name stays a legal one
    with open(temporary, "xb") as file:
        mode = os.fstat(file.fileno()).st_mode
    try:
        yield temporary
        os.chmod(temporary, mode)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path, text):
    """Replace the file `path` by this text, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, fields):
    """Replace the file `path` by these fields as JSON."""
    write_text(path, json.dumps(fields, indent=1) + "\n")


def read_json(path):
    """What the JSON file `path` of a world or a run holds; WorldError("bad_checkpoint") where it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorldError("bad_checkpoint", f"{path} is missing, the folder is not a complete checkpoint; "
                         f"{remedy(path)}") from None
    except OSError as error:
        raise WorldError("bad_checkpoint", f"{path} cannot be read ({error.strerror}); {remedy(path)}") from None
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or no UTF-8
        raise WorldError("bad_checkpoint", f"{path} is not valid JSON ({error}); {remedy(path)}") from None


def is_file_name(name):
    """Whether a text that came with a world may become part of a file's name: on every system the name it reads as.

    Letters, digits, spaces and - + _ . in it; no dot or space at its ends, no device of Windows, at most 100 characters.
    """
    return (isinstance(name, str) and re.fullmatch(r"\w([\w +.-]{0,98}[\w+-])?", name) is not None
            and re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE) is None)


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
