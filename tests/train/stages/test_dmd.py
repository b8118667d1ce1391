"""Stage dmd: the student's rollout, its exit steps recomputed with gradients, and both losses by hand."""
import copy
from dataclasses import replace

import pytest
import torch

from tests.models.passes import commit, denoise
from tests.train.stages.test_stages import CONTEXT, batch_and_draws, call_of, dmd, spread
from worldplay.diffusion import add_noise, shift_sigma, warped_sigmas, x0_from_velocity
from worldplay.train.stages.context import chunk_conditions, context_sigma, whole_sequence
from worldplay.train.stages.dmd import recompute, self_rollout
from worldplay.train.stages.draws import Draws


def rollout(student, batch, draws, **options):
    return self_rollout(student, batch, draws, CONTEXT, **({"num_steps": 1, "first_steps": 1} | options))


@pytest.mark.parametrize("level, text_dim", [(0.0, None), (0.3, None), (0.3, 6)])
def test_a_rollout_is_what_its_frames_give_as_a_whole_sequence(level, text_dim):
    """Over two windows: the cache of the rollout equals the mask of teacher forcing over its own frames."""
    student, (batch, draws) = spread(text_dim=text_dim, text_len=4), batch_and_draws()
    batch |= {"text": torch.randn(2, 3, 6)} if text_dim else {}
    sigma = level * torch.rand(2, 6)
    played = rollout(student, batch, draws, num_steps=2, first_steps=4, sigma=sigma)
    clean = add_noise(played.frames, draws.normal("context noise", 6, 2, 4, 4), sigma)
    torch.testing.assert_close(played.past, clean)
    assert torch.equal(played.past_sigma, sigma)
    assert torch.equal(played.frames[:, :1], batch["latents"][:, :1])
    assert not any(x.requires_grad for x in vars(played).values())
    again = recompute(student, played, batch, CONTEXT)
    assert again.requires_grad
    torch.testing.assert_close(again, played.frames, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trains_past", [False, True])
def test_a_recomputed_rollout_has_the_gradient_of_the_exit_steps_on_the_cache(trains_past):
    """By finite differences in float64: of the exit steps, and of the cache only with trains_past."""
    student, (batch, draws) = spread().double(), batch_and_draws()
    played = rollout(student, batch, draws, num_steps=2, first_steps=4, sigma=torch.full((2, 6), 0.2))
    weight = torch.randn(2, 6, 2, 4, 4)
    parameters = list(student.parameters())
    x = recompute(student, played, batch, CONTEXT, trains_past=trains_past)
    gradients = torch.autograd.grad((weight * x).sum(), parameters)
    direction = [torch.randn_like(p) for p in parameters]

    @torch.no_grad()
    def on_the_cache(h):
        moved, total = copy.deepcopy(student), 0.0
        for p, step in zip(moved.parameters(), direction):
            p += h * step
        cache = CONTEXT.new_cache(student, batch["latents"])
        for i in range(6):
            at = slice(i, i + 1)
            conditions = {"frame": i, **chunk_conditions(batch, at)}
            if i:
                velocity = denoise(moved, played.noisy[:, at], played.sigma[:, at], cache, **conditions)
                x = x0_from_velocity(played.noisy[:, at], velocity, played.sigma[:, at])
                total += (weight[:, at] * x).sum()
            commit(moved if trains_past else student, played.past[:, at], played.past_sigma[:, at], cache,
                   **conditions)
        return total
    slope = (on_the_cache(1e-4) - on_the_cache(-1e-4)) / 2e-4
    expected = sum((g * step).sum() for g, step in zip(gradients, direction))
    torch.testing.assert_close(expected, slope, rtol=1e-4, atol=1e-4)


def test_no_gradient_of_a_later_frame_reaches_an_earlier_one():
    """Exactly 0 at the committed past unless trains_past; then 0 at the frames that come later."""
    student, (batch, draws) = spread(), batch_and_draws()
    played = rollout(student, batch, draws)

    def reached(trains_past):
        past = played.past.clone().requires_grad_()
        made = recompute(student, replace(played, past=past), batch, CONTEXT, trains_past=trains_past)
        gradient, = torch.autograd.grad(made[:, 3].square().sum(), past)
        return gradient.flatten(2).abs().amax(dim=(0, 2)).tolist()
    assert reached(False) == [0] * 6
    reach = reached(True)
    assert reach[3:] == [0] * 3 and all(reach[1:3])


def test_only_the_last_trained_frames_carry_a_gradient():
    student, (batch, draws) = spread(), batch_and_draws()
    played = rollout(student, batch, draws)

    def reaches(frames):
        made = recompute(student, played, batch, CONTEXT, num_trained=2)[:, frames]
        gradients = torch.autograd.grad(made.sum(), list(student.parameters()), allow_unused=True)
        return any(g is not None and g.any() for g in gradients)
    assert not reaches(slice(0, 4)) and reaches(slice(4, 5)) and reaches(slice(5, 6))


def test_a_rollout_takes_its_steps_with_fresh_noise_and_more_on_the_first_frame():
    student, (batch, _) = spread(), batch_and_draws()
    asked = []
    denoise = student.denoise
    student.denoise = lambda x, sigma, cache, chunk, *text: asked.append((chunk.frame, sigma)) or denoise(
        x, sigma, cache, chunk, *text)
    exits = set()
    for step in range(20):
        asked.clear()
        rollout(student, batch, Draws(0, step, range(2)), num_steps=2, first_steps=4)
        levels = {frame: [sigma for at, sigma in asked if at == frame] for frame in range(1, 6)}
        assert all(levels[frame] == levels[2] for frame in range(3, 6)), "one exit for all"
        assert levels[1] == warped_sigmas(4)[:len(levels[1])].tolist()
        assert levels[2] == warped_sigmas(2)[:len(levels[2])].tolist()
        exits.add((len(levels[1]), len(levels[2])))
    assert {first for first, _ in exits} == {1, 2, 3, 4} and {other for _, other in exits} == {1, 2}


@pytest.mark.parametrize("config", [{}, {
    "num_real": 2, "num_trained": 3, "trains_past": True, "is_exit_shared": False, "first_steps": 2,
    "guidance": 3.0, "normaliser": "batch", "sigma_range": (0.3, 0.4)}], ids=["defaults", "other numbers"])
def test_dmd_leads_its_own_play_from_the_critics_estimate_to_the_teachers(config):
    """Both losses by hand: the gradient of |x - stop(x - g)|^2 / 2N is g / N, at the frames played."""
    stage, (batch, draws) = dmd(**config), batch_and_draws()
    for p in stage.models["critic"].parameters():
        torch.nn.init.normal_(p, std=0.2)
    config, call = stage.config, call_of(stage)
    student = stage.models["student"]
    played = self_rollout(student, batch, draws, CONTEXT, num_steps=2, first_steps=config.first_steps,
                          num_real=config.num_real, is_exit_shared=config.is_exit_shared,
                          sigma=context_sigma(CONTEXT, draws, 6))
    x = recompute(student, played, batch, CONTEXT, num_trained=config.num_trained,
                  trains_past=config.trains_past)
    sigma = shift_sigma(draws.uniform("sigma")).clamp(*config.sigma_range)[:, None].expand(2, 6)
    noise = draws.normal("noise", 6, 2, 4, 4)
    noisy = add_noise(played.frames, noise, sigma)

    def score(role, known=None):
        return whole_sequence(call, role, noisy, sigma, batch, known, is_causal=False)
    with torch.no_grad():
        critic, conditional = score("critic"), score("teacher")
        unconditional = score("teacher", torch.zeros(2, dtype=torch.bool))
        teacher = unconditional + config.guidance * (conditional - unconditional)
        fake, real = (x0_from_velocity(noisy, velocity, sigma) for velocity in (critic, teacher))
        dim = (1, 2, 3, 4) if config.normaliser == "sample" else None
        distance = (x - real).abs().mean(dim=dim, keepdim=True)
        g = ((fake - real) / distance)[:, config.num_real:]
    parameters = list(student.parameters())
    expected = torch.autograd.grad((g * x[:, config.num_real:]).sum() / g.numel(), parameters)
    loss, logs = stage.loss("student", batch, draws, call)
    for one, other in zip(torch.autograd.grad(loss, parameters), expected):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(loss, g.square().mean() / 2)
    made = slice(config.num_real, None)
    torch.testing.assert_close(logs["data_error"], (x - batch["latents"])[:, made].square().mean().detach())
    torch.testing.assert_close(stage.loss("critic", batch, draws, call)[0],
                               (critic - (noise - played.frames)).square().mean(), check_dtype=False,
                               atol=1e-4, rtol=1e-5)


def test_dmd_has_no_gradient_where_critic_and_teacher_agree_and_updates_its_average_on_its_turns():
    stage, (batch, draws) = dmd(critic_turns=5, guidance=1.0), batch_and_draws()
    loss, _ = stage.loss("student", batch, draws, call_of(stage))
    assert loss == 0  # the critic starts as the teacher, and there is no guidance
    assert [stage.turn(step) for step in range(7)] == ["student", *["critic"] * 5, "student"]
    before = stage.models["ema"].head.head.weight.clone()
    stage.models["student"].head.head.weight.data += 1
    stage.after_step(1)
    assert torch.equal(stage.models["ema"].head.head.weight, before)
    stage.after_step(6)
    torch.testing.assert_close(stage.models["ema"].head.head.weight, before + 0.01)
