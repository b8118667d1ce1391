"""Play, record and train learned worlds; public names are resolved on first use, so importing is free."""
from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "load_world": "worldplay.engine.loading",
    "Action": "worldplay.action",
    "ActionSpace": "worldplay.action",
    "World": "worldplay.world",
    "WorldError": "worldplay.errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'worldplay' has no attribute {name!r}")
    if name == "load_world":
        import_module("worldplay.cores").prepare()  # it imports torch
    return getattr(import_module(_HOMES[name]), name)


def __dir__():
    return __all__
