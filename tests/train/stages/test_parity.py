"""The training formulas against values of the published code, gradients included."""
import itertools

import pytest
import torch
from einops import rearrange
from torch import nn

from tests.parity import cases, close, load_case
from worldplay.diffusion import add_noise, euler_step, velocity_target, x0_from_velocity
from worldplay.train.optim import move_average
from worldplay.train.stages.causal_cd import consistency_loss, neighbours
from worldplay.train.stages.causal_ode import ode_loss, pick
from worldplay.train.stages.dmd import exit_steps, generator_loss, kl_gradient
from worldplay.train.stages.losses import (
    flow_matching_loss,
    guide,
    last_frames,
    masked_gradient,
    squared_errors,
)

KINDS = ("flow_matching", "consistency", "consistency_pairs", "ode_regression", "dmd", "self_forcing", "ema")


def test_every_case_is_driven():
    assert set(cases("algorithms", "")) <= {name for kind in KINDS for name in cases("algorithms", kind)}


def load(kind):
    """A parametrisation over the cases of a kind; consistency_pairs is none of consistency."""
    longer = [other for other in KINDS if other != kind and other.startswith(kind)]
    names = [name for name in cases("algorithms", kind) if not name.startswith(tuple(longer) or ("-",))]
    return pytest.mark.parametrize("case", [load_case("algorithms", name) for name in names], ids=names)


def check(case, name, value):
    """Compare with out.NAME, in its dtype."""
    expected = case[f"out.{name}"]
    close(value.to(expected.dtype), expected, case)


def gradient(loss, of):
    return torch.autograd.grad(loss, of)[0]


@load("flow_matching")
def test_flow_matching(case):
    clean, noise, sigma = case["in.clean"], case["in.noise"], case["in.sigma"]
    noisy, target = add_noise(clean, noise, sigma), velocity_target(clean, noise)
    check(case, "noisy", noisy)
    check(case, "target", target)
    prediction = case["in.pred"].requires_grad_()
    check(case, "x0", x0_from_velocity(noisy, prediction, sigma))
    check(case, "x0_f64", x0_from_velocity(noisy.double(), prediction.double(), sigma))
    rounded = [case[f"in.{name}"].bfloat16() for name in ("clean", "noise", "pred", "sigma")]
    check(case, "noisy_bf16_inputs", add_noise(*rounded[:2], rounded[3]))
    check(case, "x0_bf16_inputs", x0_from_velocity(noisy.bfloat16(), *rounded[2:]))
    masks = {"loss": {}, "loss_weighted": {"weight": case["in.weight"]},
             "loss_masked": {"mask": case["in.mask"]},
             "loss_weighted_masked": {"weight": case["in.weight"], "mask": case["in.mask"]},
             "loss_weighted_mask_bf": {"weight": case["in.weight"], "mask": case["in.mask_bf"]}}
    for name, options in masks.items():
        loss = flow_matching_loss(prediction, clean, noise, **options)
        check(case, "loss_mean" if name == "loss" else name, loss)
        if f"out.grad_{name}" in case:
            check(case, f"grad_{name}", gradient(loss, prediction))
    check(case, "loss_none", squared_errors(prediction, target))
    check(case, "loss_none_masked", squared_errors(prediction, target, mask=case["in.mask"]))


@load("consistency")
def test_consistency(case):
    latent = case["in.latent"].requires_grad_()
    v_uncond, v_cond = case["in.v_uncond"], case["in.v_cond"]
    sigma, lower = case["in.t"] / 1000, case["in.t_next"] / 1000
    for scale in case["params"]["guidance"]:
        check(case, f"euler_cfg{scale:g}", euler_step(latent, guide(v_uncond, v_cond, scale), sigma, lower))
    guided = guide(v_uncond, v_cond, 3.0)
    check(case, "euler_scalar_t", euler_step(latent, guided, 0.8333333, 0.7142857))
    check(case, "euler_sigma_units", euler_step(latent, guided, sigma, lower))
    rounded = [x.bfloat16() for x in (latent, guided)]
    check(case, "euler_bf16", euler_step(*rounded, *(case[f"in.{name}"].bfloat16().float() / 1000
                                                     for name in ("t", "t_next"))))
    loss = consistency_loss(latent, case["in.other"])
    check(case, "loss_mean", loss)
    check(case, "loss_none", squared_errors(latent, case["in.other"]))
    check(case, "grad_loss", gradient(loss, latent))


@load("consistency_pairs")
def test_neighbours(case):
    sigmas, timesteps = case["in.sigmas"], torch.cat([case["in.timesteps"], torch.zeros(1)])
    for name in ("pairs", "pairs_terminal"):
        drawn = torch.arange(len(case[f"out.{name}"]))
        check(case, name, torch.stack([*neighbours(sigmas, drawn), *neighbours(timesteps, drawn)], dim=1))


@load("ode_regression")
def test_ode_regression(case):
    trajectory = rearrange(case["in.trajectory"], "b s t c h w -> b t s c h w")
    assert torch.equal(trajectory[:, :, -1], case["out.clean"])  # stored behind the end of the way
    index, prediction = case["in.step_index"], case["in.pred"].requires_grad_()
    noisy, target = pick(trajectory[:, :, :-1], index)
    check(case, "noisy", noisy)
    check(case, "target", target)
    check(case, "timestep", torch.tensor(case["params"]["steps"])[index].expand(case["out.timestep"].shape))
    weight, mask = case["in.weight"], case["in.mask"]
    check(case, "loss", ode_loss(prediction, target))
    check(case, "loss_weighted", ode_loss(prediction, target, weight))
    check(case, "loss_weighted_masked", ode_loss(prediction, target, weight, mask))
    loss = ode_loss(prediction, target, mask=mask)
    check(case, "loss_masked", loss)
    check(case, "grad_loss_masked", gradient(loss, prediction))


@load("dmd")
def test_dmd(case):
    for scale in case["params"]["guidance"]:
        check(case, f"cfg{scale:g}", guide(case["in.v_uncond"], case["in.v_cond"], scale))
    x, fake, real = case["in.gen"].requires_grad_(), case["in.fake_x0"], case["in.real_x0"]
    for name, normaliser in (("global", "batch"), ("per_sample", "sample"), ("none", "none")):
        check(case, f"kl_{name}", kl_gradient(x, fake, real, normaliser))
    check(case, "kl_zero_normalizer_global", kl_gradient(real, fake, real, "batch"))
    broken = fake.clone()
    broken.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    # the published code replaces what is not finite; here the trainer is to see it
    check(case, "kl_none_nan_inf", torch.nan_to_num(kl_gradient(x, broken, real, "none")))
    direction = case["out.kl_per_sample"]
    for masked, double in itertools.product((False, True), repeat=2):
        given, to = (x.double(), direction.double()) if double else (x, direction)
        loss = generator_loss(given, to, case["in.mask"] if masked else None)
        ending = "_masked" * masked + "_f64" * double
        check(case, f"gen_loss{ending}", loss)
        check(case, f"gen_loss_grad{ending}", gradient(loss, x))
    critic = case["in.critic"].requires_grad_()
    for ending, weight in (("", None), ("_weighted", case["in.weight"])):
        loss = flow_matching_loss(critic, case["in.clean"], case["in.noise"], weight)
        check(case, f"critic_loss{ending}", loss)
        check(case, f"critic_loss_grad{ending}", gradient(loss, critic))


@load("self_forcing")
def test_self_forcing(case):
    video = case["in.video"].requires_grad_()
    for last in case["params"]["last_n"]:
        mask = last_frames(video.shape[1], last)
        check(case, f"mask_last{last}", mask.reshape(-1, 1, 1, 1).expand(video.shape))
        for ending in ("_bool", "_bcfhw"):
            if f"out.mask_last{last}{ending}" in case:
                shape = (-1, 1, 1) if ending == "_bcfhw" else (-1, 1, 1, 1)
                check(case, f"mask_last{last}{ending}",
                      mask.reshape(shape).expand(case[f"out.mask_last{last}{ending}"].shape))
    for name, mask in (("last1", last_frames(video.shape[1], 1)), ("soft", case["in.mask"])):
        masked = masked_gradient(video, mask)
        check(case, f"video_{name}", masked)
        check(case, f"grad_{name}", torch.autograd.grad(masked, video, case["in.grad_in"])[0])
    num_steps, num_frames = case["out.exit_same"].shape
    for drawn, expected in enumerate(case["out.exit_same"]):
        assert exit_steps(Drawn([drawn, drawn]), num_frames, num_steps, num_steps) == expected.tolist()
    each = case["out.exit_each"].tolist()
    assert exit_steps(Drawn(each), len(each), num_steps, num_steps, is_shared=False) == each


class Drawn:
    """Draws whose shared integers are given."""

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def shared_integer(self, purpose, below):
        return next(self.numbers)


@load("ema")
def test_average(case):
    for decay in case["params"]["decay"]:
        average = nn.ParameterList([case["in.ema0"].clone(), case["in.ema1"].clone()])
        for update, source in enumerate("mn", 1):
            move_average(average, nn.ParameterList([case[f"in.{source}0"], case[f"in.{source}1"]]), decay)
            for k, value in enumerate(average):
                check(case, f"after{update}_{decay:g}_{k}", value.detach())
    copy = nn.Linear(4, 3)
    move_average(copy, nn.ParameterDict({"weight": case["in.m0"], "bias": case["in.m1"][:3]}), 0.0)
    check(case, "copied_weight", copy.weight.detach())
    check(case, "copied_bias", copy.bias.detach())
