"""wan-frame and wan-chunk at toy size: from a published world and clips with tasks to a world that plays and goes back."""
import importlib.util
import itertools
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity import video_codec, weights
from PIL import Image
from safetensors.torch import save_file
from test_chunks import PlayDraws
from test_prompts import CONFIG as TEXT
from test_prompts import tokenizer
from test_prompts import weights as text_weights
from test_wan_worlds import CONFIG, MODEL, ROWS, SIZE, TEXT_SPACE, WALK, spread, world_of

import train_world
from worldplay import app, catalog, checkpoint, opening, prompts, runtime
from worldplay.__main__ import main
from worldplay.action import Action, ActionSpace
from worldplay.camera import CAMERA_SPACE, CameraRig
from worldplay.checkpoint import WorldConfig
from worldplay.dataset import Rollout, Source
from worldplay.lerobot import ShardWriter, finish
from worldplay.models.codec import to_float, to_uint8
from worldplay.models.wan_vae import WanVAE, WanVAEConfig
from worldplay.opening import load_world
from worldplay.published import convert_transformer
from worldplay.scene import fit
from worldplay.train import chain, trainer
from worldplay.train import windows as train_windows
from worldplay.train.chain import Chain
from worldplay.train.dmd import self_rollout
from worldplay.train.processes import Processes
from worldplay.train.recipe import STAGES
from worldplay.train.video import VideoBase
from worldplay.train.video_windows import Cut, latent_viewmats

SPACE = ActionSpace(("w", "a", "space"), 12.0, look_axes=1)
TOY = {"dim": MODEL.dim, "ffn-dim": MODEL.ffn_dim, "num-heads": 2, "num-layers": 2, "freq-dim": 32, "text-dim": TEXT.dim,
       "text-len": TEXT.max_tokens}
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
    save_file({name: x.contiguous() for name, x in weights("taehv").items()}, folder / "taew2_1" / "model.safetensors")
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
    monkeypatch.setattr(opening, "WanVAEConfig", SMALL_VAE)
    for name in ("all_prompt_embeds", "prompt_embeds"):
        monkeypatch.setattr(prompts, name, partial(getattr(prompts, name), config=TEXT))
    folder = tmp_path / "cache" / "worldplay" / "parts"
    shutil.copytree(made_parts, folder, copy_function=os.symlink)
    return folder


def published(folder, name, has_camera=False, **fields):
    """A world as fetch leaves it: converted from a .pt of the published layout."""
    folder.mkdir()
    model = MODEL.__class__(**{**vars(MODEL), "has_camera": has_camera, "text_dim": TEXT.dim, "text_len": TEXT.max_tokens})
    config = WorldConfig(**{**vars(CONFIG), "name": name, "transformer": model, "window": 4, "sink": 0,
                            "intrinsics": CONFIG.intrinsics if has_camera else None,
                            "action_space": CAMERA_SPACE if has_camera else TEXT_SPACE, **fields})
    checkpoint.write_json(folder / "config.json", config.to_json())
    (folder / "lock.json").write_text("{}")
    torch.save({"generator_ema": {f"model.{key}": x for key, x in spread(model).state_dict().items()}}, folder / "model.pt")
    convert_transformer(folder / "model.pt", folder / "model.safetensors", model)
    return folder


def clips(folder, fps=20.0, tasks=TASKS, length=40, space=SPACE):
    """Three episodes, the last of them held out, with the tasks in turn."""
    source = Source(name="elsewhere", action_space=space, frame_size=(24, 40), fps=fps)
    rng, writer = np.random.default_rng(0), ShardWriter(folder, source, shard=0, episode=0, row=0, player="nobody")
    for seed in (0, 1, 19):
        actions = rng.uniform(-1, 1, (length, space.num_channels)).astype(np.float32)
        actions[:, :len(space.keys)] = actions[:, :len(space.keys)] > 0
        writer.add(Rollout(rng.integers(0, 256, (length, 24, 40, 3), np.uint8), actions, None, seed))
    episodes = [row | {"tasks": [task] if task else []} for row, task in zip(writer.close(), itertools.cycle(tasks))]
    finish(folder, source, episodes, player="nobody", clips=[{"world_hash": None, "frames": 3 * length, "lossy": True}])
    return folder


def flags(recipe="wan-frame", *more, steps=1):
    sizes = [f"--transformer.{name}={size}" for name, size in TOY.items()]
    loops = [f"--{stage}-loop.{number}" for stage in ("bidirectional", "teacher-forcing", "causal-cd", "dmd")
             for number in ("batch=2", "micro-batch=1")]
    return [recipe, *sizes, *loops, "--latents", "16", *(str(side // 8) for side in SIZE), "--length=4", "--context.window=4",
            "--causal-cd.num-timesteps=4", "--dmd.critic-turns=1", "--device=cpu", f"--steps={steps}", *map(str, more)]


def train(out, world, data, *more, recipe="wan-frame", steps=1):
    return train_world.main(flags(recipe, "--init-from", world, "--data", data, "--out", out, *more, steps=steps))


CHUNKS = ("--context.frames-per-chunk=2", "--student-steps=2")


@pytest.mark.parametrize("recipe, more", [("wan-frame", ()), ("wan-chunk", CHUNKS)], ids=["frame", "chunk"])
def test_from_a_published_world_and_back(recipe, more, tmp_path):
    """Train every stage, play what came of it, write it as published and read it back bit for bit."""
    has_camera = recipe == "wan-chunk"
    world = published(tmp_path / "base", "wan-action" if has_camera else "causal-forcing-2step", has_camera)
    run = tmp_path / "run"
    assert train(run, world, clips(tmp_path / "clips"), *more, recipe=recipe, steps=2) == 0
    stages = {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}
    assert stages == {"bidirectional", "teacher_forcing", "causal_cd", "dmd"}
    assert not (run / "codec.safetensors").exists() and not (run / "scenes").exists()
    config = WorldConfig.from_json(checkpoint.read_json(run / "config.json"), run)
    assert config.parts == CONFIG.parts and config.prompt in TASKS and config.frame_size == SIZE and config.steps == 2
    assert (config.sink, config.sink_position) == ((2 if has_camera else 1), "before_window")
    before, after = (checkpoint.load_weights(folder / "model.safetensors") for folder in (world, run))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)

    clip = tmp_path / "clip.mp4"
    script = "w*4,j*2" if has_camera else "idle*6"
    assert app.main([str(run), "--headless", "--script", script, "--device", "cpu", "--out", str(clip)]) == 0
    assert clip.exists()
    assert main(["export", str(run), "--out", str(tmp_path / "student.pt")]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "student.pt")]) == 2, "nothing is written over"
    assert convert_transformer(tmp_path / "student.pt", tmp_path / "back.safetensors", config.transformer) == "generator_ema"
    back = checkpoint.load_weights(tmp_path / "back.safetensors")
    assert back.keys() == after.keys() and all(torch.equal(back[key], after[key]) for key in after)


# What is learnt ---------------------------------------------------------------------------------------------


def small(recipe, **changes):
    """The recipe at toy size, every stage 2 steps."""
    sizes = {name.replace("-", "_"): size for name, size in TOY.items()}
    loops = {f"{name}_loop": replace(recipe.loop(name), batch=2, micro_batch=1, steps=2) for name in STAGES}
    changes = {"bidirectional_loop": replace(loops["bidirectional_loop"], share=0.0),
               "dmd_loop": replace(loops["dmd_loop"], share=0.0), **changes}
    return replace(recipe, **{
        "transformer": replace(recipe.transformer, **sizes), "latents": (16, SIZE[0] // 8, SIZE[1] // 8), "length": 4,
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
    return Chain(recipe, folder, processes=Processes(torch.device("cpu")), dtype=torch.float32, stop_at=stop_at, data=data,
                 init_from=world)


def test_a_run_in_pieces_equals_one_and_encodes_nothing_twice(tmp_path, monkeypatch):
    world, data = published(tmp_path / "base", "causal-forcing-ar-diffusion"), clips(tmp_path / "clips")
    encoded, encode = [], WanVAE.encode
    monkeypatch.setattr(WanVAE, "encode", lambda self, frames: encoded.append(frames) or encode(self, frames))
    assert run(tmp_path / "whole", world, data).run()
    assert len(encoded) == 6, "two windows of each of three episodes"
    for calls in itertools.count(1):
        for module in (trainer, train_windows):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=itertools.count().__next__))
        if run(tmp_path / "cut", world, data, stop_at=2).run():
            break
    assert calls > 3 and len(encoded) == 12
    for name in ("model", "teacher"):
        whole, cut = (checkpoint.load_weights(tmp_path / each / f"{name}.safetensors") for each in ("whole", "cut"))
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_run_that_ends_while_it_writes_its_last_world_is_not_finished_without_it(tmp_path, monkeypatch):
    world, data = published(tmp_path / "base", "causal-forcing-ar-diffusion"), clips(tmp_path / "clips")
    written, save_weights = [], checkpoint.save_weights

    def save_until_the_student(path, *args):
        written.append(path)
        if len(written) > 2:
            raise InterruptedError
        save_weights(path, *args)
    monkeypatch.setattr(checkpoint, "save_weights", save_until_the_student)
    with pytest.raises(InterruptedError):
        run(tmp_path / "run", world, data).run()
    monkeypatch.setattr(checkpoint, "save_weights", save_weights)
    assert run(tmp_path / "run", world, data).run()
    student, teacher = (checkpoint.load_weights(tmp_path / "run" / f"{name}.safetensors") for name in ("model", "teacher"))
    assert any(not torch.equal(student[name], teacher[name]) for name in student)


def test_a_window_is_its_own_video_at_the_worlds_rate_with_its_text_and_its_camera(tmp_path):
    world, data = published(tmp_path / "base", "wan-action", True), clips(tmp_path / "clips")
    job = run(tmp_path / "run", world, data, recipe=small_chunks())
    cache = job._collect()
    windows = job._windows(cache, None)
    job.close()
    assert windows.starts[False].tolist() == [0, 16, 39, 55] and windows.starts[True].tolist() == [78, 94]
    rows = 16 + np.array([0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15])  # 20 frames a second shown as 16
    batch = windows.at(np.array([16, 39]))
    frames = torch.from_numpy(np.stack([fit(Image.fromarray(cache.frames[row]), SIZE) for row in rows]))
    vae = WanVAE(SMALL_VAE()).eval()
    vae.load_state_dict(checkpoint.load_weights(tmp_path / "cache/worldplay/parts/wan-vae/model.safetensors"))
    with torch.no_grad():
        expected = vae.encode(to_float(frames)[None])
    torch.testing.assert_close(batch["latents"][:1], expected, atol=1e-2, rtol=1e-2)  # kept in float16

    encoder = tmp_path / "cache/worldplay/parts/umt5-xxl"
    for i, text in enumerate(TASKS):
        given = prompts.prompt_embeds(text, encoder)
        assert torch.equal(batch["text"][i, :len(given)], given) and not batch["text"][i, len(given):].any()
    given = prompts.prompt_embeds(catalog.NEGATIVE_PROMPT, encoder)
    assert torch.equal(batch["null_text"][1, :len(given)], given)

    rig = CameraRig()
    for i, (first, last) in enumerate(((17, 21), (22, 26), (27, 31)), 1):
        rig = rig.along([SPACE.decode(vector) for vector in cache.actions[first:last + 1]])
        assert np.array_equal(batch["viewmats"][0, i], rig.viewmat)
    assert np.array_equal(batch["viewmats"][:, 0], np.stack([np.eye(4)] * 2))
    assert batch["focal"].shape == (2, 4, 2) and batch["focal"][0, 0].tolist() == pytest.approx(CONFIG.intrinsics)


@pytest.mark.parametrize("action", [Action({"w"}), Action({"w", "d", "j"}), Action({"a"}, (2.0, -1.0)), Action()])
def test_the_parts_of_an_action_lead_where_it_leads_in_play(action):
    start = CameraRig().step(Action({"w", "l"}))
    parts = [Action(action.keys, tuple(x / 4 for x in action.look))] * 4
    assert np.allclose(start.along(parts).pose, start.step(action).pose, atol=1e-12)
    half = start.along([Action({"w"}), Action()])
    assert np.linalg.norm(half.pose[:3, 3] - start.pose[:3, 3]) == pytest.approx(0.04)
    turned = CameraRig().along([Action(look=(12.0, 0.0))] * 4).pose
    assert np.degrees(np.arctan2(turned[0, 2], turned[2, 2])) == pytest.approx(48), "as far as the picture has turned"


def test_trajectories_are_walked_no_more_at_once_than_training_takes(tmp_path, monkeypatch):
    """At full size the cache of one window, with its text and with the negative one, is 11 GiB."""
    world, data, walked = published(tmp_path / "base", "causal-forcing-ar-diffusion"), clips(tmp_path / "clips"), []
    recipe = small(train_world.wan_frame())
    shares = {f"{name}_loop": replace(recipe.loop(name), share=float(name == "causal_ode")) for name in STAGES}
    recipe = replace(recipe, **shares, num_trajectories=3, causal_ode=replace(recipe.causal_ode, num_timesteps=4))
    make = chain.causal_trajectories
    monkeypatch.setattr(chain, "causal_trajectories", lambda *args: walked.append(len(args[2])) or make(*args))
    assert run(tmp_path / "run", world, data, recipe=recipe).run()
    assert walked == [1] * 4, "three to train on and one held out"


def test_a_rollout_from_nothing_is_what_a_world_plays_from_its_text():
    """Keys, text and camera of training against those of play, over whole chunks; the first one has 4 steps."""
    world = world_of(frames_per_chunk=2, window=8)
    shown = np.concatenate([world.reset(seed=0), *(np.stack(list(world.step(action))) for action in WALK[:3])])
    led = [Action()] * 2 + [action.share(2) for action in WALK[:3] for _ in range(2)]
    rows = np.stack([CAMERA_SPACE.encode(action.share(4)) for action in led for _ in range(4)])[3:]  # latent 0: a frame
    cut = Cut(1.0, 8)
    viewmats = latent_viewmats(SimpleNamespace(action_space=CAMERA_SPACE, actions=rows), cut, 0)
    batch = {"latents": torch.zeros(1, 8, 16, SIZE[0] // 8, SIZE[1] // 8), "text": ROWS[None],
             "viewmats": torch.from_numpy(viewmats)[None], "focal": torch.tensor(CONFIG.intrinsics).expand(1, 8, 2)}
    context = replace(train_world.wan_chunk().context, window=8, frames_per_chunk=2)
    made = self_rollout(spread(MODEL), batch, PlayDraws(), context, num_steps=2, first_steps=4, num_real=0).frames
    with torch.no_grad():
        expected = to_uint8(video_codec("taehv").decode(made))[0].numpy()
    assert cut.num_rows == len(rows) == len(shown) == 29 and np.abs(shown.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("recipe", [train_world.wan_frame, train_world.wan_chunk])
def test_rollouts_of_published_recipes_begin_where_their_worlds_do_in_play(recipe):
    """With a text alone, as published; no real frame."""
    recipe().check(goes_on=True)
    assert recipe().dmd.num_real == 0


# Who begins what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, roles", [
    ("wan-base", {"bidirectional"}), ("causal-forcing-ar-diffusion", {"teacher", "student"}),
    ("causal-forcing-2step", {"student"}), ("mine", {"student"})])
def test_one_network_plays_the_role_that_it_was_published_for(name, roles, tmp_path):
    world = published(tmp_path / "base", name)
    base = VideoBase(world, small(train_world.wan_frame()), torch.device("cpu"))
    networks = base.networks(SPACE)
    assert networks.keys() == roles
    given = checkpoint.load_weights(world / "model.safetensors")
    assert all(torch.equal(x, given[key].float()) for key, x in networks.popitem()[1].state_dict().items())


def test_a_camera_begins_without_effect_on_a_world_that_had_none(tmp_path):
    base = VideoBase(published(tmp_path / "base", "wan-base"), small_chunks(), torch.device("cpu"))
    network = base.networks(SPACE)["bidirectional"]
    assert all(not x.any() for name, x in network.state_dict().items() if "prope_o" in name)
    config = base.config(SimpleNamespace(text_at=lambda row: "a hall", split=lambda name: np.zeros((1, 3), int)), 4)
    assert config.action_space == CAMERA_SPACE and config.intrinsics == CONFIG.intrinsics


def off(*stages):
    return [f"--{stage}-loop.share=0" for stage in stages]


FRAME, CAMERA = ("causal-forcing-2step", False), ("wan-action", True)


@pytest.mark.parametrize("recipe, base, data, more, words", [
    ("wan-frame", FRAME, {"fps": 10.0}, (), "10 frames/s, but causal-forcing-2step plays 16"),
    ("wan-frame", FRAME, {"tasks": ["a red castle", ""]}, (), "--text"),
    ("wan-frame", FRAME, {"length": 16}, (), "no training episode has 16 frames, 0.8 s, for the 4 latents"),
    ("wan-chunk", CAMERA, {"space": ActionSpace(("space",), 1.0, look_axes=0)}, CHUNKS, "moves a camera"),
    ("wan-frame", CAMERA, {}, (), "it moves a camera, wan-frame does not; take wan-chunk"),
    ("wan-frame", FRAME, {}, ("--transformer.num-layers=3",), "this recipe's num_layers 3; take the recipe that made it (log"),
    ("wan-frame", FRAME, {}, ("--context.window=6",), "--length 4: expected at least a window, 6 latents"),
    ("wan-frame", FRAME, {}, ("--latents", "16", "4", "8"), "its latents are (16, 4, 6)"),
    ("wan-frame", FRAME, {}, off("teacher-forcing"), "a few-step student, and a student is distilled from an AR teacher"),
    ("wan-frame", FRAME, {}, (*off("teacher-forcing", "causal-cd"), "--student-steps=1"), "--student-steps 2"),
    ("wan-frame", ("wan-base", False), {}, off("teacher-forcing", "causal-cd"), "no stage makes a student of it"),
    ("wan-frame", FRAME, {}, off("bidirectional"), "it has no bidirectional network, and stage dmd needs one"),
    ("wan-frame", FRAME, {}, ("--context-walk=100",), "no real game to walk in"),
    ("wan-frame", None, {}, (), "the Wan 2.1 video codec, 126.9 M parameters); python -m worldplay fetch"),
    ("finetune", CAMERA, {}, None, "recipe wan-chunk goes on from it"),
])
def test_what_does_not_fit_is_one_line_and_status_2(recipe, base, data, more, words, tmp_path, parts, capsys):
    world = published(tmp_path / "base", *(base or FRAME))
    if base is None:
        (parts / "wan-vae" / "model.safetensors").unlink()
    args = [recipe, "--steps", "1"] if more is None else flags(recipe, *more)
    out = ["--init-from", world, "--data", clips(tmp_path / "clips", **data), "--out", tmp_path / "run"]
    assert train_world.main([*args, *map(str, out)]) in (1, 2)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last and len(last) < 400
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_a_package_that_texts_need_is_asked_for_before_anything_is_written(tmp_path, monkeypatch, capsys):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: name != "ftfy" and find_spec(name, *more) or None)
    assert train(tmp_path / "run", world, data) == 1
    assert "a prompt needs ftfy" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_has_made_no_world_yet_is_not_to_be_played(tmp_path, capsys):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    assert train(tmp_path / "run", world, data, "--stop-after", "0.01s") == 0
    assert capsys.readouterr().err.strip().endswith("stopped with work left in encoding, the same command goes on")


def test_one_text_for_all_clips_takes_the_place_of_tasks(tmp_path):
    world, data = published(tmp_path / "base", "causal-forcing-ar-diffusion"), clips(tmp_path / "clips", tasks=[""], fps=16.0)
    recipe = small(train_world.wan_frame(), text="the red castle", lora_rank=2)
    assert run(tmp_path / "run", world, data, recipe=recipe).run()
    assert load_world(tmp_path / "run", device="cpu").info["prompt"] == "the red castle"
    for name, x in checkpoint.load_weights(tmp_path / "run" / "model.safetensors").items():
        given = checkpoint.load_weights(world / "model.safetensors")[name]
        assert torch.equal(x, given) or ".self_attn." in name or ".cross_attn." in name, "adapters are on attention alone"


def test_latents_of_another_codec_are_not_taken(tmp_path, parts):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    run(tmp_path / "run", world, data).run()
    torch.manual_seed(1)
    (parts / "wan-vae" / "model.safetensors").unlink()
    save_file(WanVAE(SMALL_VAE()).state_dict(), parts / "wan-vae" / "model.safetensors")
    with pytest.raises(ValueError, match="latents: what it holds was made by something else; remove the folder"):
        run(tmp_path / "run", world, data).run()


def test_a_run_goes_on_from_a_run(tmp_path):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    assert run(tmp_path / "first", world, data).run()
    dmd = {f"{name}_loop": replace(small(train_world.wan_frame()).loop(name), share=float(name in ("bidirectional", "dmd")))
           for name in STAGES}
    second = run(tmp_path / "second", tmp_path / "first", data, recipe=small(train_world.wan_frame(), **dmd))
    teacher, student = (second.base.networks(SPACE)[role].state_dict() for role in ("teacher", "student"))
    assert any(not torch.equal(teacher[name], student[name]) for name in teacher)
    second.close()


def test_a_bidirectional_world_is_the_score_of_dmd_as_it_is(tmp_path):
    world = published(tmp_path / "base", "wan-base")
    assert train(tmp_path / "run", world, clips(tmp_path / "clips"), *off("bidirectional")) == 0
    assert (tmp_path / "run" / "dmd" / "state").exists() and not (tmp_path / "run" / "bidirectional").exists()


def test_an_embedded_world_is_written_in_no_published_layout(tmp_path, capsys):
    assert main(["export", "doom-maze", "--out", str(tmp_path / "maze.pt")]) == 2
    assert "takes actions as vectors" in capsys.readouterr().err
