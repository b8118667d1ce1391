"""The places that the player has saved of a world, a quick one and ten slots; written in the background."""
import logging
import threading
from pathlib import Path

import platformdirs

from worldplay.data.save_file import SUFFIX, read_picture, write_save
from worldplay.errors import WorldError

log = logging.getLogger(__name__)

QUICK, NUM_SLOTS = "quick", 10
SLOTS = (QUICK, *(str(number) for number in range(1, NUM_SLOTS + 1)))


def saves_folder():
    """Where saved places lie, a folder for each world."""
    return platformdirs.user_data_path("worldplay", appauthor=False) / "saves"


class Saves:
    """The files of one world; window-free."""

    def __init__(self, world_name, folder=None):
        """folder: in which that of the world lies; None: the user's."""
        self.folder = Path(folder or saves_folder()) / world_name
        self._writing, self._done = [], []

    def path(self, slot):
        """The file of one of SLOTS."""
        return self.folder / f"{slot}{SUFFIX}"

    def write(self, slot, saved):
        """Begin to write a Save into a slot, whose old content stays until the new one is whole."""
        thread = threading.Thread(target=self._write, args=(slot, saved), name="save")
        self._writing.append(thread)
        thread.start()

    def finished(self):
        """[(slot, OSError or None)] of what was written, or could not be, since the last call."""
        done, self._done = self._done, []
        return done

    def wait(self):
        """Wait until everything is on the disk."""
        for thread in self._writing:
            thread.join()
        self._writing.clear()

    def pictures(self):
        """{slot: (fields of the Save, frame)} of the slots that hold something that can be read; others are
        logged."""
        found = {}
        for slot in SLOTS:
            try:
                found[slot] = read_picture(self.path(slot))
            except WorldError as error:
                if error.kind != "not_found":
                    log.warning("%s", error)
        return found

    def _write(self, slot, saved):
        try:
            write_save(self.path(slot), saved)
        except OSError as error:
            log.warning("%s", error)
            self._done.append((slot, error))
            return
        self._done.append((slot, None))
