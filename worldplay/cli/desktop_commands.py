"""The command that records another program's game as it is played on this desktop."""
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from worldplay.cli.data_commands import print_import
from worldplay.cli.process import at_end_signal


@dataclass(frozen=True, kw_only=True)
class RecordDesktop:
    """Record a game of another program, its window and your keys and mouse, as a data set."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the data set; the takes it is made of stay in DIR/takes."""
    window: Annotated[str | None, arg(metavar="TITLE")] = None
    """Part of the title of the game's window, recorded while it has the focus."""
    region: Annotated[str | None, arg(metavar="X,Y,W,H")] = None
    """Instead: a part of the screen, while the window that has the focus at the start has it."""
    fps: float = 20.0
    """Frames a second."""
    size: Annotated[str, arg(metavar="WxH")] = "160x112"
    """Pixels of the frames; multiples of 16 are what own-data trains on."""
    actions: Annotated[str | None, arg(metavar="KEY=KEY,...")] = None
    """The keys that are stored and what the mouse turns, as in "w=w, space=e, look_yaw=dx*0.05"; none is
    every key that is pressed, and 0.1 degrees for a count of the mouse."""
    exclude: Annotated[tuple[str, ...], arg(metavar="KEY...")] = ()
    """Keys that are never stored."""
    hotkey: Annotated[str, arg(metavar="KEY")] = "f9"
    """Starts and stops a take; it is never stored."""
    offset: Annotated[str, arg(metavar="SECONDS|auto")] = "0"
    """Added to the times of the input, as in dataset import."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.capture.recorder import run_record
        over = threading.Event()
        with at_end_signal(over.set, interrupt=True):
            made = run_record(out=self.out, window=self.window, region=self.region, fps=self.fps,
                              size=self.size, actions=self.actions, exclude=self.exclude,
                              hotkey=self.hotkey, offset=self.offset, is_over=over.is_set)
        if self.json:
            return made
        print_import(made)
        print(f"{made['takes']} takes, {made['seconds']:.0f} s, are in {self.out / 'takes'}; {made['late']} "
              "frames came late")
