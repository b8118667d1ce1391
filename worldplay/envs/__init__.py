"""Real environments behind the World contract: the table of their names."""
from functools import partial

from worldplay.envs.doom import SCENARIOS, DoomWorld
from worldplay.errors import WorldError

# name -> constructor; action_space, frame_size and fps are known before the first reset starts the engine
ENVS = {name: partial(DoomWorld, name) for name in SCENARIOS}


def open_env(name):
    """The World called `name`; its engine starts at the first reset.

        Raises WorldError("not_found") for a name that is not in ENVS.
    """
    if name not in ENVS:
        raise WorldError("not_found", f"environment {name!r}: unknown; there are {', '.join(ENVS)}")
    return ENVS[name]()
