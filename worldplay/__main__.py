"""The command line: python -m worldplay COMMAND, also installed as `worldplay`."""
import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from worldplay import __version__
from worldplay.log import leave, run_command
from worldplay.options import PassPath, Steps
from worldplay.world import WorldError

log = logging.getLogger(__name__)

# Every command imports what it needs when it runs: --help and `worlds` start without torch.

World = Annotated[Positional[str | None], arg(metavar="WORLD")]
Folder = Annotated[Positional[Path], arg(metavar="FOLDER")]


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """List the worlds that can be opened by name, and those that can be fetched."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay import zoo
        found = [{"name": card.name, "is_default": card.is_default, "is_playable": card.is_playable,
                  "folder": str(card.folder),
                  "env": card.env, "size_mib": round(card.size_mib, 1), "frame_size": card.frame_size,
                  "fps": card.fps, "keys": card.action_space.keys, "look_axes": card.action_space.look_axes}
                 for card in zoo.cards()]
        others = zoo.published()
        if self.json:
            return {"worlds": found, "can_be_fetched": others}
        if not found:
            print("no world is installed here; train one: python train_world.py --help")
        for world in found:
            height, width = world["frame_size"]
            look = ("", " mouse(yaw)", " mouse(yaw, pitch)")[world["look_axes"]]
            controls = f"keys {' '.join(world['keys'])}{look}" if world["keys"] or look else "no keys"
            size = f"{world['size_mib']} MiB" if world["size_mib"] < 1024 else f"{world['size_mib'] / 1024:.1f} GiB"
            print(f"{world['name']}{' (default)' if world['is_default'] else ''}: {width}x{height}, "
                  f"{world['fps']:g} frames/s, {controls}, {size}, "
                  f"{'' if world['is_playable'] else 'to train from, '}{world['folder']}")
        for world in others:
            size = f"{world['load_mib'] / 1024:.1f} GiB" if world["load_mib"] else "size told by its server"
            print(f"can be fetched: {world['name']} ({world['summary']}; by {world['conditioning']}), {size}, "
                  f"{world['licence']}")


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Load a published world from the Hugging Face hub; `worlds` lists them. The same command goes on after a break."""
    world: Annotated[Positional[str], arg(metavar="NAME")]
    """Its name, or that of a part alone that worlds share, such as wan-vae."""
    vae: bool = False
    """Also the full Wan video codec, finer and slower than the small one."""
    no_text: bool = False
    """Without the text encoder, for play --prompt with files of text rows."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.fetch import fetch
        made = fetch(self.world, with_text=not self.no_text, with_vae=self.vae)
        if self.json:
            return made
        if made["was_complete"]:
            print(f"{self.world} is complete in {made['folder']}; nothing was loaded")
        else:
            print(f"{self.world} is in {made['folder']}: {made['files']} files, {made['loaded_mib']:.0f} MiB loaded, "
                  f"{made['seconds']:.0f} s; the published files stay in the hub's cache and may be deleted there")


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Record a scripted player in a real environment as a LeRobot data set."""
    env: Annotated[Positional[str], arg(metavar="ENV")]
    """The environment, for example doom-maze."""
    frames: int
    """Frames to record."""
    out: Path
    """New folder of the data set."""
    seed: int = 0
    """Of the first episode; the others count up from it."""
    workers: Annotated[int | None, arg(metavar="INT")] = None
    """Processes that play; none is one for every processor."""
    player: Literal["explorer", "tester", "stroller"] = "explorer"
    """Who plays: the one that training sees, the one unlike it, or one that seeks walls and turns slowly."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.envs.collect import run_collect
        made = run_collect(self.env, frames=self.frames, out=self.out, seed=self.seed, workers=self.workers,
                           player=self.player)
        if self.json:
            return made
        print(f"{made['out']}: {made['frames']} frames in {made['episodes']} episodes, {made['mib']:.1f} MiB "
              f"({made['bytes_per_frame']:.0f} bytes a frame), {made['frames_per_second']:.0f} frames/s with "
              f"{made['workers']} processes")


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Read a data set to its last pixel; refuse it at the first thing that is not as written."""
    folder: Folder
    """The LeRobot folder."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from tqdm import tqdm

        from worldplay import lerobot
        num_frames = lerobot.LeRobotFolder.open(self.folder).num_frames
        with tqdm(desc="verify", total=num_frames, unit="frame", mininterval=_interval()) as bar:
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
        from worldplay import lerobot
        return _report(lerobot.describe(self.folder), self.json)


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
        from worldplay.pack import run_pack
        made = run_pack(self.clips, out=self.out)
        if self.json:
            return made
        shown = {0: "the real game", 1: "a learned world"}.get(made["dreamed"], "the real game and a learned world")
        print(f"{made['out']}: {made['frames']} frames ({made['minutes']:.1f} minutes) of {shown} in "
              f"{made['episodes']} episodes, {made['held_out_episodes']} of them held out, from {made['clips']} "
              f"{'lossy ' if made['lossy'] else ''}clip{'' if made['clips'] == 1 else 's'}, {made['mib']:.1f} MiB")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Make a data set of recorded clips, check one, or say what it holds."""
    command: (Annotated[Pack, tyro.conf.subcommand("pack")]
              | Annotated[Verify, tyro.conf.subcommand("verify")]
              | Annotated[Info, tyro.conf.subcommand("info")])

    def run(self):
        return self.command.run()


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Play a clip's actions again in its world and compare every frame with the recording."""
    clip: Annotated[Positional[Path], arg(metavar="CLIP")]
    """The clip: its .mp4, its .json or the name without either."""
    world: Annotated[str | None, arg(metavar="WORLD")] = None
    """Name or folder of its world, where it is not the name in the clip."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """New clip to write, NAME.mp4."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; frames are bit-equal only on the same device, number type and path."""
    vae: bool = False
    """Decode by the full codec of a Wan-size world (fetch --vae), for finer pictures: --out keeps them."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.eval.replay import run_replay
        return _report(run_replay(self.clip, world=self.world, out=self.out, device=self.device, vae=self.vae), self.json)


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure a world against the real environment it was trained on, on seeds that no trainer sees."""
    world: World = None
    """Name or folder; none is the default world."""
    quick: bool = False
    """Fewer streams and a walk of 1000 frames: minutes instead of a quarter of an hour on two cores."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for report.json, report.md, contact_sheet.png and side_by_side.mp4; none is runs/eval-NAME."""
    compare: Annotated[str | None, arg(metavar="WORLD")] = None
    """Another world of the same environment, measured on the same streams."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    steps: Steps = None
    """Sampling steps per frame; none is the world's own number."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        _find(self.world)
        from worldplay.eval.report import markdown, run_eval
        report = run_eval(self.world, quick=self.quick, out=self.out, compare=self.compare,
                          device=self.device, steps=self.steps)
        if self.json:
            return report
        print(markdown(report))
        print(f"{report['seconds']:.0f} s; report and pictures are in {report['out']}")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure how fast a world plays on this machine, unpaced; times in ms, sizes in MiB."""
    world: World = None
    """Name or folder; none is the default world."""
    random: bool = False
    """Random weights in the shape of that world, for speed alone; also of one that is published, and of wan-1.3b."""
    ceilings: bool = False
    """Also the machine's own copy, matrix and attention rates."""
    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Frames to play, 10000 tells whether the cost stays flat; none is 1000, or 120 of a Wan-size random world."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    steps: Steps = None
    """Sampling steps per frame; none is the world's own number."""
    path: PassPath = "auto"
    """How passes run: eager, compiled, or auto: eager on a processor, compiled on a GPU; there a Wan-size random world is
    measured both ways."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        if not self.random:
            _find(self.world)
        from worldplay.opening import load_world, random_configs, random_world
        from worldplay.eval import latency, throughput
        from worldplay.eval.report import track
        configs = random_configs(self.world, steps=self.steps) if self.random else []
        is_wan_size = bool(configs) and configs[0].codec is None
        frames = self.frames if self.frames is not None else throughput.FRAMES if is_wan_size else 1000
        latency.check_frames(frames)
        if is_wan_size:
            figures = throughput.bench_random(configs[0].name, configs, frames=frames, device=self.device,
                                              path=self.path, track=track)
            if self.json:
                return figures
            print(throughput.table(figures))
            return None
        start = time.perf_counter()
        world = random_world(configs[0], device=self.device) if self.random else load_world(
            self.world, device=self.device, steps=self.steps)
        load_ms = 1000 * (time.perf_counter() - start)
        if "compiled" in throughput.paths(self.path, world.device):
            try:
                world.compile(wait=True)
            except WorldError as problem:
                if self.path != "auto":
                    raise
                log.warning("%s; measured eager", problem)
        figures = latency.bench(world, frames=frames, load_ms=load_ms, track=track)
        if self.ceilings:
            figures |= latency.ceilings(world.device, world.dtype)
        return _report(figures, self.json)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the transformer of a Wan-size world as one .pt file with the published names: generator_ema, model.NAME."""
    world: Annotated[Positional[str], arg(metavar="WORLD")]
    """Its name, or the folder of a training run."""
    out: Annotated[Path, arg(metavar="FILE")]
    """The file to write, NAME.pt."""

    def run(self):
        _find(self.world)
        from worldplay import checkpoint
        from worldplay.dataset import require_space
        from worldplay.opening import read_config
        from worldplay.published import export_transformer
        folder, config = read_config(self.world)
        if config.transformer.action_channels:
            raise ValueError(f"{config.name} takes actions as vectors, which no published network has names for; its "
                             f"weights are safetensors already, in {folder}")
        if self.out.suffix != ".pt" or self.out.exists():
            raise ValueError(f"--out {self.out}: expected a new file NAME.pt")
        weights = checkpoint.load_weights(folder / "model.safetensors")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        require_space(self.out.parent, sum(x.nbytes for x in weights.values()))
        export_transformer(weights, self.out)
        print(f"{self.out}: {self.out.stat().st_size / 2**20:.1f} MiB")


COMMANDS = {"worlds": Worlds, "fetch": Fetch, "export": Export, "collect": Collect, "dataset": Dataset,
            "replay": Replay, "eval": Eval, "bench": Bench}

_DESCRIPTION = """Play, record and measure learned worlds. `worldplay play` is play.py: worldplay play --help.
--version prints the version."""


def main(argv=None):
    """Run the command line and return its exit status: 0 done, 1 failed, 2 bad usage."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["play"]:
        from worldplay.app import main as play
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


def _find(name):
    """Raise for a world that is not there before the libraries that open one are imported."""
    from worldplay import zoo
    zoo.find(name)


def _report(figures, as_json):
    """The figures for JSON, or None once they are printed as lines."""
    if as_json:
        return figures
    for name, value in figures.items():
        if value != {}:
            print(f"{name:<24}{_text(value)}")
    return None


def _text(value):
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        return "".join(f"\n  {name:<22}{_text(part)}" for name, part in value.items())
    if isinstance(value, dict):
        return "  ".join(f"{name} {_text(part)}" for name, part in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _interval():
    return 0.2 if sys.stderr.isatty() else 10


def command():
    """What `worldplay` on the command line runs."""
    leave(main())


if __name__ == "__main__":
    command()
