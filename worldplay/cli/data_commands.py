"""Commands about data: record a scripted player, make, check and describe data sets."""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from worldplay.cli.options import report

Folder = Annotated[Positional[Path], arg(metavar="FOLDER")]


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Record a player in a real environment as a LeRobot data set."""
    env: Annotated[Positional[str], arg(metavar="ENV")]
    """The environment, for example doom-maze, or any of Gymnasium's: gym:CarRacing-v3, gym:MODULE:ID or
    gym:MODULE:CLASS, with options as in "gym:CarRacing-v3?repeat=2&size=96x96&actions=a=0:-1,d=0:1"."""
    frames: int
    """Frames to record."""
    out: Path
    """New folder of the data set."""
    seed: int = 0
    """Of the first episode; the others count up from it."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Processes that play; none is one for every processor."""
    player: str = "explorer"
    """Who plays: explorer, whom training sees; tester, unlike it; stroller, who seeks walls and turns slowly;
    random, who holds any keys; or a function of your own, MODULE:FUNCTION."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.envs.collect import run_collect
        made = run_collect(self.env, frames=self.frames, out=self.out, seed=self.seed, workers=self.workers,
                           player=self.player)
        if self.json:
            return made
        print(f"{made['out']}: {made['frames']} frames in {made['episodes']} episodes, "
              f"{made['held_out_episodes']} of them held out, {made['mib']:.1f} MiB "
              f"({made['bytes_per_frame']:.0f} bytes a frame), "
              f"{made['frames_per_second']:.0f} frames/s with {made['workers']} processes")


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Read a data set to its last pixel; refuse it at the first thing that is not as written."""
    folder: Folder
    """The LeRobot folder."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.data import lerobot
        from worldplay.data.lerobot_layout import Layout
        from worldplay.log import track
        num_frames = Layout.open(self.folder).num_frames
        with track(desc="verify", total=num_frames, unit="frame") as bar:
            opened = lerobot.verify(self.folder, progress=bar.update)
        if self.json:
            return {"folder": str(self.folder), "episodes": len(opened.episodes), "frames": opened.num_frames}
        print(f"{self.folder}: {len(opened.episodes)} episodes, {opened.num_frames} frames, all as written")


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a data set holds, from its tables alone."""
    folder: Folder
    """The LeRobot folder."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.data import lerobot
        return report(lerobot.describe(self.folder), self.json)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Make a data set of recorded clips; refuse them all before anything is written where one is not fit."""
    clips: Annotated[Positional[tuple[Path, ...]], arg(metavar="CLIP...")]
    """Clips (their .mp4 or .json) of one environment, or folders of them."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the data set."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.data.pack import run_pack
        made = run_pack(self.clips, out=self.out)
        if self.json:
            return made
        both = "the real game and a learned world"
        shown = {0: "the real game", 1: "a learned world"}.get(made["dreamed"], both)
        clips = f"{made['clips']} {'lossy ' if made['lossy'] else ''}clip{'' if made['clips'] == 1 else 's'}"
        print(f"{made['out']}: {made['frames']} frames ({made['minutes']:.1f} minutes) of {shown} in "
              f"{made['episodes']} episodes, {made['held_out_episodes']} of them held out, from {clips}, "
              f"{made['mib']:.1f} MiB")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Make a data set of recorded clips, check one, or say what it holds."""
    command: (Annotated[Pack, tyro.conf.subcommand("pack")]
              | Annotated[Verify, tyro.conf.subcommand("verify")]
              | Annotated[Info, tyro.conf.subcommand("info")])

    def run(self):
        return self.command.run()
