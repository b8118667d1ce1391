"""Stage `teacher_forcing`: autoregressive diffusion on [clean ; noisy] sequences, the chain's AR teacher."""
from dataclasses import dataclass
from functools import partial

from worldplay.diffusion import add_noise, shift_sigma
from worldplay.train.stages.averaged import AveragedStudent, new_transformer
from worldplay.train.stages.context import Context, prediction_sheet
from worldplay.train.stages.losses import flow_matching_loss


@dataclass(frozen=True, kw_only=True)
class TeacherForcingConfig:
    """What the AR teacher is trained with, beside its context."""
    ema: float = 0.998
    """Decay of the averaged weights."""


class TeacherForcingStage(AveragedStudent):
    """Flow matching of every frame given the clean frames before it; the average is the AR teacher."""
    name = "teacher_forcing"

    def __init__(self, config, model, context, decode, init=None):
        """model: TransformerConfig. context: ContextConfig. init: state dict to start from.
        decode: latents [n c h w] -> frames uint8 [n H W 3], for the sheet.
        """
        self.config, self.context, self.decode = config, context, decode
        super().__init__(new_transformer(model, init))

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        context = Context(self.context, batch, draws).augment(call, role, draws)
        sigma = self.context.per_chunk(partial(draws.uniform, "sigma"), latents.shape[1])
        sigma = shift_sigma(sigma).to(latents.device)
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        velocity = context.predict(call, role, add_noise(latents, noise, sigma), sigma)
        return flow_matching_loss(velocity, latents, noise), {}

    def sheet(self, batch, draws, call):
        return prediction_sheet(call, "ema", self.context, batch, draws, self.decode)
