"""Options that several commands have, and what they do with them."""
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

# A Literal of numbers or None would be refused with its choices out of order and None among them.
Steps = Annotated[int | None, PrimitiveConstructorSpec(
    nargs=1, metavar="1|2|4", choices=("1", "2", "4"), instance_from_str=lambda words: int(words[0]),
    is_instance=lambda value: isinstance(value, int), str_from_instance=lambda value: [str(value)])]

PassPath = Annotated[Literal["auto", "eager", "compiled"], tyro.conf.arg(metavar="auto|eager|compiled")]


def find_world(name):
    """Raise for a world that is not there before the libraries that open one are imported."""
    from worldplay.worlds import zoo
    zoo.find(name)


def report(figures, as_json):
    """The figures for JSON, or None once they are printed as lines."""
    if as_json:
        return figures
    for name, value in figures.items():
        if value != {}:
            print(f"{name:<24} {_text(value)}")
    return None


def _text(value):
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        return "".join(f"\n  {name:<22} {_text(part)}" for name, part in value.items())
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(part)}" for name, part in value.items())
    return "none" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
