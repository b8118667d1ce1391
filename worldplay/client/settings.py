"""What the player has chosen, kept between plays in the platform's configuration folder."""
import json
import logging
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import platformdirs

from worldplay.action import KEYS
from worldplay.client.bindings import BY_NAME, FIXED
from worldplay.client.inputs import named
from worldplay.files import write_json

log = logging.getLogger(__name__)

SCALINGS = ("smooth", "whole")
HUD_PARTS = ("figures", "figures and graph", "graph", "rate")  # what F3 shows
MAX_LENGTH = 16_384  # of a window in pixels, which SDL and graphics drivers can make


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the client remembers between two starts.

    degrees_per_count  degrees of turn for one count of the mouse
    turn_speed         degrees a second of a key that turns, and of a stick at its edge
    is_inverted        whether pushing up looks down
    dead_zone          share of a stick's way that does nothing, 0 to 0.5
    toggled            names of the world's keys that stay down until they are pressed again
    bindings           {name: [input]} of what is not as in client.bindings.BINDINGS, the latest last
    scaling            "smooth", or "whole": every pixel of the world becomes a square of whole screen pixels
    window_size        (width, height) of the window in pixels, when not fullscreen
    show_hud           whether the figures (F3) are shown
    hud_parts          one of HUD_PARTS
    record_folder      where F9 writes clips
    """
    degrees_per_count: float = 0.12
    turn_speed: float = 120.0
    is_inverted: bool = False
    dead_zone: float = 0.15
    toggled: tuple[str, ...] = ()
    bindings: dict[str, list[str]] = field(default_factory=dict)
    scaling: str = "smooth"
    window_size: tuple[int, int] = (960, 720)
    show_hud: bool = False
    hud_parts: str = HUD_PARTS[0]
    record_folder: str = field(default_factory=lambda: str(platformdirs.user_videos_path() / "worldplay"))

    def __post_init__(self):
        object.__setattr__(self, "window_size", tuple(int(length) for length in self.window_size))
        if not 0.001 <= self.degrees_per_count <= 10:
            raise ValueError(f"degrees_per_count {self.degrees_per_count}: expected 0.001 to 10")
        if not 10 <= self.turn_speed <= 1000:
            raise ValueError(f"turn_speed {self.turn_speed}: expected 10 to 1000")
        if not 0 <= self.dead_zone <= 0.5:
            raise ValueError(f"dead_zone {self.dead_zone}: expected 0 to 0.5")
        object.__setattr__(self, "toggled", tuple(self.toggled))
        if unknown := [name for name in self.toggled if name not in KEYS]:
            raise ValueError(f"toggled {unknown[0]!r:.40}: no key of a world")
        for name, texts in self.bindings.items():
            if name not in BY_NAME or name in FIXED or not isinstance(texts, list):
                raise ValueError(f"bindings {name!r:.40}: expected the inputs of a control")
            for text in texts:
                named(text)
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling {self.scaling!r}: expected one of {', '.join(SCALINGS)}")
        if len(self.window_size) != 2 or not all(100 <= length <= MAX_LENGTH for length in self.window_size):
            raise ValueError(f"window_size {self.window_size}: expected two lengths of 100 to {MAX_LENGTH}")
        if self.hud_parts not in HUD_PARTS:
            raise ValueError(f"hud_parts {self.hud_parts!r:.40}: expected one of {', '.join(HUD_PARTS)}")
        for name in ("show_hud", "is_inverted"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} {getattr(self, name)!r}: expected true or false")
        if not isinstance(self.record_folder, str) or not self.record_folder or "\0" in self.record_folder:
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
        if name == "bindings" and isinstance(value, dict):  # each key is repaired by itself
            wrong = {entry: problem for entry, one in value.items()
                     if (problem := _problem(name, {entry: one}))}
            usable[name] = {entry: one for entry, one in value.items() if entry not in wrong}
            problems += wrong.values()
        elif problem := (_problem(name, value) if name in known else f"unknown name {name!r}"):
            problems.append(problem)
        else:
            usable[name] = value
    return usable, problems


def _problem(name, value):
    """What is wrong with a value of a field by itself, "" where nothing is."""
    try:
        Settings(**{name: value})
    except (ValueError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return reason if name in reason else f"{name} {value!r:.40}: {reason}"
    return ""


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
