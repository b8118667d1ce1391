"""The page of saved places: a quick one and ten slots, with pictures."""
import pygame
from send2trash import send2trash

from worldplay.client.pictures_page import Cell, PicturesPage
from worldplay.client.saves import QUICK, SLOTS
from worldplay.data.save_file import rename_save
from worldplay.errors import WorldError


class PlacesPage(PicturesPage):
    """Enter loads a place, or saves into an empty slot; S saves into any, after asking where one is full."""
    title, empty = "Saved places", ""

    def __init__(self, window, commands, notify):
        super().__init__(window)
        self._commands, self._notify, self._asked = commands, notify, None
        self._pictures = commands.travel.saves.pictures()

    def hint(self):
        return "Enter loads or saves, S saves here, N names, Del throws away, Esc goes back"

    def make_cells(self):
        return [Cell(frame=lambda slot=slot: self._pictures[slot][1] if slot in self._pictures else None,
                     title=("Quick" if slot == QUICK else slot) + (
                         f": {self._pictures[slot][0]['title']}" if slot in self._pictures else ""),
                     says=self._says(slot)) for slot in SLOTS]

    def name_of(self, i):
        found = self._pictures.get(SLOTS[i])
        return found and found[0]["title"]

    def enter(self, i):
        if SLOTS[i] in self._pictures:
            self._commands.load(SLOTS[i])
        else:
            self._save(SLOTS[i])

    def press_other(self, code):
        slot = SLOTS[self._at]
        if code == pygame.KSCAN_S:
            if slot in self._pictures and self._asked != slot:
                self._asked = slot
                self._notify("S again puts this place in its stead")
            else:
                self._save(slot)

    def write(self, i, text):
        try:
            rename_save(self._commands.travel.saves.path(SLOTS[i]), text[:80])
        except (WorldError, OSError) as error:
            self._notify(str(error))
        self._pictures = self._commands.travel.saves.pictures()

    def clear(self, i):
        if SLOTS[i] in self._pictures:
            throw_away([self._commands.travel.saves.path(SLOTS[i])], self._notify)
            self._pictures = self._commands.travel.saves.pictures()

    def _save(self, slot):
        self._commands.travel.save(slot)
        self._commands.resume()

    def _says(self, slot):
        if slot not in self._pictures:
            return "Empty"
        fields = self._pictures[slot][0]
        return (f"frame {fields['number']} from {fields['scene'] or 'a picture'}, "
                f"saved {fields['saved'].replace('T', ' ')[:16]} UTC")


def throw_away(paths, notify):
    """Move files to the system's trash, or say in one line why that is not possible."""
    try:
        for path in paths:
            if path.exists():
                send2trash(str(path))
    except OSError as error:
        notify(f"{paths[0].name} stays: it cannot be moved to the trash ({error})")
