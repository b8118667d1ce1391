"""What training at the size of Wan begins from: the role of a published network, and what does not fit."""
import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import train_world
from tests.engine.test_dream_wan import CONFIG
from tests.train.wan_runs import (  # noqa: F401  (fixtures)
    CHUNKS,
    SMALL_VAE,
    SPACE,
    clips,
    flags,
    made_parts,
    parts,
    published,
    run,
    small,
    small_chunks,
    train,
)
from worldplay.action import ActionSpace
from worldplay.camera import CAMERA_SPACE
from worldplay.cli.commands import main
from worldplay.engine.loading import load_world
from worldplay.models.codecs.wan_vae import WanVAE
from worldplay.train.video_latents import VideoLatents
from worldplay.worlds.weights import load_weights


@pytest.mark.parametrize("name, roles", [
    ("wan-base", {"bidirectional"}), ("causal-forcing-ar-diffusion", {"teacher", "student"}),
    ("causal-forcing-2step", {"student"}), ("mine", {"student"})])
def test_one_network_plays_the_role_that_it_was_published_for(name, roles, tmp_path):
    world = published(tmp_path / "base", name)
    base = VideoLatents(small(train_world.wan_frame()), world, torch.device("cpu"))
    networks = base.networks(SPACE)
    assert networks.keys() == roles
    given = load_weights(world / "model.safetensors")
    assert all(torch.equal(x, given[key].float()) for key, x in networks.popitem()[1].state_dict().items())


def test_a_camera_begins_without_effect_on_a_world_that_had_none(tmp_path):
    base = VideoLatents(small_chunks(), published(tmp_path / "base", "wan-base"), torch.device("cpu"))
    network = base.networks(SPACE)["bidirectional"]
    assert all(not x.any() for name, x in network.state_dict().items() if "prope_o" in name)
    cache = SimpleNamespace(text_at=lambda row: "a hall", split=lambda name: np.zeros((1, 3), int))
    config = base.config(cache, 4)
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
    ("wan-frame", FRAME, {}, ("--transformer.num-layers=3",),
     "this recipe's num_layers 3; take the recipe that made it (log"),
    ("wan-frame", FRAME, {}, ("--context.window=6",), "--length 4: expected at least a window, 6 latents"),
    ("wan-frame", FRAME, {}, ("--latents", "16", "4", "8"), "its latents are (16, 4, 6)"),
    ("wan-frame", FRAME, {}, off("teacher-forcing"),
     "a few-step student, and a student is distilled from an AR teacher"),
    ("wan-frame", FRAME, {}, (*off("teacher-forcing", "causal-cd"), "--student-steps=1"),
     "--student-steps 2"),
    ("wan-frame", ("wan-base", False), {}, off("teacher-forcing", "causal-cd"),
     "no stage makes a student of it"),
    ("wan-frame", FRAME, {}, off("bidirectional"),
     "it has no bidirectional network, and stage dmd needs one"),
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
    assert words in last and len(last.replace(str(tmp_path), "")) < 400
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_a_package_that_texts_need_is_asked_for_before_anything_is_written(tmp_path, monkeypatch, capsys):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: name != "ftfy" and find_spec(name, *more) or None)
    assert train(tmp_path / "run", world, data) == 1
    assert "a prompt needs ftfy" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_has_made_no_world_yet_is_not_to_be_played(tmp_path, capsys):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    assert train(tmp_path / "run", world, data, "--stop-after", "0.01s") == 0
    last = capsys.readouterr().err.strip()
    assert last.endswith("stopped with work left in encoding, the same command goes on")


def test_one_text_for_all_clips_takes_the_place_of_tasks(tmp_path):
    world = published(tmp_path / "base", "causal-forcing-ar-diffusion")
    data = clips(tmp_path / "clips", tasks=[""], fps=16.0)
    recipe = small(train_world.wan_frame(), text="the red castle", lora_rank=2)
    assert run(tmp_path / "run", world, data, recipe=recipe).run()
    assert load_world(tmp_path / "run", device="cpu").info["prompt"] == "the red castle"
    for name, x in load_weights(tmp_path / "run" / "model.safetensors").items():
        given = load_weights(world / "model.safetensors")[name]
        is_attention = ".self_attn." in name or ".cross_attn." in name
        assert torch.equal(x, given) or is_attention, "adapters are on attention alone"


def test_latents_of_another_codec_are_not_taken(tmp_path, parts):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    run(tmp_path / "run", world, data).run()
    torch.manual_seed(1)
    (parts / "wan-vae" / "model.safetensors").unlink()
    save_file(WanVAE(SMALL_VAE()).state_dict(), parts / "wan-vae" / "model.safetensors")
    with pytest.raises(ValueError, match="latents: what it holds was made by something else"):
        run(tmp_path / "run", world, data).run()


def test_a_run_goes_on_from_a_run(tmp_path):
    world, data = published(tmp_path / "base", "causal-forcing-2step"), clips(tmp_path / "clips")
    assert run(tmp_path / "first", world, data).run()
    recipe = small(train_world.wan_frame())
    dmd = {f"{name}_loop": replace(recipe.loop(name), share=float(name in ("bidirectional", "dmd")))
           for name in recipe.stages}
    second = run(tmp_path / "second", tmp_path / "first", data, recipe=small(train_world.wan_frame(), **dmd))
    teacher, student = (second.latents.networks(SPACE)[role].state_dict() for role in ("teacher", "student"))
    assert any(not torch.equal(teacher[name], student[name]) for name in teacher)
    second.close()


def test_a_bidirectional_world_is_the_score_of_dmd_as_it_is(tmp_path):
    world = published(tmp_path / "base", "wan-base")
    assert train(tmp_path / "run", world, clips(tmp_path / "clips"), *off("bidirectional")) == 0
    assert (tmp_path / "run" / "dmd" / "state").exists() and not (tmp_path / "run" / "bidirectional").exists()


def test_an_embedded_world_is_written_in_no_published_layout(tmp_path, capsys):
    assert main(["export", "doom-maze", "--out", str(tmp_path / "maze.pt")]) == 2
    assert "takes actions as vectors" in capsys.readouterr().err
