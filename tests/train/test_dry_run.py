"""The dry run: what it counts without values is what a real step does."""
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import train_world
from tests.train.stages import test_stages
from tests.train.stages.test_stages import STAGES, WithTrajectories, data
from worldplay.engine.cost import flop_counter
from worldplay.models.transformer import Block, Transformer
from worldplay.train import dry_run, work
from worldplay.train.dry_run import GIB, estimate, report
from worldplay.train.optim import OptimConfig
from worldplay.train.processes import Applied, Processes
from worldplay.train.stages.draws import Draws
from worldplay.train.stages.teacher_forcing import TeacherForcingStage
from worldplay.train.trainer import LoopConfig, Trainer

DRAWS = Draws(0, 0, range(3))
CPU = torch.device("cpu")


def batch_of(name):
    return (WithTrajectories() if name.endswith("ode") else data()).batch(DRAWS)


def real_call(stage, dtype=torch.float32):
    trainer = Trainer.__new__(Trainer)
    trainer.processes, trainer.dtype = Processes(CPU), dtype
    trainer._applied = {role: Applied(model) for role, model in stage.models.items()}
    return trainer.call


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", STAGES)
def test_operations_without_values_are_those_of_a_real_step(name, dtype):
    stage, batch = STAGES[name](), batch_of(name)
    for role in stage.trained:
        with flop_counter() as counter:
            stage.loss(role, batch, DRAWS, real_call(stage, dtype))[0].backward()
        counted, again = work.step_flops(work.on_meta(stage, dtype), role, batch, DRAWS)
        assert counted == counter.get_total_flops() > 3 * again
        assert again > 0


@pytest.mark.parametrize("name", STAGES)
def test_memory_without_values_is_that_of_a_real_step(name, monkeypatch):
    stage, batch = STAGES[name](), batch_of(name)
    for role in stage.trained:
        without = work.step_memory(work.on_meta(stage), role, batch, DRAWS)
        with monkeypatch.context() as patch:
            patch.setattr(work, "META", CPU)  # the same pass, with values
            patch.setattr(work, "FusedAttention", torch.overrides.BaseTorchFunctionMode)
            real = work.step_memory(stage, role, {name: x.clone() for name, x in batch.items()}, DRAWS)
        assert without.kept == pytest.approx(real.kept, rel=1e-4)
        assert without.peak == pytest.approx(real.peak, rel=1e-3) and without.kept < without.peak
        assert without.kept_recomputed == pytest.approx(real.kept_recomputed, rel=1e-3)
        assert without.kept_recomputed <= without.peak_recomputed <= without.peak


@pytest.mark.parametrize("name", ["bidirectional", "teacher_forcing", "causal_cd"])
def test_recomputed_blocks_are_counted_as_checkpointing_has_them(name, monkeypatch):
    stage, batch = STAGES[name](), batch_of(name)
    expected = work.step_memory(work.on_meta(stage), "student", batch, DRAWS)
    plain = Block.forward
    monkeypatch.setattr(Block, "forward", lambda *args: checkpoint(plain, *args, use_reentrant=False))
    monkeypatch.setattr(work, "META", CPU)
    real = work.step_memory(stage, "student", {name: x.clone() for name, x in batch.items()}, DRAWS)
    assert expected.peak_recomputed == pytest.approx(real.peak, rel=0.15)  # moments within a block differ


@pytest.mark.parametrize("name", ["causal_cd", "dmd"])
def test_few_blocks_tell_what_many_do(name, monkeypatch):
    monkeypatch.setattr(test_stages, "MODEL", replace(test_stages.MODEL, num_layers=6))
    stage, batch = STAGES[name](), batch_of(name)
    with flop_counter() as counter:
        stage.loss("student", batch, DRAWS, real_call(stage))[0].backward()
    twin = work.on_meta(stage)
    assert work.step_flops(twin, "student", batch, DRAWS)[0] == counter.get_total_flops()
    memory = work.step_memory(twin, "student", batch, DRAWS)
    assert memory == whole_memory(twin, batch)


def whole_memory(stage, batch):
    """StepMemory counted on all the blocks of a stage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "_by_depth", lambda count, stage, depths: count(stage))
        return work.step_memory(stage, "student", batch, DRAWS)


def tiny(**loop):
    recipe = train_world.tiny_maze()
    loop = LoopConfig(**{"share": 1.0, "batch": 4, "micro_batch": 1, "optim": OptimConfig(muon_lr=0.01)}
                      | loop)
    off = replace(loop, share=0.0)
    return replace(recipe, teacher_forcing_loop=loop, **{f"{name}_loop": off for name in (
        "codec", "bidirectional", "causal_ode", "causal_cd", "dmd", "decoder")})


def test_a_recipe_is_counted_as_its_own_trainer_runs_it(tmp_path):
    """The weights, gradients and optimizer states of a real trainer after a step, byte for byte."""
    one, = estimate(tiny(), dtype=torch.float32, attention="chunks")
    recipe = tiny()
    stage = TeacherForcingStage(recipe.teacher_forcing, dry_run._shapes(recipe)[0], recipe.context, None)
    loop = replace(recipe.teacher_forcing_loop, steps=1)
    trainer = Trainer(stage, Latents(), loop, tmp_path, None, Processes(CPU), torch.float32)
    trainer.train_step()
    states = [x for opts in trainer.optimizers.values() for opt in opts for state in opt.state.values()
              for x in state.values() if torch.is_tensor(x) and x.ndim]
    weights = [p for model in stage.models.values() for p in model.parameters()]
    assert one.memory["weights"] == sum(p.nbytes for p in weights)
    assert one.memory["gradients"] == sum(p.nbytes for p in stage.models["student"].parameters())
    assert one.memory["optimizers"] == sum(x.nbytes for x in states)
    assert one.memory["unsharded"] == 0 and one.passes == 4


class Latents:
    def batch(self, draws, held_out=False):
        return {"latents": draws.normal("x", 20, 8, 15, 20), "actions": draws.normal("a", 20, 5).clamp(-1, 1),
                "columns": torch.zeros(len(draws.indices), 20, dtype=torch.float64)}


def test_more_gpus_shard_and_recomputed_blocks_take_time_for_memory():
    one, = estimate(tiny())
    four, = estimate(tiny(), gpus=4)
    again, = estimate(tiny(checkpoint_activations=True), gpus=4)
    for part in ("weights", "gradients"):
        assert four.memory[part] == one.memory[part] / 4
    adam, = estimate(tiny(optim=OptimConfig()))
    adam_on_four, = estimate(tiny(optim=OptimConfig()), gpus=4)
    assert adam_on_four.memory["optimizers"] == adam.memory["optimizers"] / 4
    hidden = 4 * sum(p.numel() for name, p in Transformer(dry_run._shapes(tiny())[0]).named_parameters()
                     if name.startswith("blocks.") and p.ndim == 2)
    sharded = (one.memory["optimizers"] - hidden) / 4
    assert four.memory["optimizers"] == hidden + sharded, "Muon's momenta are whole"
    assert four.passes == 1 and four.flops == pytest.approx(one.flops / 4)
    assert again.memory["activations"] < 0.8 * four.memory["activations"]
    assert 1.2 * four.flops < again.flops < 4 / 3 * four.flops
    page = report(tiny(), [four, again], gpus=4, gpu_memory=sum(four.memory.values()) / GIB, tflops=1.0)
    assert "an estimate" in page and "assumption (--tflops)" in page and "narrowly" in page
    with pytest.raises(ValueError, match="--teacher-forcing-loop.batch 4 cannot be divided over 8 GPUs"):
        estimate(tiny(), gpus=8)


def test_the_chunk_wise_recipe_is_one_that_could_run():
    recipe = train_world.wan_chunk()
    recipe.check()
    assert recipe.context.rule.frames_per_chunk == 4 and recipe.student_steps == 4


@pytest.mark.parametrize("make, parameters",
                         [(train_world.wan_frame, 1_418_996_800), (train_world.wan_chunk, 1_489_821_760)])
def test_the_published_shape_has_the_published_number_of_parameters_and_fits(make, parameters):
    recipe = make()
    recipe.check()
    others = {f"{name}_loop": replace(recipe.loop(name), share=0.0) for name in (
        "bidirectional", "causal_cd", "dmd")}
    one, = estimate(replace(recipe, **others), gpus=8)
    assert one.parameters["student"] == parameters
    assert sum(one.memory.values()) < 80 * GIB and one.passes == 8


@pytest.mark.parametrize("flags, words", [
    (("wan-frame", "--steps", "1"), "give both, --init-from WORLD"),
    (("tiny-maze", "--dry-run", "--stop-after", "1m"), "--dry-run trains nothing: leave out --stop-after"),
    (("tiny-maze", "--steps", "1", "--gpus", "8"), "--gpus: only for --dry-run"),
    (("tiny-maze", "--dry-run", "--gpus", "0"), "--gpus 0"),
])
def test_wrong_usage_is_one_line_and_status_2(flags, words, capsys):
    assert train_world.main(list(flags)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in last


def test_the_command_prints_every_stage_that_has_a_share(capsys):
    assert train_world.main(["tiny-maze", "--dry-run", "--transformer.num-layers", "1"]) == 0
    page = capsys.readouterr().out
    for stage in ("codec", "teacher_forcing", "causal_cd", "decoder"):
        assert f"\n{stage} " in page
    assert "dmd" not in page and "1 GPU of 80 GiB" in page
