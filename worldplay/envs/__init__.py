"""Real environments behind the World contract: the table of their names."""
import re
from functools import partial
from importlib.util import find_spec

from worldplay.envs.doom import NEEDS_VIZDOOM, SCENARIOS, DoomWorld
from worldplay.errors import WorldError

# name -> constructor; action_space, frame_size and fps are known before the first reset starts the engine
ENVS = {name: partial(DoomWorld, name) for name in SCENARIOS}

# how names of Gymnasium's own environments begin -> the package that plays them
_NEEDED = {f"gym:{family}": "Box2D" for family in (
    "CarRacing-", "LunarLander", "BipedalWalker", "worldplay.envs.car_racing:")}

# what is installed: an id that Gymnasium knows, and what is in a module of worldplay's
_INSTALLED = re.compile(r"gym:([^:]*|worldplay(\.\w+)*:[^:]*)")


def open_env(name, trusted=False):
    """The World called `name`: one of ENVS, or "gym:ID", any Gymnasium environment (see open_gym).

    trusted  whether the user names it, on the command line or in code: "gym:MODULE:..." imports any module
             then. A name that a file holds (a clip, a scene, a world, a data set) may be a stranger's, and
             the module beside it too.

    An engine of ENVS starts at the first reset.

        Raises WorldError("not_found") for another name, and for a module that is neither installed with
        worldplay nor trusted; ValueError for options of "gym:ID" that do not fit.
    """
    if name in ENVS:
        return ENVS[name]()
    if not name.startswith("gym:"):
        raise WorldError("not_found", f"environment {name!r}: unknown; there are {', '.join(ENVS)}, and any "
                         "of Gymnasium's as gym:ID, for example gym:CarRacing-v3")
    check_openable(name, trusted)
    from worldplay.envs.gymnasium import open_gym
    return open_gym(name)


def check_openable(name, trusted=False):
    """Raise WorldError("not_found") where the package that the environment called `name` is played by is not
    there, or where it is in a module that only the user may name (see open_env); nothing is imported.
    """
    env_id = name.partition("?")[0]
    if name.startswith("gym:") and not trusted and not _INSTALLED.fullmatch(env_id):
        raise WorldError("not_found", f"{name}: no module is run because a file names it; if you trust it, "
                         "name it on the command line: --env of a world's game (play, replay --real), "
                         "--world to replay a clip of the game")
    if name.startswith("gym:") and not find_spec("gymnasium"):
        raise WorldError("not_found", f"{name}: Gymnasium is not installed (pip install gymnasium)")
    needs = next((package for start, package in _NEEDED.items() if name.startswith(start)), None)
    if needs and not find_spec(needs):
        raise WorldError("not_found", f"{name}: {needs} is not installed "
                         f'(pip install "gymnasium[{needs.lower()}]")')
    if name in ENVS and not find_spec("vizdoom"):
        raise WorldError("not_found", NEEDS_VIZDOOM)
