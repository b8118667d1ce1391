"""Commands that measure a world: replay a clip, evaluate quality, benchmark speed."""
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from worldplay.cli.options import PassPath, Steps, find_world, report
from worldplay.errors import WorldError

log = logging.getLogger(__name__)

World = Annotated[Positional[str | None], arg(metavar="WORLD")]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Play a clip's actions again in its world and compare every frame with the recording."""
    clip: Annotated[Positional[Path], arg(metavar="CLIP")]
    """The clip: its .mp4, its .json or the name without either."""
    world: Annotated[str | None, arg(metavar="WORLD")] = None
    """Name or folder of its world, where it is not the name in the clip."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """New clip to write, NAME.mp4."""
    overwrite: bool = False
    """Replace a clip of that name."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; frames are bit-equal only on the same device, number type and path."""
    vae: bool = False
    """Decode by the full codec of a Wan-size world (fetch --vae), for finer pictures: --out keeps them."""
    real: bool = False
    """Play them in the real game behind the world, from the same start; --out is then a clip of the game."""
    env: Annotated[str | None, arg(metavar="ENV")] = None
    """With --real: that game, where it is in a module of your own (gym:MODULE:CLASS): a world's files alone
    have none run."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        from worldplay.eval.replay import run_replay
        return report(run_replay(self.clip, world=self.world, out=self.out, device=self.device, vae=self.vae,
                                 real=self.real, env=self.env, overwrite=self.overwrite), self.json)


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure a world on real play that no trainer sees, and say what the figures come to."""
    world: World = None
    """Name or folder; none is the default world."""
    against: Annotated[str | None, arg(metavar="ENV|FOLDER")] = None
    """Real play to measure it on: an environment, or a data set (LeRobot folder or frame cache), of which the
    held-out episodes are taken; none is the environment it was trained on."""
    quick: bool = False
    """Fewer streams and walks of 300 frames: about two minutes instead of fifteen on two cores."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for report.html, .md and .json, contact_sheet.png, side_by_side.mp4; none is runs/eval-NAME."""
    compare: Annotated[str | None, arg(metavar="WORLD")] = None
    """Another world, measured on the same streams."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    steps: Steps = None
    """Sampling steps per frame; none is the world's own number."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        find_world(self.world)
        from worldplay import runtime
        from worldplay.engine.threads import choose_threads
        from worldplay.eval.report import run_eval
        from worldplay.eval.verdict import markdown
        choose_threads(runtime.pick_device(self.device)[0])
        report = run_eval(self.world, against=self.against, quick=self.quick, out=self.out,
                          compare=self.compare, device=self.device, steps=self.steps,
                          latency=_latency)
        if self.json:
            return report
        print(markdown(report))
        print(f"{report['seconds']:.0f} s; report and pictures are in {report['out']}")


def _latency(world):
    """The client's own stamps of an open world, played as in a window; code that takes minutes to make is
    not waited for.
    """
    from worldplay.client.scripted import stamped
    from worldplay.engine.code_choice import is_native
    if is_native(world.config, world.device):
        try:
            world.compile(wait=True)
        except WorldError as problem:
            log.warning("%s; latency is measured eager", problem)
    world.threads.adapt()
    return stamped(world)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure how fast a world plays on this machine, unpaced; times in ms, sizes in MiB."""
    world: World = None
    """Name or folder; none is the default world."""
    random: bool = False
    """Random weights in the shape of that world, for speed alone; also of a published one and of wan-1.3b."""
    ceilings: bool = False
    """Also the machine's own copy, matrix and attention rates."""
    compare: bool = False
    """Also every frame twice, as written and by compiled code: times, ratio, distance to real frames."""
    loaded: bool = False
    """Also beside as many busy loops as cores: what is left of the rate while other programs run."""
    batch: Annotated[tuple[int, ...], arg(metavar="INT ...")] = ()
    """Instead: frames a second of so many plays in one batch, as agents learn in (--batch 1 2 4 8)."""
    gpu_check: bool = False
    """Instead: all there is to know of a new GPU in nine minutes, tests, ceilings and worlds, into --out."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """With --gpu-check: folder of gpu-check.json and gpu-check.md, written after every part."""
    frames: Annotated[int | None, arg(metavar="INT")] = None
    """Frames to play, 10000 tells whether the cost stays flat; none is 1000, or 120 of a Wan-size one, or 100
    of each play of a batch."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    steps: Steps = None
    """Sampling steps per frame; none is the world's own number."""
    path: PassPath = "auto"
    """How passes run: eager, compiled, or auto: as in a window (Wan-size random: both, eager on a CPU)."""
    json: bool = False
    """Print one JSON object on stdout and nothing else there."""

    def run(self):
        if self.gpu_check or self.out:
            return self._check_gpu()
        if not self.random:
            find_world(self.world)
        from worldplay.engine.code_choice import is_chosen
        from worldplay.engine.loading import load_world, random_configs, random_world
        from worldplay.eval import latency, throughput
        from worldplay.eval.busy import bench_loaded
        from worldplay.eval.paths import compare_paths
        from worldplay.log import track
        from worldplay.worlds.config import VideoWorldConfig
        configs = random_configs(self.world, steps=self.steps) if self.random else []
        is_wan_size = bool(configs) and isinstance(configs[0], VideoWorldConfig)
        usual = 100 if self.batch else throughput.FRAMES if is_wan_size else 1000
        frames = self.frames if self.frames is not None else usual
        latency.check_frames(frames)
        given = [name for name in ("ceilings", "compare", "loaded") if getattr(self, name)]
        if self.batch and (given or self.path == "compiled"):
            raise ValueError(f"--batch plays as written and measures itself alone: leave out "
                             f"{'--' + given[0] if given else '--path compiled'}")
        unfit = [name for name in ("batch", "loaded", "compare") if getattr(self, name)]
        if is_wan_size and unfit:
            raise ValueError(f"--{unfit[0]}: a Wan-size random world is no figure of play; leave it out")
        if self.compare and self.path == "eager":
            raise ValueError("--compare needs compiled code; leave out --path eager")
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
        if self.batch:
            from worldplay.eval.batches import bench_batches
            return report(bench_batches(world, self.batch, frames=frames, track=track), self.json)
        if self.compare or self.path == "compiled" or (
                self.path == "auto" and is_chosen(world.config, world.device)):
            try:
                world.compile(wait=True)
            except WorldError as problem:
                if self.compare or self.path != "auto":
                    raise
                log.warning("%s; measured eager", problem)
        world.threads.adapt()  # as in a window
        if self.path != "eager":
            world.graphs.want()
            world.reset()  # here: measuring them is no part of the first frame
        figures = latency.bench(world, frames=frames, load_ms=load_ms, track=track)
        if self.loaded:
            figures["loaded"] = bench_loaded(world, figures, track=track)
        if self.compare:
            figures["compare"] = compare_paths(world, track=track)
        if self.ceilings:
            figures |= latency.ceilings(world.device, world.dtype)
        return report(figures, self.json)

    def _check_gpu(self):
        if not (self.gpu_check and self.out):
            raise ValueError("--gpu-check and --out DIR go together")
        given = [name for name in ("world", "random", "ceilings", "compare", "loaded", "batch", "frames",
                              "steps") if getattr(self, name)] + ["path"] * (self.path != "auto")
        if given:
            raise ValueError(f"--gpu-check says itself what is measured: leave out {given[0]}")
        from worldplay.eval.gpu_check import run_gpu_check
        report = run_gpu_check(self.out, device=self.device)
        if self.json:
            return report
        for part in report["parts"]:
            print(f"{part['name']}: {part['state']}")
        print(f"{self.out / 'gpu-check.md'}, {report['seconds']:.0f} s")
        return None
