"""What the player has chosen, kept between plays in the platform's configuration folder."""
import json
import logging
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import platformdirs

from worldplay.files import write_json

log = logging.getLogger(__name__)

SCALINGS = ("smooth", "whole")
MAX_LENGTH = 16_384  # of a window in pixels, which SDL and graphics drivers can make


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the client remembers between two starts.

    degrees_per_count  degrees of turn for one count of the mouse
    scaling            "smooth", or "whole": every pixel of the world becomes a square of whole screen pixels
    window_size        (width, height) of the window in pixels, when not fullscreen
    show_hud           whether the figures (F3) are shown
    record_folder      where F9 writes clips
    """
    degrees_per_count: float = 0.12
    scaling: str = "smooth"
    window_size: tuple[int, int] = (960, 720)
    show_hud: bool = False
    record_folder: str = field(default_factory=lambda: str(platformdirs.user_videos_path() / "worldplay"))

    def __post_init__(self):
        object.__setattr__(self, "window_size", tuple(int(length) for length in self.window_size))
        if not 0.001 <= self.degrees_per_count <= 10:
            raise ValueError(f"degrees_per_count {self.degrees_per_count}: expected 0.001 to 10")
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling {self.scaling!r}: expected one of {', '.join(SCALINGS)}")
        if len(self.window_size) != 2 or not all(100 <= length <= MAX_LENGTH for length in self.window_size):
            raise ValueError(f"window_size {self.window_size}: expected two lengths of 100 to {MAX_LENGTH}")
        if not isinstance(self.show_hud, bool):
            raise ValueError(f"show_hud {self.show_hud!r}: expected true or false")
        if not isinstance(self.record_folder, str) or not self.record_folder:
            raise ValueError(f"record_folder {self.record_folder!r}: expected a path")
        self.clip_folder  # raises where the home that it begins with is not known

    @property
    def clip_folder(self):
        """record_folder as a Path, `~` replaced by the home folder."""
        return Path(self.record_folder).expanduser()


def settings_path():
    return platformdirs.user_config_path("worldplay", appauthor=False) / "settings.json"


def load_settings(path=None):
    """The player's Settings.

    A field of the file that cannot be used gets its default: one warning names it, the old file is kept as
    settings.json.bak, and the file is written anew.
    """
    path = Path(path or settings_path())
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        log.warning("settings %s cannot be read (%s); the defaults serve", path, error.strerror)
        return Settings()
    usable, problems = _usable(text)
    settings = Settings(**usable)
    if problems:
        kept = _set_aside(path)
        if kept:
            save_settings(settings, path)
        log.warning("settings %s: %s; the default serves%s", path, "; ".join(problems),
                    f", and the old file is kept as {kept}" if kept else "")
    return settings


def _usable(text):
    """({name: value} of the fields in a file's text that can be used, [what is wrong with the others])."""
    try:
        stored = json.loads(text)
        if not isinstance(stored, dict):
            raise ValueError(f"{type(stored).__name__} in place of an object")
    except (ValueError, RecursionError) as error:  # no UTF-8 is a ValueError too
        return {}, [f"no JSON of settings ({error})"]
    usable, problems, known = {}, [], {field.name for field in fields(Settings)}
    for name, value in stored.items():
        try:
            if name not in known:
                raise ValueError(f"unknown name {name!r}")
            Settings(**{name: value})  # each field is checked by itself
        except (ValueError, TypeError, OverflowError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            problems.append(reason if name in reason else f"{name} {value!r:.40}: {reason}")
        else:
            usable[name] = value
    return usable, problems


def _set_aside(path):
    """The path under which a file that is replaced is kept, or None where it cannot be renamed."""
    backup = path.with_name(f"{path.name}.bak")
    try:
        os.replace(path, backup)
    except OSError:
        return None
    return backup


def save_settings(settings, path=None):
    """Write them whole or not at all; where that is not possible it is said in one line."""
    path = Path(path or settings_path())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(settings))
    except OSError as error:
        log.warning("settings %s cannot be written (%s)", path, error.strerror)
