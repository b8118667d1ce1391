"""What the player has chosen, kept between plays in the platform's configuration folder."""
import json
import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import platformdirs

from worldplay.files import write_json

log = logging.getLogger(__name__)

SCALINGS = ("smooth", "whole")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """degrees_per_count  how far one count of the mouse turns
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
        if len(self.window_size) != 2 or min(self.window_size) < 100:
            raise ValueError(f"window_size {self.window_size}: expected a width and height from 100 pixels")
        if not isinstance(self.show_hud, bool) or not isinstance(self.record_folder, str):
            raise ValueError("show_hud is true or false, record_folder is a path")


def settings_path():
    return platformdirs.user_config_path("worldplay", appauthor=False) / "settings.json"


def load_settings(path=None):
    """The player's Settings; a file that cannot be used is said in one line, and the defaults serve."""
    path = Path(path or settings_path())
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(set(stored) - {known.name for known in fields(Settings)})
        if unknown:
            raise ValueError(f"unknown name {unknown[0]!r}")
        return Settings(**stored)
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, TypeError) as error:
        log.warning("settings %s cannot be used (%s); playing with the defaults", path, error)
        return Settings()


def save_settings(settings, path=None):
    """Write them whole or not at all; where that is not possible it is said in one line."""
    path = Path(path or settings_path())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(settings))
    except OSError as error:
        log.warning("settings %s cannot be written (%s)", path, error.strerror)
