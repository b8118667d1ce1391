"""The recipe `finetune`: adapters that start as nothing and merge, and clips unlike the world's."""
import itertools
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train_world
from worldplay import runtime
from worldplay.action import Action, ActionSpace
from worldplay.data.frame_cache import Rollout, Source
from worldplay.data.lerobot_writer import ShardWriter, finish
from worldplay.engine.loading import load_world
from worldplay.files import write_json
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.configs import CodecConfig, TransformerConfig
from worldplay.models.lora import ACTION_PATH, LowRank, add_adapters, merged_weights
from worldplay.models.transformer import Transformer
from worldplay.train import trainer
from worldplay.train.chain import Chain
from worldplay.train.deadline import Deadline
from worldplay.train.finetune import Tuning, log_match, match_actions, tuned_recipe
from worldplay.train.metrics import Metrics
from worldplay.train.optim import OptimConfig, build_optimizers
from worldplay.train.processes import Processes
from worldplay.train.stage_table import STAGES
from worldplay.train.stages.context import ContextConfig
from worldplay.train.stages.teacher_forcing import TeacherForcingConfig, TeacherForcingStage
from worldplay.train.trainer import LoopConfig, Trainer
from worldplay.train.windows import LatentWindows
from worldplay.worlds.config import ImageWorldConfig
from worldplay.worlds.weights import load_weights, save_weights

SPACE = ActionSpace(("w", "a"), 12.0, look_axes=1)
# a is gone, mouse_left is new, turns are half as fast
CLIPS = ActionSpace(("mouse_left", "w"), 6.0, look_axes=1)
MODEL = TransformerConfig(dim=16, ffn_dim=32, num_heads=2, num_layers=2, in_channels=2, out_channels=2,
                          freq_dim=16, patch_size=(1, 1, 1), action_channels=3)
CODEC = CodecConfig(channels=2, widths=(8, 8, 8), enc_blocks=(1, 1, 1), dec_blocks=(1, 1, 1))


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # commands replace it; give it back
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "longer than the training"))


def spread(config=MODEL, seed=0):
    """A transformer none of whose weights is zero, so that everything matters."""
    torch.manual_seed(seed)
    model = Transformer(config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def moved(model):
    """The model with adapters that have learnt something."""
    for name, p in model.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(p, std=0.1)
    return model


def make_world(folder, **changes):
    folder.mkdir()
    fields = {"name": "base", "env": "base", "action_space": SPACE, "frame_size": (16, 24), "fps": 10.0,
              "transformer": MODEL, "codec": CODEC, "window": 4, "columns_per_degree": 0.1,
              "context_sigma": 0.2}
    config = ImageWorldConfig(**fields | changes)
    write_json(folder / "config.json", config.to_json())
    torch.manual_seed(0)
    save_weights(folder / "codec.safetensors", ImageCodec(CODEC).state_dict())
    for name in ("model", "teacher"):
        save_weights(folder / f"{name}.safetensors", spread(config.transformer).state_dict())
    return folder


def make_clips(folder, num=20, length=13, frame_size=(16, 24), fps=10.0, space=CLIPS):
    source = Source(name="elsewhere", action_space=space, frame_size=frame_size, fps=fps)
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder, source, shard=0, player="nobody")
    for seed in range(num):
        actions = rng.uniform(-1, 1, (length, space.num_channels)).astype(np.float32)
        actions[:, :len(space.keys)] = actions[:, :len(space.keys)] > 0
        writer.add(Rollout(rng.integers(0, 256, (length, *frame_size, 3), np.uint8), actions,
                           np.zeros((length, 4), np.float32), seed))
    finish(folder, source, [writer.close()], player="nobody")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("base") / "world")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("data") / "clips")


# Adapters ---------------------------------------------------------------------------------------------------


def predict(model, text=None):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 2, 2, 3, generator=generator)
    with torch.no_grad():
        return model(x, 0.5, clean=x, actions=torch.rand(2, 5, 3, generator=generator), window=4, text=text)


@pytest.mark.parametrize("text_dim", [None, 6])
def test_adapters_change_nothing_at_first_and_merge_into_the_published_names(text_dim):
    text = text_dim and torch.randn(2, 3, text_dim)
    # frozen, as the player has it: torch sums in another order for weights that want a gradient
    model = spread(replace(MODEL, text_dim=text_dim, text_len=4)).requires_grad_(False)
    names, before = list(model.state_dict()), predict(model, text)
    add_adapters(model, 3, torch.Generator())
    assert torch.equal(predict(model, text), before)
    assert sum(isinstance(module, LowRank) for module in model.modules()) == 2 * (8 if text_dim else 4)
    adapted = predict(moved(model), text)
    plain = Transformer(model.config)
    plain.load_state_dict(merged_weights(model.state_dict()))
    assert sorted(merged_weights(model.state_dict())) == sorted(names)
    assert (adapted - before).abs().max() > 0.01
    torch.testing.assert_close(predict(plain, text), adapted, atol=1e-5, rtol=0)


def test_only_adapters_and_the_action_path_learn_and_the_average_follows(tmp_path):
    stage = TeacherForcingStage(TeacherForcingConfig(), MODEL, ContextConfig(window=4), None,
                                spread().state_dict())
    for model in stage.models.values():
        add_adapters(model, 3, torch.Generator())
    assert not any(p.requires_grad for p in stage.models["ema"].parameters())
    stage.sheet = lambda batch, draws, call: np.zeros((4, 4, 3), np.uint8)
    before = {role: {name: x.clone() for name, x in model.state_dict().items()}
              for role, model in stage.models.items()}
    assert all(torch.equal(x, before["ema"][name]) for name, x in before["student"].items())
    rng = np.random.default_rng(0)
    data = LatentWindows(rng.normal(size=(40, 2, 2, 3)).astype(np.float32), rng.random((40, 3), np.float32),
                         np.array([[0, 20, 0]]), np.array([[20, 20, 19]]), 10, SPACE, 1 / 12)
    metrics = Metrics(tmp_path)
    loop = LoopConfig(batch=2, steps=4, optim=OptimConfig(lr=0.01, warmup=1, decay=0))
    # in bfloat16: the master weights are what must stay
    Trainer(stage, data, loop, tmp_path, metrics, Processes(torch.device("cpu")), torch.bfloat16).run()
    metrics.close()
    for role, model in stage.models.items():
        for name, x in model.state_dict().items():
            learns = name.startswith(ACTION_PATH) or name.endswith((".up", ".down"))
            assert torch.equal(x, before[role][name]) != learns, (role, name)


def test_adapters_are_trained_by_adamw_and_whole_matrices_by_muon():
    optim = OptimConfig(muon_lr=0.01)
    assert [type(opt).__name__ for opt in build_optimizers(spread(), optim)] == ["Muon", "AdamW"]
    adam, = build_optimizers(add_adapters(spread(), 3, torch.Generator()), optim)
    # up and down of four layers in two blocks; weights and biases of the action path, and the null action
    assert sum(len(group["params"]) for group in adam.param_groups) == 2 * 4 * 2 + 5


# Worlds and clips that differ -------------------------------------------------------------------------------


def test_channels_are_matched_by_name_and_turns_by_degrees(caplog):
    model = spread()
    caplog.set_level("INFO", "worldplay")
    other = Transformer(MODEL)
    other.load_state_dict(match_actions(model.state_dict(), CLIPS, SPACE))
    log_match(CLIPS, SPACE)
    for action in (Action(), Action({"w"}, (3.0, 0))):
        old, new = (torch.from_numpy(space.encode(action)) for space in (SPACE, CLIPS))
        with torch.no_grad():
            torch.testing.assert_close(other.action_embedding(new), model.action_embedding(old))
    assert not other.action_embedding[0].weight[:, 0].any()
    assert "as in the world: w yaw; new: mouse_left; gone: a" in caplog.text
    same = match_actions(model.state_dict(), SPACE, SPACE)
    assert all(torch.equal(x, same[name]) for name, x in model.state_dict().items())


BOTH = ("--init-from", "{world}", "--data", "{clips}")


@pytest.mark.parametrize("flags, words", [
    (("--init-from", "{world}"), "--data DIR"),
    (("--data", "{clips}"), "--init-from WORLD"),
    ((*BOTH, "--lora-rank", "0"), "--lora-rank 0: expected 1 to 16"),
    ((*BOTH, "--teacher-share", "0"), "--teacher-share 0"),
    ((*BOTH, "--student-share", "-1"), "--student-share -1"),
    ((*BOTH, "--step-size", "0"), "--step-size 0"),
    ((*BOTH, "--batch", "0"), "--batch 0"),
    ((*BOTH, "--data", "nowhere"), "nowhere: no finished data set"),
    ((*BOTH, "--out", "{world}"), "that is the world to go on from"),
])
def test_wrong_usage_is_one_line_and_status_2(flags, words, world, clips, tmp_path, capsys):
    flags = [flag.format(world=world, clips=clips) for flag in flags]
    out = tmp_path / "run"
    assert train_world.main(["finetune", "--steps", "1", "--out", str(out), *flags]) == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
    assert not out.exists()


def test_adapters_need_a_trained_world(tmp_path, capsys):
    flags = ["--steps", "1", "--out", str(tmp_path / "run"), "--lora-rank", "4"]
    assert train_world.main(["tiny-maze", *flags]) == 2
    assert "give it (--init-from WORLD)" in capsys.readouterr().err


@pytest.mark.parametrize("clip, change, words", [
    ({"frame_size": (24, 32)}, {}, "frames of 32x24, but .* shows 24x16"),
    ({"fps": 5.0}, {}, "5 frames/s, but .* plays 10"),
    ({}, {"transformer": replace(MODEL, action_channels=0)}, "takes no actions"),
    ({}, {"without": "teacher"}, "teacher.safetensors is missing, the AR weights"),
])
def test_what_does_not_fit_is_said_before_anything_is_read(clip, change, words, tmp_path):
    missing = change.pop("without", None)
    folder = make_world(tmp_path / "world", **change)
    if missing:
        (folder / f"{missing}.safetensors").unlink()
    with pytest.raises(ValueError, match=words):
        tuned_recipe(Tuning(), folder, make_clips(tmp_path / "clips", num=1, **clip))


def test_a_recipe_refuses_a_world_of_another_network_before_anything_is_written(world, tmp_path, capsys):
    flags = ["--init-from", str(world), "--steps", "1", "--out", str(tmp_path / "run")]
    assert train_world.main(["tiny-maze", *flags]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "its network has dim 16 ffn_dim 32" in last and "this recipe's dim 64 ffn_dim 128" in last
    assert not (tmp_path / "run").exists()


def test_a_run_begun_before_a_number_was_there_goes_on_and_another_number_is_named(world, clips, tmp_path):
    recipe = tuned_recipe(Tuning(), world, clips)

    def begin(recipe):
        return Chain(recipe, tmp_path, processes=Processes(torch.device("cpu")), dtype=torch.float32,
                     data=clips, init_from=world)
    record = begin(recipe).log
    del record["recipe"]["dmd"]["trains_past"]
    write_json(tmp_path / "run.json", record)
    begin(recipe)
    with pytest.raises(ValueError, match="was started with dmd.critic_turns 5, now it is 4"):
        begin(replace(recipe, dmd=replace(recipe.dmd, critic_turns=4)))


# The whole run ----------------------------------------------------------------------------------------------


def tune(folder, world, clips, monkeypatch, num_ticks=float("inf"), **tuning):
    """One call of the run, stopped after num_ticks looks at the clock in a stage; whether it is done."""
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    recipe = tuned_recipe(Tuning(**tuning), world, clips)
    recipe = recipe.with_loops(steps=2)
    recipe.check(goes_on=True)
    return Chain(recipe, folder, processes=Processes(torch.device("cpu")), dtype=torch.float32,
                 deadline=Deadline(num_ticks), data=clips, init_from=world).run()


@pytest.mark.parametrize("rank", [None, 3])
def test_a_tuned_world_plays_and_a_run_in_pieces_equals_one(rank, world, clips, tmp_path, monkeypatch):
    assert tune(tmp_path / "whole", world, clips, monkeypatch, lora_rank=rank)
    calls = 1
    while not tune(tmp_path / "cut", world, clips, monkeypatch, num_ticks=1, lora_rank=rank):
        calls += 1
    assert calls > 3
    for name in ("model", "teacher", "codec"):
        whole, cut, base = (load_weights(folder / f"{name}.safetensors")
                            for folder in (tmp_path / "whole", tmp_path / "cut", world))
        assert whole.keys() == cut.keys() == base.keys()
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
        if name != "codec":  # the average of its decoder has hardly moved in two steps
            assert any(not torch.equal(whole[key], base[key].bfloat16()) for key in whole if "attn.v" in key)
        if name == "model":
            is_frozen = all(torch.equal(whole[key], base[key].bfloat16()) for key in whole if ".ffn." in key)
            assert is_frozen == (rank is not None)
    assert all(torch.equal(whole[key], base[key].bfloat16()) for key in whole if "encoder" in key)

    tuned = load_world(tmp_path / "whole", device="cpu")
    assert (tuned.name, tuned.config.env, tuned.config.context_sigma, tuned.action_space) == (
        "elsewhere", "elsewhere", 0.2, CLIPS)
    tuned.reset()
    frame, = tuned.step(Action({"mouse_left"}, (2, 0)))
    assert frame.shape == (16, 24, 3)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["recipe"]["lora_rank"] == rank


def test_clips_without_look_leave_the_camera_out(world, tmp_path, monkeypatch):
    clips = make_clips(tmp_path / "clips", space=ActionSpace(("w",), 12.0, look_axes=0))
    assert tune(tmp_path / "run", world, clips, monkeypatch, student_share=0, decoder_share=0)
    tuned = load_world(tmp_path / "run", device="cpu")
    tuned.reset()
    assert tuned.config.columns_per_degree == 0 and len(list(tuned.step(Action({"w"})))) == 1


def test_a_codec_that_has_learnt_from_lossy_clips_stays_one_on_lossless_ones(tmp_path, clips, monkeypatch):
    world = make_world(tmp_path / "world", lossy_codec=True)
    assert tune(tmp_path / "run", world, clips, monkeypatch, student_share=0, decoder_share=0)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["lossy_codec"] is True


def test_a_chunk_wise_world_stays_one(tmp_path, clips):
    recipe = tuned_recipe(Tuning(), make_world(tmp_path / "chunks", frames_per_chunk=2), clips)
    recipe.check(goes_on=True)
    assert recipe.context.frames_per_chunk == 2 and recipe.length % 2 == 0


@pytest.mark.parametrize("steps, begins_as", [(2, "model"), (4, "teacher")])
def test_stages_without_a_share_are_taken_from_the_world(steps, begins_as, tmp_path, monkeypatch, caplog):
    """Only bidirectional and dmd: the score begins as the AR teacher, dmd as the few-step student."""
    world = make_world(tmp_path / "world", steps=steps)
    save_weights(world / "model.safetensors", spread(seed=5).state_dict())
    clips, begun = make_clips(tmp_path / "clips", space=SPACE), {}

    def recorded(name, entry):
        def build(given):
            stage = entry.build(given)
            begun[name] = {role: {key: x.clone() for key, x in model.state_dict().items()}
                           for role, model in stage.models.items()}
            return stage
        monkeypatch.setitem(STAGES, name, replace(entry, build=build))
    for name in ("bidirectional", "dmd"):
        recorded(name, STAGES[name])
    recipe = tuned_recipe(Tuning(), world, clips)
    recipe = replace(recipe, student_steps=2, **{
        f"{name}_loop": replace(recipe.loop(name), steps=1, share=float(name in ("bidirectional", "dmd")))
        for name in recipe.stages})
    recipe.check(goes_on=True)
    assert Chain(recipe, tmp_path / "run", processes=Processes(torch.device("cpu")), dtype=torch.float32,
                 data=clips, init_from=world).run()
    teacher, student = (load_weights(world / f"{name}.safetensors") for name in ("teacher", begins_as))
    assert ("plays in 4 steps, not in 2: its AR teacher takes" in caplog.text) == (begins_as == "teacher")
    key = "blocks.0.self_attn.v.weight"
    assert torch.equal(begun["bidirectional"]["student"][key], teacher[key])
    assert torch.equal(begun["dmd"]["student"][key], student[key])
    made = load_weights(tmp_path / "run" / "teacher.safetensors")
    assert torch.equal(made[key], teacher[key].bfloat16())
    with pytest.raises(ValueError, match="no world would come of it"):
        replace(recipe, dmd_loop=replace(recipe.dmd_loop, share=0.0)).check(goes_on=True)
