"""Commands about data: record a scripted player, make, check and describe data sets."""
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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
class Import:
    """Make a data set of videos of any game and logs of what was pressed meanwhile."""
    videos: Annotated[Positional[tuple[Path, ...]], arg(metavar="VIDEO...")]
    """Videos of one game, or folders of them; with --format csgo its HDF5 files."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the data set; a contact sheet with the keys drawn on it is put there too."""
    log: Annotated[tuple[Path, ...], arg(metavar="FILE...")] = ()
    """A log for each video: .csv, .json, .jsonl or .parquet; none is the one beside the video."""
    format: Literal["log", "vpt", "csgo"] = "log"
    """log: columns as the options below say; vpt: OpenAI's VPT recordings; csgo: Counter-Strike as DIAMOND
    reads it."""
    actions: Annotated[str | None, arg(metavar="KEY=COLUMN,...")] = None
    """Which columns are which keys and the look: "w=forward, look_yaw=dx*0.1"; none takes columns that are
    called by their keys."""
    time: Annotated[str | None, arg(metavar="COLUMN*X")] = None
    """Column of the times, X seconds for 1; none is t, time, timestamp or seconds, in seconds."""
    events: Annotated[str | None, arg(metavar="KEY=DOWN")] = None
    """Columns of a log with a row for each key that goes down or up: which key, and down or up; none is
    key=down where there are such columns."""
    fps: Annotated[float | None, arg(metavar="FLOAT")] = None
    """Frames a second of the data set; none is 20, or what the recording says."""
    fit: Annotated[str | None, arg(metavar="HOW")] = None
    """How frames are brought to a size: pad, crop or resize WxH; none is "resize 160x112"."""
    offset: Annotated[str, arg(metavar="SECONDS|auto")] = "0"
    """Added to the logs' times; auto is what the search finds."""
    name: Annotated[str | None, arg(metavar="NAME")] = None
    """What the environment is called; none is the name of the folder."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.data.import_play import run_import
        made = run_import(self.videos, out=self.out, logs=self.log, format=self.format, actions=self.actions,
                          time=self.time, events=self.events, fps=self.fps, fit=self.fit, offset=self.offset,
                          name=self.name)
        if self.json:
            return made
        print_import(made)


@dataclass(frozen=True, kw_only=True)
class View:
    """Draw a contact sheet: the moments at which keys go down or a turn begins, with what was held."""
    folder: Folder
    """The LeRobot folder."""
    out: Annotated[Path | None, arg(metavar="FILE.png")] = None
    """The picture; none is contact-sheet.png in the data set."""
    camera: Annotated[str | None, arg(metavar="NAME")] = None
    """Of a folder with several cameras the one that is drawn."""
    actions: Annotated[str | None, arg(metavar="KEY=COLUMN,...")] = None
    """Of a folder by another program: which action columns are which keys and the look, as in training; the
    error without it lists the columns."""

    def run(self):
        from worldplay.data.contact_sheet import write_contact_sheet
        print(write_contact_sheet(self.folder, self.out, camera=self.camera, actions=self.actions))


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Write the episodes of several data sets of the same game into a new one."""
    folders: Annotated[Positional[tuple[Path, ...]], arg(metavar="FOLDER...")]
    """Data sets of worldplay's."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the data set."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.data.rearrange import run_merge
        made = run_merge(self.folders, out=self.out)
        if self.json:
            return made
        _print_rearranged(made)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Write some episodes of a data set into a new one; the set itself stays as it is."""
    folder: Folder
    """A data set of worldplay's."""
    episodes: Annotated[str, arg(metavar="0:50,60")]
    """Numbers and ranges of episodes; 50 is left out of 0:50, and 60: goes to the last."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the data set."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.data.rearrange import run_split
        made = run_split(self.folder, episodes=self.episodes, out=self.out)
        if self.json:
            return made
        _print_rearranged(made)


@dataclass(frozen=True, kw_only=True)
class Push:
    """Verify a data set and upload it to the Hugging Face hub, where LeRobot finds it."""
    folder: Folder
    """The LeRobot folder."""
    repo: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    """The data set repository; made where there is none, replaced where there is one."""
    private: bool = False
    """Make it private."""

    def run(self):
        from worldplay.hub.dataset import push
        made = push(self.folder, self.repo, is_private=self.private)
        print(f"{made['frames']} frames are in {made['url']}")


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Download a LeRobot data set from the Hugging Face hub; the same command goes on after a break."""
    repo: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    """The data set repository."""
    out: Annotated[Path, arg(metavar="DIR")]
    """New folder of the data set."""
    revision: Annotated[str | None, arg(metavar="NAME")] = None
    """Branch, tag or commit; none is the newest."""
    without_videos: bool = False
    """Leave the videos on the hub: whatever reads the data set, training too, fetches one after another and
    removes it again."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.hub.dataset import pull
        made = pull(self.repo, self.out, revision=self.revision, without_videos=self.without_videos)
        if self.json:
            return made
        # verify would fetch every video
        videos, then = (", its videos left on the hub", "info") if self.without_videos else ("", "verify")
        print(f"{made['out']}: {made['frames']} frames in {made['episodes']} episodes, LeRobot "
              f"{made['format']}{videos}; next: python -m worldplay dataset {then} {made['out']}")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Make a data set of recorded clips or of videos with logs; check, show, merge, split or share one."""
    command: (Annotated[Pack, tyro.conf.subcommand("pack")]
              | Annotated[Import, tyro.conf.subcommand("import")]
              | Annotated[Verify, tyro.conf.subcommand("verify")]
              | Annotated[Info, tyro.conf.subcommand("info")]
              | Annotated[View, tyro.conf.subcommand("view")]
              | Annotated[Merge, tyro.conf.subcommand("merge")]
              | Annotated[Split, tyro.conf.subcommand("split")]
              | Annotated[Push, tyro.conf.subcommand("push")]
              | Annotated[Pull, tyro.conf.subcommand("pull")])

    def run(self):
        return self.command.run()


def print_import(made):
    """Print what run_import returns."""
    for part in made["recordings"]:
        notes = [f"log moved by {part['offset']:+.2f} s" if part["offset"] else "log as it is",
                 f"best offset {part['search']['text']}"]
        notes += [f"{part['repeated']:.0%} of the frames repeat the one before"] * (part["repeated"] > 0.02)
        notes += [f"it breaks off there ({part['damage']})"] * bool(part["damage"])
        wrong = "the picture moves with the turn, so look_yaw has the wrong sign"
        notes += [wrong] * part["search"]["wrong_way"]
        print(f"{part['video']}: {part['frames']} frames; {'; '.join(notes)}")
    for video in made["left_out"]:
        print(f"{video}: left out, too short")
    turns = f", at most {made['look_limit']:.1f} degrees a frame" if made["look_limit"] else ""
    print(f"actions: {made['actions']}{turns}")
    print(f"look whether they fit the frames: {made['contact_sheet']}")
    print(f"{made['out']}: {made['frames']} frames ({made['minutes']:.1f} minutes at {made['fps']:g} a "
          f"second) in {made['episodes']} episodes, {made['held_out_episodes']} of them held out, "
          f"{made['mib']:.1f} MiB")


def _print_rearranged(made):
    """Print what run_merge and run_split return."""
    print(f"{made['out']}: {made['frames']} frames in {made['episodes']} episodes, "
          f"{made['held_out_episodes']} of them held out, {made['mib']:.1f} MiB")
