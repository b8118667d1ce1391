"""Reading and writing files: JSON, replacement as a whole, names, room on the disk, folders."""
import errno
import json
import os
import re
import secrets
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from worldplay.errors import WorldError, remedy

_GIB = 2 ** 30
# what systems answer where another process holds the lock
_LOCKED = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def replacing(path):
    """Context manager that yields a temporary path to write to and renames it to `path` at its end.

    Readers see the whole old file or the whole new one. The temporary file is in the same folder and has a
    unique name, NAME.RANDOM.tmp: several processes may write the same file, and the last one to finish wins.
    It is synced to the disk before it is renamed. Its permissions are those of the umask, whatever the
    library that writes it chooses. If the block raises, `path` stays as it was and the temporary file is
    deleted.

        Raises OSError where the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.stem[:40]}.{secrets.token_hex(4)}.tmp")  # file systems limit lengths
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


def write_picture(path, picture):
    """Write uint8 [H W 3] as a PNG file, as `replacing` does."""
    import imageio.v3  # here, because it takes 0.2 s and play writes none

    with replacing(path) as temporary:
        imageio.v3.imwrite(temporary, picture, extension=".png")


def write_text(path, text):
    """Replace the file `path` by this text, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, fields):
    """Replace the file `path` by these fields as JSON."""
    write_text(path, json.dumps(fields, indent=1) + "\n")


def read_json(path):
    """Content of a JSON file of a world or a run; WorldError("bad_checkpoint") where it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorldError("bad_checkpoint", f"{path} is missing, the folder is not a complete checkpoint; "
                         f"{remedy(path)}") from None
    except OSError as error:
        raise WorldError("bad_checkpoint",
                         f"{path} cannot be read ({error.strerror}); {remedy(path)}") from None
    except (ValueError, RecursionError) as error:  # ValueError: neither JSON nor UTF-8
        raise WorldError("bad_checkpoint", f"{path} is not valid JSON ({error}); {remedy(path)}") from None


def is_file_name(name):
    """Whether a name from a world's config.json can be used in the names of files, on every system.

    It may have up to 100 letters, digits, spaces and - + _ . but no dot or space at its ends, and must not be
    a device name of Windows.
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
        probe.unlink(missing_ok=True)  # another process may test the same folder
    except (OSError, ValueError) as error:  # a name with a zero in it is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"{what} cannot be written to {folder} ({reason}); name another folder") from None
    return folder


def visible(folder, pattern):
    """Sorted paths in a folder that match the pattern; [] where there is no folder.

    Names that begin with a dot are left out: other programs leave such files there (`._clip.mp4`).
    """
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))


if sys.platform == "win32":
    import msvcrt

    def _lock(file):
        file.seek(2**30)  # far behind the text: a locked byte cannot be read by others
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
else:
    import fcntl

    def _lock(file):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock(file):
    """Lock an open file until it is closed, without waiting; False where another one has locked it.

        Raises OSError in one line where its file system has no locks.
    """
    try:
        _lock(file)
    except OSError as error:
        if error.errno in _LOCKED:
            return False
        raise OSError(f"{file.name}: cannot be locked ({error.strerror}); choose a folder on another "
                      "disk") from None
    return True
