"""The error that a world raises, and the words for its remedy."""
from pathlib import Path

# the remedy for a missing or damaged file of a world
RESTORE = "restore it from the repository, or train the world again"


def remedy(path, otherwise=RESTORE):
    """What to do about a file that is missing or damaged; one that was fetched has a lock file beside it."""
    path = Path(path)
    if not path.with_name("lock.json").is_file():
        return otherwise
    return f"{'delete it, then ' if path.exists() else ''}{fetch_command(path.parent.name)} loads it again"


def fetch_command(name):
    """The shell command that downloads a world or a part of that name in worldplay.worlds.catalog."""
    return f"python -m worldplay fetch {name}"


class WorldError(Exception):
    """A world cannot be opened or cannot go on; `str()` is one line saying what, where and the remedy.

    kind  "not_found", "bad_checkpoint", "bad_scene", "bad_prompt", "bad_action", "bad_save", "device",
          "unfinished_step", "ended", "not_finite"
    """

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self):  # so that it crosses processes whole
        return type(self), (self.kind, str(self))
