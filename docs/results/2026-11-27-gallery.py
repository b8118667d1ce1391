"""Figures of 2026-11-27-gallery.md: a training step of the gallery's teacher, and what limits its free play.

    python docs/results/2026-11-27-gallery.py step           time and profile of a step, on random latents
    python docs/results/2026-11-27-gallery.py play RUN       dB and detail of the run's world and of variants
"""
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import train_world  # first: it sets torch's threads up


def step(steps=10, profiled=4):
    import torch
    from torch.profiler import ProfilerActivity, profile

    from worldplay import runtime
    from worldplay.action import ActionSpace
    from worldplay.train.processes import Processes
    from worldplay.train.stage_table import STAGES, Ingredients
    from worldplay.train.trainer import Trainer
    from worldplay.train.windows import LatentWindows
    recipe, rng = train_world.doom_gallery(), np.random.default_rng(0)
    space = ActionSpace(keys=("w", "a", "s", "d", "mouse_left"), look_limit=12.0, look_axes=1)
    latents = rng.standard_normal((512, recipe.codec.model.channels, 15, 20)).astype(np.float16)
    actions = rng.standard_normal((512, space.num_channels)).astype(np.float32)
    data = LatentWindows(latents, actions, np.array([[0, 256, 0]]), np.array([[256, 256, 1]]), recipe.length,
                         space, recipe.columns_per_degree)
    stage = STAGES["teacher_forcing"].build(Ingredients(
        recipe=recipe, sizes=recipe.network(space),
        decode=lambda x: torch.zeros(len(x), 120, 160, 3, dtype=torch.uint8)))
    for model in stage.models.values():
        for block in model.blocks:
            block.compile()
    device = torch.device("cpu")
    trainer = Trainer(stage, data, replace(recipe.teacher_forcing_loop, steps=1000),
                      Path(tempfile.mkdtemp()), None, Processes(device), runtime.pick_dtype(device)[0])
    trainer.warm_up()
    trainer.train_step()
    spent = []
    for _ in range(steps):
        started = time.perf_counter()
        trainer.train_step()
        spent.append(1000 * (time.perf_counter() - started))
    print(f"ms a step: p50 {np.median(spent):.0f}, least {min(spent):.0f}, most {max(spent):.0f}")
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(profiled):
            trainer.train_step()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=24, max_name_column_width=48))


def play(run):
    import worldplay
    from worldplay.eval import detail, fidelity
    from worldplay.eval.report import Plan, prepare
    from worldplay.eval.sources import open_source
    variants = {"student, 2 steps": {}, "context sigma 0": {"context_sigma": 0.0},
                "context sigma 0.3": {"context_sigma": 0.3}, "the teacher, 4 steps": {"steps": 4}}
    worlds = []
    for changes in variants.values():
        folder = Path(tempfile.mkdtemp()) / "doom-gallery"
        folder.mkdir()
        for name in ("model.safetensors", "codec.safetensors", "teacher.safetensors"):
            shutil.copyfile(Path(run) / name, folder / name)
        shutil.copytree(Path(run) / "scenes", folder / "scenes")
        if "steps" in changes:
            shutil.copyfile(folder / "teacher.safetensors", folder / "model.safetensors")
        config = json.loads((Path(run) / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
        worlds.append(worldplay.load_world(folder, device="cpu"))
    source = open_source("doom-gallery")
    plan = Plan(streams=6, targets=4, dreams=6, horizon=64, walks=(), trials=0)
    for name, material in zip(variants, prepare(worlds, source, plan, is_own=False)):
        player = next(iter(material.streams))
        sizes = detail.sharpness(material, player)["sharpness"]
        found = fidelity.rollout_psnr(material, player)["rollout_psnr"]
        print(name, {number: round(score, 1) for number, score in found.items()},
              {size: round(each["dream"], 2) for size, each in sizes.items()})
    source.close()


if __name__ == "__main__":
    step() if sys.argv[1] == "step" else play(sys.argv[2])
