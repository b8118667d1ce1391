"""The gallery: clips with their pictures, and one clip as it plays, with what can be made of it."""
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import pygame

from worldplay.client import theme
from worldplay.client.export import export_clip, shown_at, trim_clip
from worldplay.client.pages import NAVIGATION, Page
from worldplay.client.pictures_page import Cell, PicturesPage, draw_frame
from worldplay.client.places_page import throw_away
from worldplay.data.clip import beside, read_clip
from worldplay.data.video import DamagedVideo, FrameSeeker
from worldplay.errors import WorldError
from worldplay.files import visible

log = logging.getLogger(__name__)


class ClipsPage(PicturesPage):
    """The clips of the folder of clips, the newest first."""
    title = "Clips"

    def __init__(self, window, commands, view):
        super().__init__(window)
        self._commands, self._view, self._frames = commands, view, {}
        self._folder = view.recording.folder
        self._paths = self._list()
        how = view.choices_of(record="begins a clip", keep="keeps the last 30 seconds")
        self.empty = f"Nothing is recorded yet{': ' if how else ''}{how}"

    def hint(self):
        return "Enter plays, N names, Del throws away, O opens the folder, Esc goes back"

    def make_cells(self):
        return [Cell(frame=lambda path=path: self._frame(path), title=path.stem, says=str(path))
                for path in self._paths]

    def name_of(self, i):
        return self._paths[i].stem

    def enter(self, i):
        try:
            clip = read_clip(self._paths[i])
            self._view.pages.append(ClipPage(clip, self._commands, self._view))
        except (WorldError, DamagedVideo, OSError) as error:
            self._view.notify(str(error))

    def clear(self, i):
        base = self._paths[i].with_suffix("")
        throw_away([self._paths[i], beside(base, ".json")], self._view.notify)
        self._paths = self._list()

    def write(self, i, text):
        base = self._paths[i].with_suffix("")
        name = "".join("_" if c in '/\\:*?"<>|' else c for c in text)[:100].strip(". ")
        try:
            if not name:
                raise OSError(f"{text:.40} is no name for a file; give another one")
            new = base.with_name(name)
            if any(beside(new, suffix).exists() for suffix in (".mp4", ".json")):
                raise FileExistsError(f"{new.name} is there already; give another name")
            os.rename(beside(base, ".json"), beside(new, ".json"))
            os.rename(beside(base, ".mp4"), beside(new, ".mp4"))
        except OSError as error:
            self._view.notify(str(error))
        self._paths = self._list()

    def press_other(self, code):
        if code == pygame.KSCAN_O:
            open_folder(self._folder, self._view.notify)

    def _list(self):
        def age(path):
            try:
                return -path.stat().st_mtime
            except OSError:
                return 0.0
        return sorted((path for path in visible(self._folder, "*.mp4")
                       if ".part" not in path.suffixes and beside(path.with_suffix(""), ".json").exists()),
                      key=age)

    def _frame(self, path):
        """The first frame of a clip; None where it cannot be read."""
        if path not in self._frames:
            try:
                with closing(FrameSeeker(path)) as seeker:
                    self._frames[path] = seeker.frame(0)
            except (DamagedVideo, OSError):
                self._frames[path] = None
        return self._frames[path]


class ClipPage(Page):
    """One clip as it plays at its own times; Left and Right seek, I and O mark a part.

    is_moving  whether the picture changes by itself
    """

    def __init__(self, clip, commands, view, clock=time.perf_counter):
        """clip: worldplay.data.clip.Clip; commands: WindowCommands; view: Screen."""
        super().__init__()
        self._clip, self._commands, self._view, self._clock = clip, commands, view, clock
        self._seeker, self._times = FrameSeeker(clip.path), shown_at(clip)
        self._at, self._since, self.is_moving = 0, clock(), True
        self._frame, self._shown, self._track = None, None, pygame.Rect(0, 0, 0, 0)
        self._begin, self._end = 0, clip.num_frames

    def hint(self):
        return ("Space stops, arrows seek, I O mark, T trims, G GIF, C goes on, B begins here, "
                "W other worlds")

    def close(self):
        self._seeker.close()

    def press(self, code):
        way = NAVIGATION.get(code)
        if way == "back":
            self.is_over = True
        elif way in ("left", "right", "up", "down"):
            step = {"left": -1, "right": 1, "up": -round(self._clip.sidecar["fps"]),
                    "down": round(self._clip.sidecar["fps"])}[way]
            self._seek(self._at + step)
            self.is_moving = False
        elif way == "enter" or code == pygame.KSCAN_SPACE:
            self.is_moving = not self.is_moving
            self._seek(0 if self.is_moving and self._at == self._clip.num_frames - 1 else self._at)
        elif code == pygame.KSCAN_I:
            self._begin, self._end = self._at, max(self._end, self._at + 1)
        elif code == pygame.KSCAN_O:
            self._end, self._begin = self._at + 1, min(self._begin, self._at)
        elif code == pygame.KSCAN_T:
            self._make("-part", ".mp4", lambda out: trim_clip(self._clip, out, self._begin, self._end))
        elif code == pygame.KSCAN_G:
            begin, end = self._times[self._begin], self._times[self._end]
            self._make("", ".gif", lambda out: export_clip(self._clip.path, out, keys=True, begin=begin,
                                                           end=end))
        elif code in (pygame.KSCAN_C, pygame.KSCAN_B) and not self._has_frame():
            self._view.notify("This picture cannot be read; choose another one")
        elif code == pygame.KSCAN_C:
            self._seek(self._clip.step_end(self._at))  # a world stands between two steps only
            if self._has_frame():
                self._commands.go_on_from(self._clip, self._at, self._frame)
        elif code == pygame.KSCAN_B:
            self.is_moving = False
            self._commands.begin_from(self._clip.path, self._at)
        elif code == pygame.KSCAN_W:
            self.is_moving = False
            self._commands.choose_replay(self._clip)

    def hover(self, position):
        return False

    def click(self, position):
        if self._track.inflate(0, 20).collidepoint(position):
            self._seek(round((position[0] - self._track.left) / self._track.width * self._clip.num_frames))

    def scroll(self, steps):
        self._seek(self._at - steps)

    def draw(self, surface):
        size = theme.unit(surface)
        surface.fill(theme.NIGHT)
        self._advance()
        if self._frame is not None:
            draw_frame(surface, self._frame, surface.get_rect().inflate(-2 * size, -8 * size))
        name = theme.shorten(self._clip.path.stem, "bold", size, surface.get_width() - 22 * size)
        theme.write(surface, name, (size, size), size_px=size, face="bold")
        theme.write(surface, f"{self._times[self._at]:.1f} of {self._times[-1]:.1f} s, frame {self._at}",
                    (surface.get_width() - size, size), size_px=size, color=theme.MUTED, anchor="topright")
        self._track = pygame.Rect(size, surface.get_height() - round(3.4 * size),
                                  surface.get_width() - 2 * size, size // 2)
        pygame.draw.rect(surface, theme.CAP, self._track, border_radius=size)
        part = self._track.copy()
        part.left += round(self._track.width * self._begin / self._clip.num_frames)
        part.width = round(self._track.width * (self._end - self._begin) / self._clip.num_frames)
        pygame.draw.rect(surface, theme.MUTED, part, border_radius=size)
        x = self._track.left + round(self._track.width * self._at / max(1, self._clip.num_frames - 1))
        pygame.draw.circle(surface, theme.ACCENT, (x, self._track.centery), round(0.6 * size))
        theme.write(surface, theme.shorten(self.hint(), "text", size, surface.get_width() - 2 * size),
                    (surface.get_width() // 2, surface.get_height() - round(1.9 * size)), size_px=size,
                    color=theme.MUTED, anchor="midtop")

    def _seek(self, index):
        self._at = max(0, min(index, self._clip.num_frames - 1))
        self._since = self._clock() - self._times[self._at]

    def _advance(self):
        """Take the frame that is due now."""
        if self.is_moving:
            played = self._clock() - self._since
            while self._at < self._clip.num_frames - 1 and self._times[self._at + 1] <= played:
                self._at += 1
            self.is_moving = self._at < self._clip.num_frames - 1
        if self._shown != self._at:
            height, width = self._clip.sidecar["frame_size"]
            try:
                self._frame = self._seeker.frame(self._at)[:height, :width]
            except DamagedVideo as error:
                self._view.notify(f"{self._clip.path.name} cannot be read here: {error}")
                self._frame, self.is_moving = None, False
            self._shown = self._at

    def _has_frame(self):
        """Whether the frame that is due now is there."""
        self._advance()
        return self._frame is not None

    def _make(self, ending, suffix, make):
        """Write a file beside the clip in the background, under a name that is free."""
        base, number = self._clip.path.with_suffix(""), 1
        while (out := beside(base, f"{ending}{'' if number == 1 else f'-{number}'}{suffix}")).exists():
            number += 1

        def run():
            try:
                make(out)
                self._view.notify(f"Saved {out}")
            except (WorldError, ValueError, OSError) as error:
                log.warning("%s", error)
                self._view.notify(str(error))
        self._view.notify(f"Writing {out.name}...")
        threading.Thread(target=run, name="export", daemon=True).start()


def open_folder(folder, notify):
    """Show a folder in the desktop's file manager."""
    opener = {"win32": "explorer", "darwin": "open"}.get(sys.platform, "xdg-open")
    try:
        subprocess.Popen([opener, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        notify(f"The clips are in {folder}")
