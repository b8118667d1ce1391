"""Train a world: the recipes, one function per named run, and their command line."""
import logging
import math
import os
import re
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldplay import cores

cores.prepare()

from worldplay import runtime
from worldplay.cli.process import at_end_signal, run_process
from worldplay.engine.threads import choose_threads
from worldplay.experiments.ablation import Ablation, AblationRecipe
from worldplay.experiments.faults import Faults, FaultsRecipe
from worldplay.log import run_command
from worldplay.models.configs import CodecConfig, TransformerConfig
from worldplay.train.chain import Chain
from worldplay.train.deadline import Deadline
from worldplay.train.finetune import Tuning, tuned_recipe
from worldplay.train.optim import OptimConfig
from worldplay.train.processes import Processes
from worldplay.train.recipe import ImageRecipe, Recipe, VideoRecipe
from worldplay.train.stages.bidirectional import BidirectionalConfig
from worldplay.train.stages.causal_cd import CausalCDConfig
from worldplay.train.stages.causal_ode import CausalODEConfig
from worldplay.train.stages.codec import CodecStageConfig
from worldplay.train.stages.context import ContextConfig
from worldplay.train.stages.dmd import DMDConfig
from worldplay.train.stages.teacher_forcing import TeacherForcingConfig
from worldplay.train.trainer import LoopConfig


def doom_maze():
    """The maze: panelled walls under an open sky; within reach of a few hours on two cores."""
    frames = OptimConfig(lr=1.5e-3, muon_lr=0.02, warmup=100, decay=0.5)
    muon = OptimConfig(lr=1.2e-3, muon_lr=0.02, warmup=50, decay=0.4)
    gentle = replace(muon, lr=2e-4, muon_lr=0.003)
    return ImageRecipe(
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


def doom_gallery():
    """The gallery: nine bright places of flat colours, no two views alike; networks of the maze's size."""
    # twice the maze's channels: edges of strong colours took 1.5 dB more of the codec at equal steps
    return replace(doom_maze(), name="doom-gallery", env="doom-gallery", num_frames=96_000, player="stroller",
                   codec=CodecStageConfig(model=CodecConfig(channels=16)))


def doom_arena():
    """The deathmatch arena: pillars, a red pool, pick-ups, a weapon in hand; wants a GPU."""
    return replace(doom_maze(), name="doom-arena", env="doom-arena", num_frames=400_000)


def wan_frame():
    """Causal Forcing++ frame by frame at the size of Wan 2.1 1.3B, conditioned on text: give --data DIR and
    --init-from WORLD.
    """
    # Learning rates, betas, weight decay and clipping of all stages, no warm-up and no decay: the published
    # trainers (shengshu-ai/minWM Wan21/configs, thu-ml/Causal-Forcing configs).
    optim = OptimConfig(lr=2e-6, betas=(0.0, 0.999), weight_decay=0.01, grad_clip=10.0, warmup=0, decay=0.0)
    # 64 samples, one per GPU and pass (Causal Forcing: 8 x 8 GPUs). A save writes 20 to 50 GB: seldom
    loop = LoopConfig(share=1.0, batch=64, micro_batch=1, checkpoint_activations=True, save_every=1800.0,
                      sheet_every=1800.0, optim=optim)
    return VideoRecipe(
        name="wan-frame",
        transformer=TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_channels=16,
                                      out_channels=16, text_dim=4096, text_len=512),  # Wan2.1-T2V-1.3B
        latents=(16, 60, 104), length=21,  # 81 pictures of 480 x 832 through the Wan VAE
        # the whole sequence is seen, the past is real and clean, and no action is hidden
        context=ContextConfig(window=21, sink_position="absolute", max_sigma=0.0, own_frames=0.0,
                              own_steps=0.0, null_actions=0.0),
        context_sigma=0.0, student_steps=2,
        # the averages of stages 0 and 1 are switched off as published
        bidirectional=BidirectionalConfig(null_actions=0.0, ema=0.0),
        teacher_forcing=TeacherForcingConfig(ema=0.0),
        causal_ode=CausalODEConfig(num_timesteps=48, guidance=6.0),
        causal_cd=CausalCDConfig(num_timesteps=48, guidance=3.0, ema=0.99),
        # every frame is rolled out, from the text alone, which is how it is played and published; guidance on
        # the text: conditional + 3 * difference as published is 4 here; critic: 4e-7 is a fifth of 2e-6
        dmd=DMDConfig(first_steps=4, num_real=0, guidance=4.0, critic_turns=5, critic_lr=0.2,
                      sigma_range=(0.02, 0.98), ema=0.99),
        bidirectional_loop=replace(loop, batch=32, steps=5_000),  # minWM's stage 0
        # this and the next: Causal Forcing++, arXiv:2605.15141
        teacher_forcing_loop=replace(loop, steps=20_000), causal_cd_loop=replace(loop, steps=5_000),
        causal_ode_loop=replace(loop, share=0.0, steps=1_000, optim=replace(optim, betas=(0.9, 0.999))),
        # 1000 published steps: 1000 turns of the critic, 200 of the student
        dmd_loop=replace(loop, steps=1_200))


def wan_chunk():
    """minWM at the size of Wan 2.1 1.3B: a camera moved by keys, 4 latents at once; give --data DIR and
    --init-from WORLD.
    """
    recipe = wan_frame()
    # minWM Wan21 Action2V: a camera; chunks of 4 among 20 latent frames; its students take 4 steps
    return replace(recipe, name="wan-chunk", length=20, student_steps=4,
                   transformer=replace(recipe.transformer, has_camera=True),
                   context=replace(recipe.context, window=20, frames_per_chunk=4))


def own_data():
    """A world of your own data set, from nothing: give --data DIR; --name NAME is the world's."""
    # frames of any multiple of 16 pixels; how far a turn moves the picture depends on the game's field of
    # view, so that is left to the network until --columns-per-degree says it
    recipe = doom_maze()
    return replace(recipe, name="own-data", env="", columns_per_degree=0.0,
                   transformer=replace(recipe.transformer, patch_size=(1, 2, 2)))


def car_racing():
    """CarRacing, seen from above in flat colours: 64 x 64 pixels, 25 frames a second, networks of a third of
    the maze's size; an hour on two cores. It needs gymnasium[box2d].
    """
    recipe = doom_maze()
    return replace(
        recipe, name="car-racing", env="gym:worldplay.envs.car_racing:CarRacing?size=64x64",
        num_frames=36_000, player="worldplay.envs.driver:drive", columns_per_degree=0.0,
        transformer=TransformerConfig(dim=128, ffn_dim=512, num_heads=2, num_layers=6, patch_size=(1, 2, 2)),
        codec=CodecStageConfig(model=CodecConfig(widths=(32, 64, 96), enc_blocks=(1, 1, 1),
                                                 dec_blocks=(1, 1, 2))))


def demo():
    """From nothing to a car that you steer, in ten minutes on two cores: car-racing with smaller networks. It
    needs gymnasium[box2d].
    """
    recipe = car_racing()
    return replace(
        recipe, name="demo", num_frames=6_000, context_walk=0,
        transformer=replace(recipe.transformer, ffn_dim=256, num_layers=4),
        codec=CodecStageConfig(model=CodecConfig(widths=(24, 48, 64), enc_blocks=(1, 1, 1),
                                                 dec_blocks=(1, 1, 1))),
        codec_loop=replace(recipe.codec_loop, seconds=75),
        teacher_forcing_loop=replace(recipe.teacher_forcing_loop, seconds=280),
        causal_cd_loop=replace(recipe.causal_cd_loop, seconds=70),
        decoder_loop=replace(recipe.decoder_loop, seconds=25))


def tiny_maze():
    """The maze at toy size, in minutes: shows that the whole chain runs here; it plays badly."""
    recipe = doom_maze()
    return replace(
        recipe, name="tiny-maze", num_frames=1_600, rollout_frames=80, context_walk=100,
        transformer=replace(recipe.transformer, dim=64, ffn_dim=128, num_heads=2, num_layers=2),
        codec=CodecStageConfig(model=CodecConfig(widths=(16, 24, 32), enc_blocks=(1, 1, 1),
                                                 dec_blocks=(1, 1, 1))))


def ablation_init():
    """Which stage before DMD a few-step student needs: 13 small worlds of the maze, compared; about an hour
    on 2 cores.
    """
    frames = OptimConfig(lr=2e-3, warmup=50, decay=0.5)
    muon = OptimConfig(lr=1.2e-3, muon_lr=0.02, warmup=20, decay=0.4)
    gentle = replace(muon, lr=2e-4, muon_lr=0.003)
    return AblationRecipe(
        name="ablation-init", env="doom-maze", num_frames=16_000, columns_per_degree=0.116, length=16,
        num_trajectories=192,
        transformer=TransformerConfig(dim=128, ffn_dim=256, num_heads=4, num_layers=4, patch_size=(1, 3, 2)),
        codec=CodecStageConfig(model=CodecConfig(widths=(24, 48, 64), enc_blocks=(1, 1, 1),
                                                 dec_blocks=(1, 1, 1))),
        dmd=DMDConfig(num_real=4),  # a chunk, so that all students make as many frames
        codec_loop=LoopConfig(share=1, batch=8, steps=800, optim=frames),
        bidirectional_loop=LoopConfig(share=1, batch=4, steps=500, optim=muon),
        teacher_forcing_loop=LoopConfig(share=1, batch=2, steps=800, optim=muon),
        causal_ode_loop=LoopConfig(batch=2, steps=300, optim=gentle),
        causal_cd_loop=LoopConfig(share=1, batch=2, steps=300, optim=gentle),
        # 20 updates of the student, in the range that is published for this stage
        dmd_loop=LoopConfig(share=1, batch=2, steps=120,
                            optim=OptimConfig(lr=1e-4, betas=(0.0, 0.999), warmup=0, decay=0.2)),
        decoder_loop=LoopConfig(batch=8, steps=1, optim=frames))


def faults():
    """What pictures of a stage look like when its training goes wrong: 14 small worlds of the car, one fault
    each, beside right ones; half an hour on 2 cores. It needs gymnasium[box2d].
    """
    recipe = demo()
    own = {item.name: getattr(recipe, item.name) for item in fields(recipe)}
    lengths = {"codec": 2900, "bidirectional": 600, "teacher_forcing": 4300, "causal_cd": 700, "dmd": 120}
    for stage, steps in lengths.items():
        own[f"{stage}_loop"] = replace(recipe.loop(stage), share=1, steps=steps, seconds=None)
    own["bidirectional_loop"] = replace(own["bidirectional_loop"], optim=OptimConfig(
        lr=6e-4, muon_lr=0.01, warmup=50, decay=0.4))  # it goes on from the AR teacher
    own["dmd_loop"] = replace(own["dmd_loop"], batch=2, optim=replace(own["dmd_loop"].optim, lr=1e-4))
    return FaultsRecipe(**own | {"name": "faults"})


def finetune():
    """Any world on your own clips: give --init-from WORLD and --data DIR."""
    return Tuning()


log = logging.getLogger("worldplay.train")

RECIPES = {"doom-maze": doom_maze, "doom-gallery": doom_gallery, "doom-arena": doom_arena,
           "car-racing": car_racing, "demo": demo, "tiny-maze": tiny_maze, "own-data": own_data,
           "finetune": finetune, "wan-frame": wan_frame, "wan-chunk": wan_chunk,
           "ablation-init": ablation_init, "faults": faults}
JOBS = {AblationRecipe: Ablation, FaultsRecipe: Faults}  # recipes of several runs


@dataclass(frozen=True, kw_only=True)
class Options:
    """The same command again goes on where it stopped."""
    recipe: Annotated[ImageRecipe | VideoRecipe | Tuning, tyro.conf.arg(name="")]
    data: Path | None = None
    """A LeRobot data set folder to train on; without it a recipe collects its own gameplay (finetune does
    not)."""
    camera: str | None = None
    """Of a --data folder with several cameras the one that is learnt."""
    actions: str | None = None
    """Of a --data folder by another program: which action columns are which keys and the look, in degrees,
    for example "w=forward, a=side<-0.5, d=side>0.5, look_yaw=turn*12"; of numbered actions "left=action:0,
    right=action:1". Without it the error lists the columns."""
    fit: str | None = None
    """Frames of --data in another size: "pad 160x112", "crop 160x112" or "resize 160x112", width x height."""
    keep_frames: int | None = None
    """Frames of --data that are kept on disk at most, for codec and evaluation; latents of all are read from
    the videos in a second pass. None keeps every frame."""
    out: Path | None = None
    """The run's folder; runs/NAME of the world it makes without it. play.py opens it as a world."""
    budget: str | None = None
    """Time of the whole job, for example 25m, 3h or 1h30m; divided over the stages, which end no later for
    it."""
    stop_after: str | None = None
    """Time of this call: then it saves, says what is left and exits 0."""
    steps: int | None = None
    """Steps of every stage, instead of a budget; wan-frame and wan-chunk have numbers of their own."""
    device: str = "auto"
    """Where to train: auto takes a GPU where there is one, cpu does not."""
    path: Literal["auto", "eager"] = "auto"
    """How blocks run: auto compiles them, which takes minutes the first time, where a compiler is found and,
    on a processor, training lasts half an hour or longer; eager does not."""
    init_from: str | None = None
    """Name or folder of a world or run to go on from: its codec, its AR teacher, and its student where none
    is begun; of a published world its one network, for whatever begins from it."""
    seed: int = 0
    """Of all random numbers of the run."""
    dry_run: bool = False
    """Train nothing: print what every stage would take in memory and time, counted without a GPU."""
    gpus: int | None = None
    """GPUs of the dry run, 1 without it; FSDP2 shards over them."""
    gpu_memory: float | None = None
    """GiB of one of them, 80 without it."""
    tflops: float | None = None
    """10^12 operations a second that one of them is taken to do, 396 without it: 40 % (our assumption) of the
    989 that the data sheet of an H100 SXM gives for bfloat16."""


def seconds(text, flag):
    """Seconds of "90s", "25m", "3h" or "1h30m"; ValueError naming `flag` otherwise."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    total = sum(float(x or 0) * unit for x, unit in zip(match.groups(), (3600, 60, 1))) if match else 0
    if not total:
        raise ValueError(f"{flag} {text}: expected a time such as 90s, 25m, 3h or 1h30m")
    return total


def check_flags(options):
    """Raise ValueError for flags that would do nothing, and for a recipe without what it learns from."""
    def given(names):
        return [f"--{f.name.replace('_', '-')}" for f in fields(options)
                if f.name in names and getattr(options, f.name) != f.default]
    if options.dry_run:
        useless = given(("data", "camera", "actions", "fit", "keep_frames", "out", "budget", "stop_after",
                         "steps", "device", "init_from", "path", "seed"))
        if useless:
            raise ValueError(f"--dry-run trains nothing: leave out {', '.join(useless)}")
        if isinstance(options.recipe, Tuning):
            raise ValueError("finetune has no sizes of its own: dry-run the recipe that made its world")
        return
    useless = given(("gpus", "gpu_memory", "tflops"))
    if useless:
        raise ValueError(f"{', '.join(useless)}: only for --dry-run; training takes the GPUs it finds")
    useless = given(("camera", "actions", "fit", "keep_frames")) if options.data is None else []
    if useless:
        raise ValueError(f"{', '.join(useless)}: only with --data DIR")
    if isinstance(options.recipe, VideoRecipe) and options.keep_frames is not None:
        raise ValueError(f"--keep-frames: {options.recipe.name} encodes windows of frames, not single ones, "
                         "and keeps them all; leave it out")
    if isinstance(options.recipe, VideoRecipe) and not (options.data and options.init_from):
        raise ValueError(f"{options.recipe.name} goes on from a published world on clips: give both, "
                         "--init-from WORLD (python -m worldplay worlds lists them) and --data DIR, a "
                         "LeRobot folder; or add --dry-run to see what training would take")


def knows_its_end(recipe):
    """Whether every stage of a recipe has its steps or seconds."""
    return isinstance(recipe, Recipe) and all(
        recipe.loop(name).steps or recipe.loop(name).seconds
        for name in recipe.stages if recipe.loop(name).share)


def dry_run(options):
    """The page of worldplay.train.dry_run for options.recipe."""
    from worldplay.train.dry_run import estimate, report
    options.recipe.check()
    gpus = 1 if options.gpus is None else options.gpus
    return report(options.recipe, estimate(options.recipe, gpus=gpus), gpus=gpus,
                  gpu_memory=options.gpu_memory or 80.0, tflops=options.tflops or 396.0)


def train(options):
    """Run the chain of options.recipe, or print what it would take."""
    started = time.monotonic()
    check_flags(options)
    if options.dry_run:
        print(dry_run(options))
        return
    several = JOBS.get(type(options.recipe))
    if several and (options.budget or options.init_from):
        raise ValueError(f"{options.recipe.name} compares equal steps from nothing: leave out --budget and "
                         "--init-from")
    if isinstance(options.recipe, FaultsRecipe) and options.data:
        raise ValueError(f"{options.recipe.name} measures its worlds in the game that it collects from: "
                         "leave out --data")
    if options.budget is None and options.steps is None and not knows_its_end(options.recipe):
        raise ValueError("say how long: --budget 3h (whole job) or --steps N (of every stage)")
    if options.budget is not None and options.steps is not None:
        raise ValueError("--budget and --steps exclude each other: the stages end by the clock or by steps")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps}: expected at least 1")
    budget = seconds(options.budget, "--budget") if options.budget else None
    deadline = Deadline(started + seconds(options.stop_after, "--stop-after") if options.stop_after else
                        math.inf)
    recipe, reading = options.recipe, {name: getattr(options, name) for name in ("camera", "actions", "fit")}
    if isinstance(recipe, Tuning):
        recipe = tuned_recipe(recipe, options.init_from, options.data, **reading)
    if options.steps is not None:
        recipe = recipe.with_loops(steps=options.steps)
    recipe.check(goes_on=options.init_from is not None)
    device, device_reason = runtime.pick_device(options.device)
    dtype, dtype_reason = runtime.pick_dtype(device)
    choose_threads(device)
    processes = Processes(device)
    if not processes.is_first:
        # the terminal; the first one says it for all
        logging.getLogger("worldplay").handlers[0].setLevel(logging.WARNING)
    log.info("%s (%s), compute in %s (%s)%s", device, device_reason, str(dtype).removeprefix("torch."),
             dtype_reason, f", {processes.size} processes" if processes.size > 1 else "")
    folder = options.out or Path("runs") / recipe.name
    given = {"processes": processes, "dtype": dtype, "deadline": deadline, "seed": options.seed,
             "data": options.data, "reading": reading, "keep_frames": options.keep_frames,
             "path": options.path}
    if several:
        job, made = several(recipe, folder, **given), several.report
        then = f"read it: {folder / made}"
    else:
        job = Chain(recipe, folder, budget=budget, init_from=options.init_from, **given)
        made, then = "config.json", f"play it: python play.py {folder}"
    unfinished = "stopped with work left in {}, the same command goes on"
    try:
        with at_end_signal(deadline.interrupt, interrupt=True):
            done = job.run()
    except KeyboardInterrupt:
        log.info(unfinished.format(job.where))
        raise
    processes.close()
    log.info("%s%s", "finished" if done else unfinished.format(job.where),
             f"; {then}" if (folder / made).exists() else "")
    if deadline.is_interrupted and not done:
        raise KeyboardInterrupt


def main(args=None):
    """Command line of train_world.py; returns the exit status."""
    options = tyro.extras.overridable_config_cli(
        {name: (make.__doc__, Options(recipe=make())) for name, make in RECIPES.items()},
        args=args, prog="train_world.py", description=__doc__)
    rank = os.environ.get("RANK", "0")  # torchrun's; every process has a log file of its own
    return run_command("train_world" if rank == "0" else f"train_world-{rank}", lambda: train(options))


if __name__ == "__main__":
    run_process(main)
