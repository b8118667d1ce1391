"""SHA-256 of files, remembered in the user's cache until they change: gigabytes of weights are hashed once."""
import hashlib
import json
import logging
import time

from worldplay.files import write_json
from worldplay.worlds import zoo

log = logging.getLogger(__name__)

_MAX_REMEMBERED = 1000  # files; beyond them those that were hashed longest ago are forgotten
_SETTLED_SECONDS = 2  # a file that changed more recently may change again without a new time stamp: FAT counts in 2 s


def digests(paths):
    """{path: SHA-256 in hexadecimal} of files.

    A file has not changed while its size, its inode and its times of modification and status change are the same.
    Several processes may do this at once; one may lose what the other remembers, which is then hashed again.

        Raises OSError where a file cannot be read.
    """
    store = zoo.user_cache() / "digests.json"
    remembered, found, new = _read(store), {}, {}
    for path in paths:
        key, version = str(path.resolve()), _version(path)
        entry = remembered.get(key)
        if entry and entry[:-1] == version:
            found[path] = entry[-1]
            continue
        with open(path, "rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()
        _, modified, changed, _ = version
        if time.time() - max(modified, changed) / 1e9 > _SETTLED_SECONDS and _version(path) == version:
            new[key] = [*version, found[path]]
    if new:
        _remember(store, new)
    return found


def _version(path):
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]


def _read(store):
    """{path: [*version, SHA-256]}; nothing where the file is missing or damaged."""
    try:
        entries = json.loads(store.read_text(encoding="utf-8"))
        return {key: entry for key, entry in entries.items() if len(entry) == 5 and len(entry[-1]) == 64}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(store, new):
    entries = {key: entry for key, entry in _read(store).items() if key not in new} | new
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        write_json(store, dict(list(entries.items())[-_MAX_REMEMBERED:]))
    except OSError as error:
        log.info("%s cannot be written (%s): the world's files will be hashed again at its next start", store, error)
