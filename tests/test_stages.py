"""Contract over the sequence stages: finite losses, gradients only where they belong, no leak, learning, exact resume."""
import copy

import numpy as np
import pytest
import torch

from worldplay.diffusion import shifted_sigmas
from worldplay.models.transformer import Transformer, TransformerConfig
from worldplay.train.causal_cd import CausalCDConfig, CausalCDStage, consistency_loss
from worldplay.train.draws import Draws
from worldplay.train.metrics import Metrics
from worldplay.train.teacher_forcing import Context, ContextConfig, TeacherForcingConfig, TeacherForcingStage
from worldplay.train.trainer import LoopConfig, OptimConfig, Trainer
from worldplay.train.windows import LatentWindows, yaw_columns

MODEL = TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_channels=2, out_channels=2,
                          patch_size=(1, 2, 2), action_channels=3)
CONTEXT = ContextConfig(window=3, own_steps=0.5)


def decode(latents):
    return torch.zeros(len(latents), 8, 8, 3, dtype=torch.uint8)


def data(length=6):
    """Latents that hold a bright column moving with the yaw action."""
    rng = np.random.default_rng(0)
    actions = np.zeros((80, 3), np.float32)
    actions[:, 2] = rng.choice([-1, 0, 1], 80)
    column = np.cumsum(actions[:, 2]).astype(int) % 4
    latents = np.zeros((80, 2, 4, 4), np.float16)
    latents[np.arange(80), :, :, column] = 2
    episodes = np.array([[0, 40, 0], [40, 40, 1]])
    return LatentWindows(latents, actions, episodes[:1], episodes[1:], length, yaw_channel=2, columns_per_unit=1.0)


def teacher_forcing():
    torch.manual_seed(0)
    return TeacherForcingStage(TeacherForcingConfig(model=MODEL, context=CONTEXT), decode)


def causal_cd():
    torch.manual_seed(0)
    return CausalCDStage(CausalCDConfig(model=MODEL, context=CONTEXT), Transformer(MODEL).state_dict(), decode)


STAGES = {"teacher_forcing": teacher_forcing, "causal_cd": causal_cd}


def batch_and_draws(step=0, b=2):
    draws = Draws(0, step, range(step * b, step * b + b))
    return data().batch(draws), draws


def call_of(stage):
    def call(role, *args, method="forward", **kwargs):
        return getattr(stage.models[role], method)(*args, **kwargs)
    return call


@pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)
def test_only_the_trained_roles_get_gradients(make):
    stage = make()
    batch, draws = batch_and_draws()
    loss, logs = stage.loss(stage.turn(0), batch, draws, call_of(stage))
    loss.backward()
    assert torch.isfinite(loss) and all(np.isfinite(float(x)) for x in logs.values())
    for role, model in stage.models.items():
        touched = [p for p in model.parameters() if p.grad is not None]
        assert bool(touched) == (role in stage.trained), role


@pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)
def test_resume_is_bit_exact(make, tmp_path):
    def run(folder, steps):
        loop = LoopConfig(batch=4, micro_batch=2, steps=steps, optim=OptimConfig(lr=1e-3, muon_lr=0.01, decay=0))
        metrics = Metrics(folder)
        stage = make()
        Trainer(stage, data(), loop, folder, metrics, torch.device("cpu"), torch.float32).run()
        metrics.close()
        return stage.models[stage.result].state_dict()
    whole = run(tmp_path / "whole", 6)
    run(tmp_path / "cut", 2)
    cut = run(tmp_path / "cut", 6)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_teacher_forcing_learns_the_action():
    stage = teacher_forcing()
    optimizer = torch.optim.AdamW(stage.models["student"].parameters(), 3e-3)
    losses = []
    for step in range(60):
        batch, draws = batch_and_draws(step, b=8)
        loss, _ = stage.loss("student", batch, draws, call_of(stage))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        stage.after_step(step)
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_a_later_frame_or_action_changes_no_earlier_prediction():
    stage = teacher_forcing()
    for p in stage.models["student"].parameters():
        torch.nn.init.normal_(p, std=0.2)
    batch, draws = batch_and_draws()
    other = {name: x.clone() for name, x in batch.items()}
    other["latents"][:, 4:] += 1
    other["actions"][:, 4:] = 0.5
    other["columns"][:, 4:] += 2
    outputs = []
    for part in (batch, other):
        context = Context(CONTEXT, part, draws).spoil(call_of(stage), "student", draws)
        sigma = torch.full((2, 6), 0.7)
        outputs.append(context.predict(call_of(stage), "student", draws.normal("x", 6, 2, 4, 4), sigma))
    assert torch.equal(outputs[0][:, :4], outputs[1][:, :4])
    assert not torch.equal(outputs[0][:, 4:], outputs[1][:, 4:])


def test_context_noise_stays_within_its_bound_and_the_first_action_is_hidden():
    batch, draws = batch_and_draws(b=16)
    context = Context(ContextConfig(max_sigma=0.3), batch, draws)
    assert 0 <= context.sigma.min() and context.sigma.max() <= 0.3 and context.sigma.std() > 0
    assert not context.conditions["action_mask"][:, 0].any()
    assert context.conditions["action_mask"][:, 1:].float().mean() > 0.8


def test_a_consistent_student_has_no_loss_and_the_grid_ends_at_data():
    stage = causal_cd()
    assert stage.sigmas[0] == 1 and stage.sigmas[-1] == 0 and len(stage.sigmas) == 49
    assert stage.sigmas.dtype == torch.float32
    for node in (1.0, 0.9375, 5 / 6, 0.625):  # the nodes of the 1-, 2- and 4-step samplers
        assert (shifted_sigmas(48, 5.0) - node).abs().min() < 1e-6
    x = torch.randn(1, 2, 2, 4, 4)
    assert consistency_loss(x, x) == 0
    assert consistency_loss(x, x + 1) == pytest.approx(1)


def test_the_average_follows_the_student():
    stage = causal_cd()
    before = copy.deepcopy(stage.models["ema"].state_dict())
    for p in stage.models["student"].parameters():
        p.data += 1
    stage.after_step(0)
    name = "blocks.0.ffn.0.weight"
    moved = stage.models["ema"].state_dict()[name] - before[name]
    assert torch.allclose(moved, torch.full_like(moved, 0.01), atol=1e-6)


def test_camera_columns_add_up_and_ignore_what_led_to_the_first_frame():
    actions = torch.tensor([[[1.0, 0.5], [0.0, 0.5], [0.0, -0.25]]])
    assert yaw_columns(actions, 1, 2.0).tolist() == [[0.0, 1.0, 0.5]]


def test_windows_cross_no_border():
    latents = np.arange(80, dtype=np.float16).reshape(80, 1, 1, 1)
    windows = LatentWindows(latents, np.zeros((80, 3), np.float32), np.array([[0, 30, 0], [30, 40, 2]]),
                            np.array([[70, 10, 19]]), 8, 2, 1.0)
    for step in range(20):
        first = windows.batch(Draws(0, step, range(8)))["latents"][:, 0, 0, 0, 0]
        last = first + 7
        assert (((last < 30) | (first >= 30)) & (last < 70)).all()
    assert windows.batch(Draws(0, 0, range(8)), held_out=True)["latents"].min() >= 70
    with pytest.raises(ValueError, match="90 frames long"):
        LatentWindows(latents, np.zeros((80, 3)), np.array([[0, 70, 0]]), np.array([[70, 10, 19]]), 90, 2, 1.0)
