"""wan-frame and wan-chunk at toy size: from a published world and clips to one that plays and goes back."""
import itertools
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import train_world
from tests.engine.test_dream_wan import CONFIG, MODEL, ROWS, SIZE, WALK, spread, world_of
from tests.engine.test_frames_per_chunk import PlayDraws
from tests.parity import video_codec
from tests.train.wan_runs import (  # noqa: F401  (fixtures)
    CHUNKS,
    SMALL_VAE,
    SPACE,
    TASKS,
    clips,
    made_parts,
    parts,
    published,
    run,
    small,
    small_chunks,
    train,
)
from worldplay.action import Action
from worldplay.camera import CAMERA_SPACE, CameraRig
from worldplay.cli import play
from worldplay.cli.commands import main
from worldplay.engine import prompts
from worldplay.files import read_json
from worldplay.hub.convert import convert_transformer
from worldplay.models.codecs.image import to_float, to_uint8
from worldplay.models.codecs.wan_vae import WanVAE
from worldplay.train import chain, trainer, trajectories
from worldplay.train import windows as train_windows
from worldplay.train.stages.dmd import self_rollout
from worldplay.train.video_windows import Cut, latent_viewmats
from worldplay.worlds import catalog
from worldplay.worlds.config import WorldConfig
from worldplay.worlds.scene import fit
from worldplay.worlds.weights import load_weights


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
    config = WorldConfig.from_json(read_json(run / "config.json"), run)
    assert config.parts == CONFIG.parts and config.prompt in TASKS
    assert config.frame_size == SIZE and config.steps == 2
    assert (config.sink, config.sink_position) == ((2 if has_camera else 1), "before_window")
    before, after = (load_weights(folder / "model.safetensors") for folder in (world, run))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)

    clip = tmp_path / "clip.mp4"
    script = "w*4,j*2" if has_camera else "idle*6"
    assert play.main([str(run), "--headless", "--script", script, "--device", "cpu", "--out", str(clip)]) == 0
    assert clip.exists()
    assert main(["export", str(run), "--out", str(tmp_path / "student.pt")]) == 0
    assert main(["export", str(run), "--out", str(tmp_path / "student.pt")]) == 2, "nothing is written over"
    assert convert_transformer(tmp_path / "student.pt", tmp_path / "back.safetensors",
                               config.transformer) == "generator_ema"
    back = load_weights(tmp_path / "back.safetensors")
    assert back.keys() == after.keys() and all(torch.equal(back[key], after[key]) for key in after)


# What is learnt ---------------------------------------------------------------------------------------------


def test_a_run_in_pieces_equals_one_and_encodes_nothing_twice(tmp_path, monkeypatch):
    world, data = published(tmp_path / "base", "causal-forcing-ar-diffusion"), clips(tmp_path / "clips")
    encoded, encode = [], WanVAE.encode
    monkeypatch.setattr(WanVAE, "encode", lambda self, frames: encoded.append(frames) or encode(self, frames))
    assert run(tmp_path / "whole", world, data).run()
    assert len(encoded) == 6, "two windows of each of three episodes"
    for calls in itertools.count(1):
        for module in (trainer, train_windows):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=itertools.count().__next__))
        if run(tmp_path / "cut", world, data, stop_at=1).run():
            break
    assert calls > 3 and len(encoded) == 12
    for name in ("model", "teacher"):
        whole, cut = (load_weights(tmp_path / each / f"{name}.safetensors") for each in ("whole", "cut"))
        assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_run_that_ends_while_it_writes_its_last_world_is_not_finished_without_it(tmp_path, monkeypatch):
    world, data = published(tmp_path / "base", "causal-forcing-ar-diffusion"), clips(tmp_path / "clips")
    written, save_weights = [], chain.save_weights

    def save_until_the_student(path, *args):
        written.append(path)
        if len(written) > 2:
            raise InterruptedError
        save_weights(path, *args)
    monkeypatch.setattr(chain, "save_weights", save_until_the_student)
    with pytest.raises(InterruptedError):
        run(tmp_path / "run", world, data).run()
    monkeypatch.setattr(chain, "save_weights", save_weights)
    assert run(tmp_path / "run", world, data).run()
    student, teacher = (load_weights(tmp_path / "run" / f"{name}.safetensors")
                        for name in ("model", "teacher"))
    assert any(not torch.equal(student[name], teacher[name]) for name in student)


def test_a_window_is_its_own_video_at_the_worlds_rate_with_its_text_and_its_camera(tmp_path):
    world, data = published(tmp_path / "base", "wan-action", True), clips(tmp_path / "clips")
    job = run(tmp_path / "run", world, data, recipe=small_chunks())
    job.open_data()
    assert job.make_windows()
    cache, windows = job.cache, job.windows
    job.close()
    assert windows.starts[False].tolist() == [0, 16, 39, 55] and windows.starts[True].tolist() == [78, 94]
    rows = 16 + np.array([0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15])  # 20 frames a second shown as 16
    batch = windows.at(np.array([16, 39]))
    frames = torch.from_numpy(np.stack([fit(Image.fromarray(cache.frames[row]), SIZE) for row in rows]))
    vae = WanVAE(SMALL_VAE()).eval()
    vae.load_state_dict(load_weights(tmp_path / "cache/worldplay/parts/wan-vae/model.safetensors"))
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
    assert batch["focal"].shape == (2, 4, 2)
    assert batch["focal"][0, 0].tolist() == pytest.approx(CONFIG.intrinsics)


@pytest.mark.parametrize("action",
                         [Action({"w"}), Action({"w", "d", "j"}), Action({"a"}, (2.0, -1.0)), Action()])
def test_the_parts_of_an_action_lead_where_it_leads_in_play(action):
    start = CameraRig().step(Action({"w", "l"}))
    parts = [Action(action.keys, tuple(x / 4 for x in action.look))] * 4
    assert np.allclose(start.along(parts).pose, start.step(action).pose, atol=1e-12)
    half = start.along([Action({"w"}), Action()])
    assert np.linalg.norm(half.pose[:3, 3] - start.pose[:3, 3]) == pytest.approx(0.04)
    turned = CameraRig().along([Action(look=(12.0, 0.0))] * 4).pose
    yaw = np.degrees(np.arctan2(turned[0, 2], turned[2, 2]))
    assert yaw == pytest.approx(48), "as far as the picture has turned"


def test_trajectories_are_walked_no_more_at_once_than_training_takes(tmp_path, monkeypatch):
    """At full size the cache of one window, with its text and with the negative one, is 11 GiB."""
    world = published(tmp_path / "base", "causal-forcing-ar-diffusion")
    data, walked = clips(tmp_path / "clips"), []
    recipe = small(train_world.wan_frame())
    shares = {f"{name}_loop": replace(recipe.loop(name), share=float(name == "causal_ode"))
              for name in recipe.stages}
    recipe = replace(recipe, **shares, num_trajectories=3,
                     causal_ode=replace(recipe.causal_ode, num_timesteps=4))
    make = trajectories.causal_trajectories
    monkeypatch.setattr(trajectories, "causal_trajectories",
                        lambda *args: walked.append(len(args[2])) or make(*args))
    assert run(tmp_path / "run", world, data, recipe=recipe).run()
    assert walked == [1] * 4, "three to train on and one held out"


def test_a_rollout_from_nothing_is_what_a_world_plays_from_its_text():
    """Keys, text and camera of training against those of play, in whole chunks; the first has 4 steps."""
    world = world_of(frames_per_chunk=2, window=8)
    shown = np.concatenate([world.reset(seed=0),
                            *(np.stack(list(world.step(action))) for action in WALK[:3])])
    led = [Action()] * 2 + [action.share(2) for action in WALK[:3] for _ in range(2)]
    rows = np.stack([CAMERA_SPACE.encode(action.share(4)) for action in led for _ in range(4)])
    rows = rows[3:]  # latent 0 is one frame
    cut = Cut(1.0, 8)
    viewmats = latent_viewmats(SimpleNamespace(action_space=CAMERA_SPACE, actions=rows), cut, 0)
    batch = {"latents": torch.zeros(1, 8, 16, SIZE[0] // 8, SIZE[1] // 8), "text": ROWS[None],
             "viewmats": torch.from_numpy(viewmats)[None],
             "focal": torch.tensor(CONFIG.intrinsics).expand(1, 8, 2)}
    context = replace(train_world.wan_chunk().context, window=8, frames_per_chunk=2)
    made = self_rollout(spread(MODEL), batch, PlayDraws(), context, num_steps=2, first_steps=4,
                        num_real=0).frames
    with torch.no_grad():
        expected = to_uint8(video_codec("taehv").decode(made))[0].numpy()
    assert cut.num_rows == len(rows) == len(shown) == 29 and np.abs(shown.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("recipe", [train_world.wan_frame, train_world.wan_chunk])
def test_rollouts_of_published_recipes_begin_where_their_worlds_do_in_play(recipe):
    """With a text alone, as published; no real frame."""
    recipe().check(goes_on=True)
    assert recipe().dmd.num_real == 0
