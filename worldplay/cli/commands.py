"""The command line: python -m worldplay COMMAND, also installed as `worldplay`."""
import json
import sys
from typing import Annotated

import tyro

from worldplay import __version__, cores
from worldplay.cli.clip_commands import Clip
from worldplay.cli.data_commands import Collect, Dataset
from worldplay.cli.desktop_commands import RecordDesktop
from worldplay.cli.measure_commands import Bench, Eval, Replay
from worldplay.cli.process import run_process
from worldplay.cli.worlds_commands import Compile, Export, Fetch, Ship, Worlds
from worldplay.log import run_command

# Every command imports what it needs when it runs: --help and `worlds` start without torch.

COMMANDS = {"worlds": Worlds, "fetch": Fetch, "compile": Compile, "export": Export, "ship": Ship,
            "collect": Collect, "record-desktop": RecordDesktop, "dataset": Dataset, "clip": Clip,
            "replay": Replay, "eval": Eval, "bench": Bench}

_DESCRIPTION = """Play, record and measure learned worlds. `worldplay play` is play.py: worldplay play --help.
--version prints the version."""


def main(argv=None):
    """Run the command line and return its exit status: 0 done, 1 failed, 2 bad usage."""
    cores.prepare()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["play"]:
        from worldplay.cli.play import main as play
        return play(argv[1:], prog="worldplay play")
    if "--version" in argv:
        print(f"worldplay {__version__}")
        return 0
    command = tyro.cli(
        _one_of(COMMANDS), prog="worldplay", args=argv, description=_DESCRIPTION,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes))

    def body():
        figures = command.run()
        if figures is not None:
            print(json.dumps(figures))
    return run_command(type(command).__name__.lower(), body)


def _one_of(commands):
    """The type of one of these dataclasses, each the sub-command of its name."""
    union = None
    for name, command in commands.items():
        choice = Annotated[command, tyro.conf.subcommand(name)]
        union = choice if union is None else union | choice
    return union


def command():
    """What `worldplay` on the command line runs."""
    run_process(main)
