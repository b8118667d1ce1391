"""SHA-256 of files, kept in the user's cache until they change: gigabytes of weights are hashed once."""
import hashlib
import json
import logging
import time

from worldplay.files import write_json
from worldplay.worlds import zoo

log = logging.getLogger(__name__)

_MAX_KEPT = 1000  # hashes; beyond that the oldest are dropped
# A file that changed this recently may change again within the same time stamp (FAT's are 2 s apart): it is
# not kept.
_SETTLED_SECONDS = 2


def digests(paths):
    """{path: SHA-256 in hexadecimal} of files.

    A file counts as unchanged while its size, inode, modification time and status change time are the same.
    Several processes may call this at once; a hash that one of them loses is computed again later.

        Raises OSError where a file cannot be read.
    """
    store = zoo.user_cache() / "digests.json"
    kept, found, new = _read(store), {}, {}
    for path in paths:
        key, version = str(path.resolve()), _version(path)
        entry = kept.get(key)
        if entry and entry[:-1] == version:
            found[path] = entry[-1]
            continue
        with open(path, "rb") as file:
            found[path] = hashlib.file_digest(file, "sha256").hexdigest()
        _, modified, changed, _ = version
        if time.time() - max(modified, changed) / 1e9 > _SETTLED_SECONDS and _version(path) == version:
            new[key] = [*version, found[path]]
    if new:
        _keep(store, new)
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


def _keep(store, new):
    entries = {key: entry for key, entry in _read(store).items() if key not in new} | new
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        write_json(store, dict(list(entries.items())[-_MAX_KEPT:]))
    except OSError as error:
        log.info("%s cannot be written (%s): this world's files will be hashed again next time", store, error)
