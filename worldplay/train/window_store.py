"""What a network made of windows of a frame cache, stored beside a training run."""
from pathlib import Path

import numpy as np

from worldplay.files import read_json, replacing, require_space, write_json


class WindowStore:
    """What a network made of windows of a frame cache: float16, one file a batch, written as a whole.

    starts  int [w], first row in the cache of every window
    """

    def __init__(self, folder, starts, batch, made_by=None):
        """batch: windows a file. made_by: what else decides the numbers, as JSON holds it.

            Raises ValueError where the folder holds those of other windows, or made by something else.
        """
        self.folder, self.starts, self.batch = Path(folder), np.asarray(starts, np.int64), batch
        self.folder.mkdir(parents=True, exist_ok=True)
        index, wanted = self.folder / "index.json", {"starts": self.starts.tolist(), "batch": batch}
        if made_by is not None:
            wanted["made_by"] = made_by
        if not index.exists():
            write_json(index, wanted)
            return
        found = read_json(index)
        if found != wanted:
            is_other = not isinstance(found, dict) or found.get("made_by") != made_by
            what = "was made by something else" if is_other else "is of other windows"
            raise ValueError(f"{self.folder}: what it holds {what}; remove the folder, or go on with the "
                             "same numbers")

    def missing(self):
        """[(number of the file, starts of its windows)] still to be made."""
        parts = np.split(self.starts, range(self.batch, len(self.starts), self.batch))
        return [(i, starts) for i, starts in enumerate(parts)
                if not self._path(i).exists()]

    def write(self, number, values):
        """Store values [b ...] of one batch of windows.

            Raises ValueError if the disk is too small for the rest.
        """
        values = np.asarray(values, np.float16)
        require_space(self.folder, values.nbytes * len(self.missing()))
        with replacing(self._path(number)) as temporary, open(temporary, "wb") as file:
            np.save(file, values)

    def read(self, windows):
        """float16 [b ...] of the windows with these numbers."""
        return np.stack([np.load(self._path(w // self.batch), mmap_mode="r")[w % self.batch]
                         for w in windows])

    @property
    def num_bytes(self):
        """Bytes on disk so far."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def _path(self, number):
        return self.folder / f"{number:05d}.npy"
