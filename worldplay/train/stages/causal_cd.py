"""Stage `causal_cd`: consistency distillation of the AR teacher into a few-step student, nothing stored."""
import copy
from dataclasses import dataclass
from functools import partial

import torch

from worldplay.diffusion import add_noise, euler_step, shifted_sigmas, x0_from_velocity
from worldplay.train.optim import move_average
from worldplay.train.stages.averaged import AveragedStudent, new_transformer
from worldplay.train.stages.context import Context, prediction_sheet
from worldplay.train.stages.losses import squared_errors


def consistency_loss(x0_student, x0_target):
    """Mean squared difference of two estimates of the same clean frame, [b t c h w] each, in float32.

    x0_student  at the noisier point; x0_target  by the averaged student at the teacher's next point, no
                gradient
    Source: Causal Forcing++, arXiv:2605.15141, stage 2.
    """
    return squared_errors(x0_student, x0_target.detach()).mean()


def neighbours(sigmas, n):
    """(noise level n, the next lower one) of a falling schedule [s] that ends at 0; 0 <= n < s - 1."""
    return sigmas[n], sigmas[n + 1]


@dataclass(frozen=True, kw_only=True)
class CausalCDConfig:
    """Settings of stage causal_cd: its noise levels, the teacher's guidance and the averaged student."""
    num_timesteps: int = 48
    """Noise levels; a multiple of 4, so that the nodes of 1, 2 and 4 steps lie on the grid."""
    guidance: float = 1.0
    """Of the teacher, on the text where there is one and on actions otherwise; 1 is none: one action in a
    known past has one right next frame, and going past it lowers the paired fidelity."""
    ema: float = 0.99
    """Decay of the averaged student, which gives the target and ships."""


class CausalCDStage(AveragedStudent):
    """Trains `student` against `ema`, its running average, along the trajectories of the frozen `teacher`."""
    name = "causal_cd"

    def __init__(self, config, model, context, teacher, decode):
        """teacher: state dict of the AR teacher, which student and average start from; others as in
        teacher_forcing.
        """
        self.config, self.context, self.decode = config, context, decode
        super().__init__(new_transformer(model, teacher))
        self.models["teacher"] = copy.deepcopy(self.models["ema"])
        self.sigmas = torch.cat([shifted_sigmas(config.num_timesteps), torch.zeros(1)])

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        context = Context(self.context, batch, draws).augment(call, "ema", draws)
        # Each chunk draws its own pair; the last pair ends at data, where the average returns its input: the
        # anchor.
        draw = partial(draws.integers, "pair", self.config.num_timesteps)
        n = self.context.per_chunk(draw, latents.shape[1])
        sigma, lower = (level.to(latents.device) for level in neighbours(self.sigmas, n))
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        x = add_noise(latents, noise, sigma)
        with torch.no_grad():
            velocity = context.predict(call, "teacher", x, sigma, self.config.guidance).float()
            x_lower = euler_step(x, velocity, sigma, lower)
            target = x0_from_velocity(x_lower, context.predict(call, "ema", x_lower, lower).float(), lower)
        x0 = x0_from_velocity(x, context.predict(call, role, x, sigma).float(), sigma)
        return consistency_loss(x0, target), {"data_error": (x0.detach() - latents).square().mean()}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], self.config.ema)

    def sheet(self, batch, draws, call):
        return prediction_sheet(call, "ema", self.context, batch, draws, self.decode)
