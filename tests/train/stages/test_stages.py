"""Contract of the sequence stages: finite losses, gradients where they belong, no leak, exact resume."""
import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from worldplay.action import Action, ActionSpace
from worldplay.camera import viewmats
from worldplay.diffusion import add_noise, euler_step, shifted_sigmas
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer
from worldplay.train import progress
from worldplay.train.metrics import Metrics
from worldplay.train.optim import OptimConfig
from worldplay.train.processes import Processes
from worldplay.train.stages.bidirectional import BidirectionalConfig, BidirectionalStage
from worldplay.train.stages.causal_cd import CausalCDConfig, CausalCDStage, consistency_loss
from worldplay.train.stages.causal_ode import (
    NODES,
    CausalODEConfig,
    CausalODEStage,
    bidirectional_trajectories,
    causal_trajectories,
)
from worldplay.train.stages.context import Context, ContextConfig, whole_sequence
from worldplay.train.stages.dmd import DMDConfig, DMDStage
from worldplay.train.stages.draws import Draws
from worldplay.train.stages.teacher_forcing import TeacherForcingConfig, TeacherForcingStage
from worldplay.train.trainer import LoopConfig, Trainer
from worldplay.train.window_store import WindowStore
from worldplay.train.windows import LatentWindows, TrajectoryWindows

MODEL = TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_channels=2, out_channels=2,
                          patch_size=(1, 2, 2), action_channels=3)
SPACE = ActionSpace(("w", "d"), 10.0, look_axes=1)
PUBLISHED = {"action_channels": 0, "has_camera": True, "text_dim": 8, "text_len": 4}
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
    return LatentWindows(latents, actions, episodes[:1], episodes[1:], length, SPACE, columns_per_degree=0.1)


def teacher_forcing(seed=0):
    torch.manual_seed(seed)
    return TeacherForcingStage(TeacherForcingConfig(), MODEL, CONTEXT, decode)


def causal_cd(seed=0):
    return CausalCDStage(CausalCDConfig(), MODEL, CONTEXT, spread(seed).state_dict(), decode)


def bidirectional(seed=0):
    torch.manual_seed(seed)
    return BidirectionalStage(BidirectionalConfig(), MODEL, decode)


def causal_ode(seed=0, teacher="causal"):
    return CausalODEStage(CausalODEConfig(teacher=teacher), MODEL, CONTEXT, spread(seed).state_dict(), decode)


def bidirectional_ode(seed=0):
    return causal_ode(seed, "bidirectional")


def dmd(seed=0, **config):
    config = DMDConfig(**({"critic_turns": 1, "guidance": 2.0} | config))
    return DMDStage(config, MODEL, CONTEXT, spread(seed + 1).state_dict(), spread(seed + 2).state_dict(),
                    decode, 2)


def spread(seed=0, **config):
    """A transformer none of whose weights is zero, so that everything matters; config: other than MODEL's."""
    torch.manual_seed(seed)
    model = Transformer(replace(MODEL, **config))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def published(batch):
    """The batch as published worlds have it: texts and cameras instead of actions."""
    torch.manual_seed(9)
    walks = [[Action({key}) for key in keys] for keys in ("wwdlj", "jjwas")]
    rows = torch.randn(2, 2, 3, 8)
    inputs = {"text": rows[0], "null_text": rows[1], "focal": torch.full((2, 6, 2), 0.5),
            "viewmats": torch.from_numpy(np.stack([viewmats(walk) for walk in walks]))}
    return {name: x for name, x in batch.items() if name not in ("actions", "columns")} | inputs


STAGES = {make.__name__: make
          for make in (bidirectional, teacher_forcing, causal_cd, causal_ode, bidirectional_ode, dmd)}


class WithTrajectories:
    """The data with trajectories that lead from noise to the latents in a straight line."""

    def batch(self, draws, held_out=False):
        batch = data().batch(draws, held_out)
        latents = batch["latents"]
        noise = draws.normal("straight", *latents.shape[1:])
        points = [add_noise(latents, noise, float(sigma)) for sigma in (*NODES, 0.0)]
        return batch | {"trajectories": torch.stack(points, dim=2)}


def batch_and_draws(step=0, b=2):
    draws = Draws(0, step, range(step * b, step * b + b))
    return WithTrajectories().batch(draws), draws


def call_of(stage):
    def call(role, function, *args, **kwargs):
        return function(stage.models[role], *args, **kwargs)
    return call


@pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)
def test_only_the_trained_roles_get_gradients(make):
    stage = make()
    batch, draws = batch_and_draws()
    turns = {stage.turn(step) for step in range(6)}
    assert turns == set(stage.trained)
    for turn in turns:
        loss, logs = stage.loss(turn, batch, draws, call_of(stage))
        loss.backward()
        assert torch.isfinite(loss) and loss > 0 and all(np.isfinite(float(x)) for x in logs.values())
        for role, model in stage.models.items():
            touched = [p for p in model.parameters() if p.grad is not None and p.grad.any()]
            assert bool(touched) == (role == turn), role
            model.zero_grad()


@pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)
def test_texts_and_cameras_reach_every_stage(make, monkeypatch):
    """Each of them changes the loss of every role, and so does a guidance on the text where there is one."""
    monkeypatch.setitem(globals(), "MODEL", replace(MODEL, **PUBLISHED))
    stage, (batch, draws) = make(), batch_and_draws()
    given = published(batch)
    for model in stage.models.values() if make in (bidirectional, teacher_forcing) else ():
        model.load_state_dict(spread().state_dict())  # nothing is zero, as at their start

    def losses(batch, stage=stage):
        return [float(stage.loss(role, batch, draws, call_of(stage))[0].detach()) for role in stage.trained]
    before = losses(given)
    moved = given["viewmats"].clone()
    moved[:, 3:, 2, 3] -= 1.0
    for change in ({"text": -given["text"]}, {"viewmats": moved}):
        assert all(a != b for a, b in zip(before, losses(given | change))), change.keys()
    if hasattr(stage.config, "guidance") and make is not causal_ode and make is not bidirectional_ode:
        stage.config = replace(stage.config, guidance=3.0)
        other = losses(given | {"null_text": -given["null_text"]})[0]
        assert losses(given)[0] not in (before[0], other)


@pytest.mark.parametrize("make", STAGES.values(), ids=STAGES)
def test_resume_is_bit_exact(make, tmp_path):
    def run(folder, steps, seed=0):
        loop = LoopConfig(batch=4, micro_batch=2, steps=steps,
                          optim=OptimConfig(lr=1e-3, muon_lr=0.01, decay=0))
        metrics = Metrics(folder)
        stage = make(seed)
        Trainer(stage, WithTrajectories(), loop, folder, metrics, Processes(torch.device("cpu")),
                torch.float32).run()
        metrics.close()
        return stage.models[stage.result].state_dict()
    whole = run(tmp_path / "whole", 6)
    run(tmp_path / "cut", 2)
    cut = run(tmp_path / "cut", 6, seed=7)  # whose own weights would show
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


class Published:
    """The data as published worlds have it, two samples at once."""

    def batch(self, draws, held_out=False):
        return published(data().batch(draws, held_out))


@pytest.mark.parametrize("make", [bidirectional, teacher_forcing, causal_cd, dmd])
def test_blocks_that_are_computed_again_are_the_same_in_bfloat16(make, tmp_path, monkeypatch):
    """With texts and cameras, a progress line after every step; the weights in the compute dtype are still
    there on the way back.
    """
    monkeypatch.setitem(globals(), "MODEL", replace(MODEL, **PUBLISHED))
    monkeypatch.setattr(progress.Progress, "period", 0)
    monkeypatch.setattr(progress, "matmul_tflops", lambda device, dtype, repeats: 0.05)

    def run(folder, recompute):
        stage = make()
        stage.sheet = lambda batch, draws, call: np.zeros((4, 4, 3), np.uint8)
        for model in stage.models.values():
            model.checkpoint_activations = recompute
        metrics = Metrics(folder)
        Trainer(stage, Published(), LoopConfig(batch=2, steps=2), folder, metrics,
                Processes(torch.device("cpu")), torch.bfloat16).run()
        metrics.close()
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert sum(bool(line.get("gflops")) for line in lines) == 2
        assert all(p.dtype == torch.float32 for model in stage.models.values() for p in model.parameters())
        return stage.models["student"].state_dict()
    kept, again = run(tmp_path / "kept", False), run(tmp_path / "again", True)
    assert all(torch.equal(kept[name], again[name]) for name in kept)


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
        context = Context(CONTEXT, part, draws).augment(call_of(stage), "student", draws)
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


def test_own_frames_of_a_round_come_from_those_of_the_round_before():
    """A network that sees the frame before brighter by 1: after r rounds a frame is that of r before plus r.
    """
    def call(role, forward, noisy, sigma, clean, **_):
        return noisy - torch.cat([clean[:, :1], clean[:, :-1] + 1], dim=1)
    config = ContextConfig(window=3, max_sigma=0.0, own_frames=1.0, own_steps=1.0, own_rounds=3)
    found = set()
    for step in range(12):
        batch, draws = batch_and_draws(step)
        rounds = 1 + draws.shared_integer("own rounds", 3)
        made = Context(config, batch, draws).augment(call, "student", draws).clean
        expected = batch["latents"][:, :-rounds] + rounds
        assert torch.allclose(made[:, rounds:], expected, atol=1e-5)
        found.add(rounds)
    assert found == {1, 2, 3}


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


def test_windows_cross_no_border():
    latents = np.arange(80, dtype=np.float16).reshape(80, 1, 1, 1)
    windows = LatentWindows(latents, np.zeros((80, 3), np.float32), np.array([[0, 30, 0], [30, 40, 2]]),
                            np.array([[70, 10, 19]]), 8, SPACE, 0.1)
    for step in range(20):
        first = windows.batch(Draws(0, step, range(8)))["latents"][:, 0, 0, 0, 0]
        last = first + 7
        assert (((last < 30) | (first >= 30)) & (last < 70)).all()
    assert windows.batch(Draws(0, 0, range(8)), held_out=True)["latents"].min() >= 70
    with pytest.raises(ValueError, match="90 frames long"):
        LatentWindows(latents, np.zeros((80, 3)), np.array([[0, 70, 0]]), np.array([[70, 10, 19]]), 90, SPACE,
                      0.1)


# Trajectories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["actions", "published"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_causal_trajectories_on_the_cache_equal_whole_sequences_and_follow_the_real_past(guidance, kind):
    teacher, (batch, draws) = spread(), batch_and_draws()
    if kind == "published":
        teacher, batch = spread(**PUBLISHED), published(batch)
    noise = draws.normal("start", 6, 2, 4, 4)
    made = causal_trajectories(teacher, batch, noise, CONTEXT, num_timesteps=8, guidance=guidance)
    assert made.shape == (2, 6, 5, 2, 4, 4) and torch.equal(made[:, :, 0], noise)
    context = Context(CONTEXT, batch, draws).keep()
    if kind == "actions":
        context.conditions["action_mask"] = torch.arange(6).expand(2, 6) > 0

    def call(role, function, *args, **kwargs):
        return function(teacher, *args, **kwargs)
    x, levels = noise, [*shifted_sigmas(8).tolist(), 0.0]
    with torch.no_grad():
        for sigma, lower in zip(levels, levels[1:]):
            sigmas = torch.full((2, 6), sigma)
            velocity = context.predict(call, "", x, sigmas, guidance)
            x = euler_step(x, velocity, sigma, lower)
    torch.testing.assert_close(made[:, :, -1], x, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["causal", "bidirectional"])
def test_stored_points_are_those_of_the_walk_at_the_nodes(kind, monkeypatch):
    """Of a velocity that is x itself: after each Euler step x has shrunk by a factor that is known."""
    batch, draws = batch_and_draws()
    noise = draws.normal("start", 6, 2, 4, 4)
    monkeypatch.setattr(Transformer, "denoise", lambda self, x, *_: x)
    monkeypatch.setattr(Transformer, "forward", lambda self, x, sigma, **_: x)
    made = (causal_trajectories(spread(), batch, noise, CONTEXT) if kind == "causal"
            else bidirectional_trajectories(spread(), batch, noise))
    levels = torch.cat([shifted_sigmas(48), torch.zeros(1)])
    shrunk = torch.cat([torch.ones(1), (1 + levels.diff()).cumprod(0)])
    for point, node in enumerate((0, 12, 24, 36, 48)):
        torch.testing.assert_close(made[:, :, point], noise * shrunk[node], atol=1e-5, rtol=1e-4)
    assert torch.allclose(levels[[0, 12, 24, 36]], NODES, atol=1e-6)
    with pytest.raises(ValueError, match="50 Euler steps"):
        causal_trajectories(spread(), batch, noise, CONTEXT, num_timesteps=50)


def test_a_store_keeps_every_window_and_makes_none_twice(tmp_path):
    windows, starts = data(), np.array([3, 0, 7])
    store = WindowStore(tmp_path, starts, batch=2)
    assert [list(part) for _, part in store.missing()] == [[3, 0], [7]]
    made = np.arange(3 * 6 * 5 * 32, dtype=np.float16).reshape(3, 6, 5, 2, 4, 4) % 100
    store.write(0, made[:2])
    store = WindowStore(tmp_path, starts, batch=2)
    assert [number for number, _ in store.missing()] == [1]
    store.write(1, made[2:])
    assert not store.missing() and store.num_bytes > made.nbytes
    assert np.array_equal(store.read([2, 0]), made[[2, 0]])
    batch = TrajectoryWindows(windows, store, store).batch(Draws(0, 0, range(4)))
    assert batch["trajectories"].shape == (4, 6, 5, 2, 4, 4) and batch["latents"].shape == (4, 6, 2, 4, 4)
    with pytest.raises(ValueError, match="other windows"):
        WindowStore(tmp_path, starts[:2], batch=2)


def test_a_bidirectional_frame_sees_the_future_and_no_first_action():
    model, (batch, _) = spread(), batch_and_draws()
    x, sigma = batch["latents"], torch.full((2, 6), 0.5)

    def call(role, function, *args, **kwargs):
        return function(model, *args, **kwargs)

    def velocity(**changes):
        return whole_sequence(call, "", x, sigma, batch | changes, is_causal=False)
    other = batch["actions"].clone()
    other[:, 0] += 1
    assert torch.equal(velocity(), velocity(actions=other))
    other[:, 5] += 1
    assert not torch.equal(velocity()[:, 0], velocity(actions=other)[:, 0])
