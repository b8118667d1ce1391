"""Train a world: the recipes, one function per named run, and their command line."""
import logging
import math
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from worldplay import runtime
from worldplay.log import run_command
from worldplay.models.codec import CodecConfig
from worldplay.models.transformer import TransformerConfig
from worldplay.train.chain import Chain
from worldplay.train.codec import CodecStageConfig
from worldplay.train.finetune import Tuning, tuned_recipe
from worldplay.train.recipe import STAGES, Recipe
from worldplay.train.trainer import LoopConfig, OptimConfig


def doom_maze():
    """The maze: panelled walls under an open sky; within reach of a few hours on two cores."""
    frames = OptimConfig(lr=1.5e-3, warmup=100, decay=0.5)
    muon = OptimConfig(lr=1.2e-3, muon_lr=0.02, warmup=50, decay=0.4)
    gentle = replace(muon, lr=2e-4, muon_lr=0.003)
    return Recipe(
        name="doom-maze", env="doom-maze",
        # a picture of 90 degrees is 10 tokens wide: 0.116 tokens a degree, averaged over its columns
        columns_per_degree=0.116,
        transformer=TransformerConfig(dim=256, ffn_dim=512, num_heads=4, num_layers=8, patch_size=(1, 3, 2)),
        codec_loop=LoopConfig(share=0.13, batch=8, optim=frames),
        bidirectional_loop=LoopConfig(batch=4, optim=muon),
        teacher_forcing_loop=LoopConfig(share=0.6, batch=2, optim=muon),
        causal_ode_loop=LoopConfig(batch=4, optim=gentle),
        causal_cd_loop=LoopConfig(share=0.2, batch=2, optim=gentle),
        dmd_loop=LoopConfig(batch=4, optim=OptimConfig(lr=2e-5, betas=(0.0, 0.999), warmup=0, decay=0.2)),
        decoder_loop=LoopConfig(share=0.07, batch=8, optim=frames))


def doom_arena():
    """The deathmatch arena: pillars, a red pool, pick-ups, a weapon in hand; wants a GPU."""
    return replace(doom_maze(), name="doom-arena", env="doom-arena", num_frames=400_000)


def tiny_maze():
    """The maze at toy size, in minutes: shows that the whole chain runs here; it plays badly."""
    recipe = doom_maze()
    return replace(
        recipe, name="tiny-maze", num_frames=1_600, rollout_frames=80, context_walk=100,
        transformer=replace(recipe.transformer, dim=64, ffn_dim=128, num_heads=2, num_layers=2),
        codec=CodecStageConfig(model=CodecConfig(widths=(16, 24, 32), enc_blocks=(1, 1, 1), dec_blocks=(1, 1, 1))))


def finetune():
    """Any world on your own clips: give --init-from WORLD and --data DIR."""
    return Tuning()


log = logging.getLogger("worldplay.train")

RECIPES = {"doom-maze": doom_maze, "doom-arena": doom_arena, "tiny-maze": tiny_maze, "finetune": finetune}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The same command again goes on where it stopped."""
    recipe: Annotated[Recipe | Tuning, tyro.conf.arg(name="")]
    data: Path | None = None
    """A LeRobot data set folder to train on; without it a recipe collects its own gameplay (finetune does not)."""
    out: Path | None = None
    """The run's folder; runs/NAME of the world it makes without it. play.py opens it as a world."""
    budget: str | None = None
    """Time of the whole job, for example 25m, 3h or 1h30m; divided over the stages."""
    stop_after: str | None = None
    """Time of this call: then it saves, says what is left and exits 0."""
    steps: int | None = None
    """Steps of every stage, instead of a budget."""
    device: str = "auto"
    """Where to train: auto takes a GPU where there is one, cpu does not."""
    init_from: str | None = None
    """Name or folder of a world or run whose codec and AR teacher to go on from."""
    seed: int = 0
    """Of all random numbers of the run."""


def seconds(text, flag):
    """Seconds of "90s", "25m", "3h" or "1h30m"; ValueError naming `flag` otherwise."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    total = sum(float(x or 0) * unit for x, unit in zip(match.groups(), (3600, 60, 1))) if match else 0
    if not total:
        raise ValueError(f"{flag} {text}: expected a time such as 90s, 25m, 3h or 1h30m")
    return total


def train(options):
    """Run the chain of options.recipe."""
    started = time.monotonic()
    if options.budget is None and options.steps is None:
        raise ValueError("say how long: --budget 3h (whole job) or --steps N (of every stage)")
    if options.budget is not None and options.steps is not None:
        raise ValueError("--budget and --steps exclude each other: the stages end by the clock or by steps")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps}: expected at least 1")
    budget = seconds(options.budget, "--budget") if options.budget else None
    stop_at = started + seconds(options.stop_after, "--stop-after") if options.stop_after else math.inf
    recipe = options.recipe
    if isinstance(recipe, Tuning):
        recipe = tuned_recipe(recipe, options.init_from, options.data)
    if options.steps is not None:
        recipe = replace(recipe, **{f"{name}_loop": replace(recipe.loop(name), steps=options.steps) for name in STAGES})
    recipe.check(goes_on=options.init_from is not None)
    device, device_reason = runtime.pick_device(options.device)
    dtype, dtype_reason = runtime.pick_dtype(device)
    log.info("%s (%s), compute in %s (%s)", device, device_reason, str(dtype).removeprefix("torch."), dtype_reason)
    folder = options.out or Path("runs") / recipe.name
    chain = Chain(recipe, folder, device=device, dtype=dtype, budget=budget, stop_at=stop_at, data=options.data,
                  init_from=options.init_from, seed=options.seed)
    done = chain.run()
    log.info("%s; play it: python play.py %s", "finished" if done else f"stopped with work left in {chain.where}, "
             "the same command goes on", folder)


def main(args=None):
    """Command line of train_world.py; returns the exit status."""
    options = tyro.extras.overridable_config_cli(
        {name: (make.__doc__, Options(recipe=make())) for name, make in RECIPES.items()},
        args=args, prog="train_world.py", description=__doc__)
    return run_command("train_world", lambda: train(options))


if __name__ == "__main__":
    sys.exit(main())
