"""Stage `teacher_forcing`: autoregressive diffusion on [clean ; noisy] sequences, the chain's AR teacher."""
import copy
from dataclasses import dataclass
from functools import partial

from worldplay.diffusion import add_noise, shift_sigma
from worldplay.models.transformer import Transformer
from worldplay.train.optim import early_decay, move_average
from worldplay.train.stages.context import Context, prediction_sheet
from worldplay.train.stages.losses import flow_matching_loss


@dataclass(frozen=True, kw_only=True)
class TeacherForcingConfig:
    """What the AR teacher is trained with, beside its context."""
    ema: float = 0.998
    """Decay of the averaged weights."""


class TeacherForcingStage:
    """Trains `student`; `ema`, its running average, is the AR teacher."""
    name, trained, result = "teacher_forcing", {"student": 1.0}, "ema"

    def __init__(self, config, model, context, decode, init=None):
        """model: TransformerConfig. context: ContextConfig. init: state dict to start from.
        decode: latents [n c h w] -> frames uint8 [n H W 3], for the sheet.
        """
        self.config, self.context, self.decode = config, context, decode
        student = Transformer(model)
        if init is not None:
            student.load_state_dict(init)
        self.models = {"student": student, "ema": copy.deepcopy(student).requires_grad_(False)}

    def turn(self, step):
        return "student"

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        context = Context(self.context, batch, draws).augment(call, role, draws)
        sigma = self.context.per_chunk(partial(draws.uniform, "sigma"), latents.shape[1])
        sigma = shift_sigma(sigma).to(latents.device)
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        velocity = context.predict(call, role, add_noise(latents, noise, sigma), sigma)
        return flow_matching_loss(velocity, latents, noise), {}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], early_decay(self.config.ema, step))

    def sheet(self, batch, draws, call):
        return prediction_sheet(call, "ema", self.context, batch, draws, self.decode)
