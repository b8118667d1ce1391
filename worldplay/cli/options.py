"""Options that several commands have."""
from typing import Annotated, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

# A Literal of numbers or None would be refused with its choices out of order and None among them.
Steps = Annotated[int | None, PrimitiveConstructorSpec(
    nargs=1, metavar="1|2|4", choices=("1", "2", "4"), instance_from_str=lambda words: int(words[0]),
    is_instance=lambda value: isinstance(value, int), str_from_instance=lambda value: [str(value)])]

PassPath = Annotated[Literal["auto", "eager", "compiled"], tyro.conf.arg(metavar="auto|eager|compiled")]
