"""Where worlds are found by name or folder, and which one opens when none is named."""
import difflib
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs

from worldplay.action import ActionSpace
from worldplay.errors import WorldError, fetch_command, remedy
from worldplay.files import read_json, visible
from worldplay.worlds import catalog
from worldplay.worlds.config import WorldConfig
from worldplay.worlds.look import Look

log = logging.getLogger(__name__)

# inside an installed package, or beside the package in a checkout
_PACKAGE = Path(__file__).parent.parent
_PACKAGED = _PACKAGE / "_data" / "checkpoints"
if not _PACKAGED.is_dir():
    _PACKAGED = _PACKAGE.parent / "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What config.json and the folder say of a world, without opening its weights.

    name          the name that `find` takes
    folder        of its files
    size_mib      of all its files
    env           the real environment it was trained on
    frame_size    (H, W) pixels
    fps           frames of world time per second
    action_space  what the player can do in it
    frames_per_chunk  latents that share an action
    is_default    whether it opens when no name is given
    is_playable   whether it is a few-step student; the others are there to train from
    look          worldplay.worlds.look.Look that drift is measured against; None: that of its scenes
    """
    name: str
    folder: Path
    size_mib: float
    env: str
    frame_size: tuple[int, int]
    fps: float
    action_space: ActionSpace
    is_default: bool
    is_playable: bool
    frames_per_chunk: int = 1
    look: Look | None = None


def find(name=None):
    """Folder of the world called `name`; None is the default world.

    name  a folder with a config.json, or one looked up in ./checkpoints, the package data and the user cache

        Raises WorldError("not_found") with the names there are, or "bad_checkpoint" for a folder without one.
    """
    if name is None:
        return _named()[default_name()]
    folder = Path(name)
    if (folder / "config.json").is_file():
        return folder
    named = _named()
    if str(name) in named:
        return named[str(name)]
    if str(name) in catalog.WORLDS:
        raise WorldError("not_found", f"world {str(name)!r} is published, but not on this machine; "
                         f"{fetch_command(name)} loads it")
    if str(name) in catalog.SHAPES:
        raise WorldError("not_found", f"{name} is a shape without weights, to measure its speed alone; "
                         f"python -m worldplay bench {name} --random does")
    if folder.is_dir():
        raise WorldError("bad_checkpoint", f"{folder} holds no world: config.json is missing; give the "
                         "folder of a checkpoint, or of a training run that has saved one")
    raise WorldError("not_found", f"world {str(name)!r}: unknown; {_choice(str(name), named)}")


def default_name():
    """Name of the default world, which a file `default` beside the worlds' folders holds: one line of text.

    The first such file in the order of _places() that names a world here counts.

        Raises WorldError("not_found") where there is none.
    """
    named = _named()
    for place in _places():
        file = place / "default"
        if file.is_file():
            name = file.read_text(encoding="utf-8", errors="replace").strip()
            if name in named:
                return name
            _warn_once(f"{file} names {name!r:.40}, which is no world here; it is passed over")
    raise WorldError("not_found", f"no default world is named; {_choice(None, named)}")


def cards():
    """Card of every world that can be opened by name, in order of names; other folders get a warning."""
    try:
        default = default_name()
    except WorldError:
        default = None
    found = []
    for config in _configs():
        if not _is_ours(config):
            _warn_once(f"{config} describes no world; its folder is passed over")
    for name, folder in sorted(_named().items()):
        try:
            found.append(_card(name, folder, name == default))
        except WorldError as error:
            _warn_once(str(error))
    return found


def published():
    """A dict of facts for every published world that is not on this machine, in the order of the catalog.

    load_mib is the size of the files that fetch would download for it now, with missing parts; None where the
    server has to be asked for it.
    """
    named = _named()
    return [{"name": world.name, "summary": world.summary, "conditioning": world.conditioning,
             "image_start": world.image_start, "few_steps": world.few_steps, "licence": world.licence,
             "file": world.source.where, "load_mib": _load_mib(world),
             **{name: world.config[name]
                for name in ("frames_per_chunk", "steps", "first_steps", "window", "fps")}}
            for world in catalog.WORLDS.values() if world.name not in named]


def _load_mib(world):
    missing = [source for name in world.parts for file, source in catalog.PARTS[name].files.items()
               if not (user_cache() / "parts" / name / file).is_file()]
    sizes = [source.size for source in (world.source, *missing)]
    return None if None in sizes else round(sum(sizes) / 2**20, 1)


def user_cache():
    """The user's cache folder; fetched worlds are in worlds/NAME, and parts that they share in parts/NAME."""
    return platformdirs.user_cache_path("worldplay", appauthor=False)


def find_part(name):
    """Folder of a part (catalog.PARTS) that worlds share; WorldError("not_found") where it is missing."""
    if name not in catalog.PARTS:
        raise WorldError("not_found",
                         f"{name!r} is no part that worlds share; there are {', '.join(catalog.PARTS)}")
    folder = user_cache() / "parts" / name
    missing = [file for file in catalog.PARTS[name].files if not (folder / file).is_file()]
    if missing:
        raise WorldError("not_found", f"{folder / missing[0]} is missing ({catalog.PARTS[name].summary}); "
                         f"{fetch_command(name)} loads it")
    return folder


def is_here(name):
    """Whether a world of that name, or a folder, can be opened without fetching it."""
    return name is not None and ((Path(name) / "config.json").is_file() or str(name) in _named())


def check_playable(name):
    """Raise WorldError("not_found") for a world that is unknown or published only to train from."""
    world = catalog.WORLDS.get(name)
    is_only_published = world and not is_here(name)
    if is_only_published and not world.few_steps or not is_only_published and not _is_playable(find(name)):
        raise WorldError("not_found", f"{Path(name).name} has not learnt to make frames in few steps, it is "
                         "published to train from; python -m worldplay worlds lists those that play")


def _is_playable(folder):
    world = catalog.WORLDS.get(folder.name)
    return not world or world.few_steps or not (folder / "lock.json").is_file()


def _places():
    return Path("checkpoints"), _PACKAGED, user_cache() / "worlds"


def _named():
    """{name: folder} of all worlds here; of those with the same name the first in the order of _places()."""
    named = {}
    for config in _configs():
        if _is_ours(config):
            named.setdefault(config.parent.name, config.parent)
    return named


def _configs():
    configs = (folder / "config.json" for place in _places() for folder in visible(place, "*"))
    return [config for config in configs if config.is_file()]


def _is_ours(config):
    """Whether a config.json may be a world's, damaged or not: other programs use checkpoints/ as well."""
    try:
        fields = _fields(config)
    except (OSError, WorldError):
        return True
    return isinstance(fields, dict) and "action_space" in fields


def _fields(config):
    """The content of a config.json, read again only when the file changes; raises WorldError or OSError."""
    facts = config.stat()
    return _read(config, facts.st_ino, facts.st_mtime_ns, facts.st_size)


@cache
def _read(path, *version):
    return read_json(path)


@cache
def _warn_once(text):
    log.warning("%s", text)


def _choice(name, named):
    if not named:
        return "none is installed here: train one (python train_world.py --help) and give its folder"
    near = difflib.get_close_matches(name, named, 1) if name else []
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}there are {', '.join(sorted(named))}; or give a folder"


def _card(name, folder, is_default):
    path = folder / "config.json"
    try:
        config = WorldConfig.from_json(_fields(path), path)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError as error:
        raise WorldError("bad_checkpoint",
                         f"{folder} cannot be read ({error.strerror}); {remedy(path)}") from None
    return Card(name=name, folder=folder, env=config.env, frame_size=config.frame_size, fps=float(config.fps),
                action_space=config.action_space, size_mib=size / 2**20, is_default=is_default,
                is_playable=_is_playable(folder), look=config.look,
                frames_per_chunk=config.frames_per_chunk)
