"""Real environments behind the World contract: the table of their names."""
from functools import partial
from importlib.util import find_spec

from worldplay.envs.doom import NEEDS_VIZDOOM, SCENARIOS, DoomWorld
from worldplay.errors import WorldError

# name -> constructor; action_space, frame_size and fps are known before the first reset starts the engine
ENVS = {name: partial(DoomWorld, name) for name in SCENARIOS}

# how names of Gymnasium's own environments begin -> the package that plays them
_NEEDED = {f"gym:{family}": "Box2D" for family in ("CarRacing-", "LunarLander", "BipedalWalker")}


def open_env(name):
    """The World called `name`: one of ENVS, or "gym:ID", any Gymnasium environment (see open_gym).

    An engine of ENVS starts at the first reset.

        Raises WorldError("not_found") for another name, ValueError for options of "gym:ID" that do not fit.
    """
    if name.startswith("gym:"):
        check_installed(name)
        from worldplay.envs.gymnasium import open_gym
        return open_gym(name)
    if name not in ENVS:
        raise WorldError("not_found", f"environment {name!r}: unknown; there are {', '.join(ENVS)}, and any "
                         "of Gymnasium's as gym:ID, for example gym:CarRacing-v3")
    return ENVS[name]()


def check_installed(name):
    """Raise WorldError("not_found") where the package that the environment called `name` is played by is not
    there; nothing of it is imported.
    """
    if name.startswith("gym:") and not find_spec("gymnasium"):
        raise WorldError("not_found", f"{name}: Gymnasium is not installed (pip install gymnasium)")
    needs = next((package for start, package in _NEEDED.items() if name.startswith(start)), None)
    if needs and not find_spec(needs):
        raise WorldError("not_found", f"{name}: {needs} is not installed "
                         f'(pip install "gymnasium[{needs.lower()}]")')
    if name in ENVS and not find_spec("vizdoom"):
        raise WorldError("not_found", NEEDS_VIZDOOM)
