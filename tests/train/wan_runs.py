"""What tests train the Wan recipes on: published worlds, clips with tasks and shared parts, of toy size."""
import itertools
import os
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import train_world
from tests.engine.test_dream_wan import CONFIG, MODEL, SIZE, TEXT_SPACE, spread
from tests.engine.test_prompts import CONFIG as TEXT
from tests.engine.test_prompts import tokenizer
from tests.engine.test_prompts import weights as text_weights
from tests.parity import weights
from worldplay import runtime
from worldplay.action import ActionSpace
from worldplay.camera import CAMERA_SPACE
from worldplay.data.frame_cache import Rollout, Source
from worldplay.data.lerobot_writer import EPISODES, ShardWriter, finish
from worldplay.engine import parts as world_parts
from worldplay.engine import prompts
from worldplay.files import write_json
from worldplay.hub.convert import convert_transformer
from worldplay.models.codecs.wan_vae import WanVAE, WanVAEConfig
from worldplay.train.chain import Chain
from worldplay.train.deadline import Deadline
from worldplay.train.processes import Processes
from worldplay.worlds import catalog
from worldplay.worlds.config import VideoWorldConfig

SPACE = ActionSpace(("w", "a", "space"), 12.0, look_axes=1)
TOY = {"dim": MODEL.dim, "ffn-dim": MODEL.ffn_dim, "num-heads": 2, "num-layers": 2, "freq-dim": 32,
       "text-dim": TEXT.dim, "text-len": TEXT.max_tokens}
SMALL_VAE = partial(WanVAEConfig, width=8)
TASKS = ["a red castle", "the castle"]


@pytest.fixture(scope="module")
def made_parts(tmp_path_factory):
    """What worlds share, small, laid out as fetch leaves it."""
    folder = tmp_path_factory.mktemp("parts")
    for part in ("taew2_1", "wan-vae", "umt5-xxl"):
        (folder / part).mkdir()
        for file in catalog.PARTS[part].files:
            (folder / part / file).touch()
    save_file({name: x.contiguous() for name, x in weights("taehv").items()},
              folder / "taew2_1" / "model.safetensors")
    torch.manual_seed(0)
    save_file(WanVAE(SMALL_VAE()).state_dict(), folder / "wan-vae" / "model.safetensors")
    save_file(text_weights(), folder / "umt5-xxl" / "model.safetensors")
    tokenizer().save(str(folder / "umt5-xxl" / "tokenizer.json"))
    return folder


@pytest.fixture(autouse=True)
def parts(made_parts, tmp_path, monkeypatch):
    """Folder of the parts in a user cache of its own; and nothing is compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "longer than the training"))
    monkeypatch.setattr(world_parts, "WanVAEConfig", SMALL_VAE)
    for name in ("all_prompt_embeds", "prompt_embeds"):
        monkeypatch.setattr(prompts, name, partial(getattr(prompts, name), config=TEXT))
    folder = tmp_path / "cache" / "worldplay" / "parts"
    shutil.copytree(made_parts, folder, copy_function=os.symlink)
    return folder


def published(folder, name, has_camera=False, **fields):
    """A world as fetch leaves it: converted from a .pt of the published layout."""
    folder.mkdir()
    model = MODEL.__class__(**{**vars(MODEL), "has_camera": has_camera, "text_dim": TEXT.dim,
                               "text_len": TEXT.max_tokens})
    config = VideoWorldConfig(**{**vars(CONFIG), "name": name, "transformer": model, "window": 4, "sink": 0,
                            "intrinsics": CONFIG.intrinsics if has_camera else None,
                            "action_space": CAMERA_SPACE if has_camera else TEXT_SPACE, **fields})
    write_json(folder / "config.json", config.to_json())
    (folder / "lock.json").write_text("{}")
    torch.save({"generator_ema": {f"model.{key}": x for key, x in spread(model).state_dict().items()}},
               folder / "model.pt")
    convert_transformer(folder / "model.pt", folder / "model.safetensors", model)
    return folder


def clips(folder, fps=20.0, tasks=TASKS, length=40, space=SPACE):
    """Three episodes, the last of them held out, with the tasks in turn."""
    source = Source(name="elsewhere", action_space=space, frame_size=(24, 40), fps=fps)
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder, source, shard=0, player="nobody")
    for seed in (0, 1, 19):
        actions = rng.uniform(-1, 1, (length, space.num_channels)).astype(np.float32)
        actions[:, :len(space.keys)] = actions[:, :len(space.keys)] > 0
        writer.add(Rollout(rng.integers(0, 256, (length, 24, 40, 3), np.uint8), actions, None, seed))
    shard = writer.close()
    for row, task in zip(shard.episodes, itertools.cycle(tasks)):
        row["tasks"] = [task]  # those without are emptied below: our own writer gives each one
    finish(folder, source, [shard], player="nobody",
           clips=[{"world_hash": None, "frames": 3 * length, "lossy": True}])
    table = folder / EPISODES / "chunk-000/file-000.parquet"
    rows = [row | {"tasks": [task for task in row["tasks"] if task]}
            for row in pq.read_table(table).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(table)), table)
    return folder


def flags(recipe="wan-frame", *more, steps=1):
    sizes = [f"--transformer.{name}={size}" for name, size in TOY.items()]
    loops = [f"--{stage}-loop.{number}" for stage in ("bidirectional", "teacher-forcing", "causal-cd", "dmd")
             for number in ("batch=2", "micro-batch=1")]
    return [recipe, *sizes, *loops, "--latents", "16", *(str(side // 8) for side in SIZE), "--length=4",
            "--context.window=4", "--causal-cd.num-timesteps=4", "--dmd.critic-turns=1", "--device=cpu",
            f"--steps={steps}", *map(str, more)]


def train(out, world, data, *more, recipe="wan-frame", steps=1):
    return train_world.main(flags(recipe, "--init-from", world, "--data", data, "--out", out, *more,
                                  steps=steps))


CHUNKS = ("--context.frames-per-chunk=2", "--student-steps=2")


def small(recipe, **changes):
    """The recipe at toy size, every stage 2 steps."""
    sizes = {name.replace("-", "_"): size for name, size in TOY.items()}
    loops = {f"{name}_loop": replace(recipe.loop(name), batch=2, micro_batch=1, steps=2)
             for name in recipe.stages}
    changes = {"bidirectional_loop": replace(loops["bidirectional_loop"], share=0.0),
               "dmd_loop": replace(loops["dmd_loop"], share=0.0), **changes}
    return replace(recipe, **{
        "transformer": replace(recipe.transformer, **sizes), "latents": (16, SIZE[0] // 8, SIZE[1] // 8),
        "length": 4,
        "context": replace(recipe.context, window=4), "causal_cd": replace(recipe.causal_cd, num_timesteps=4),
        **loops, **changes})


def small_chunks(**changes):
    """wan-chunk at toy size, chunks of 2."""
    recipe = train_world.wan_chunk()
    recipe = replace(recipe, context=replace(recipe.context, frames_per_chunk=2))
    return small(recipe, student_steps=2, **changes)


def run(folder, world, data, stop_at=float("inf"), recipe=None):
    recipe = recipe or small(train_world.wan_frame())
    recipe.check(goes_on=True)
    return Chain(recipe, folder, processes=Processes(torch.device("cpu")), dtype=torch.float32,
                 deadline=Deadline(stop_at), data=data, init_from=world)
