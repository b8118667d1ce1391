"""Stage `teacher_forcing`: autoregressive diffusion on [clean ; noisy] sequences, the AR teacher of the chain."""
import copy
from dataclasses import dataclass

import torch

from worldplay.diffusion import add_noise, shift_sigma, velocity_target, x0_from_velocity
from worldplay.models.transformer import Transformer, TransformerConfig
from worldplay.train.losses import squared_errors
from worldplay.train.metrics import contact_sheet
from worldplay.train.trainer import move_average


def flow_matching_loss(velocity, x0, noise, weight=None, mask=None):
    """Mean squared error of the predicted velocity, [b t c h w] each; weight and mask as for `squared_errors`.

    The stages here leave out the published weight, which is zero at sigma 1: a few-step student starts there, where
    the next frame has to come from the past and the action alone.
    """
    return squared_errors(velocity, velocity_target(x0, noise), weight, mask).mean()


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """How the clean half is spoiled, so that the player's own frames are familiar ground (against drift)."""
    window: int = 8
    """Frames attended to: sink + past + the one being made; as in play."""
    sink: int = 0
    """First frames of a sequence that stay in view, counted in the window."""
    max_sigma: float = 0.5
    """Each context frame is noised with its own sigma in [0, max_sigma], told by its timestep."""
    own_frames: float = 0.5
    """Share of context frames that are the network's own one-step predictions, in own_steps of the steps."""
    own_steps: float = 0.4
    """Share of the training steps with own frames; each costs another forward pass."""
    null_actions: float = 0.05
    """Share of frames whose action is hidden; the first of a sequence always is."""


@dataclass(frozen=True, kw_only=True)
class TeacherForcingConfig:
    """model: sizes, latent channels and action channels are set by the run. shift: of the noise schedule.
    ema: decay of the averaged weights.
    """
    model: TransformerConfig
    context: ContextConfig = ContextConfig()
    shift: float = 5.0
    ema: float = 0.998


class Context:
    """The spoiled clean half of a batch and everything that conditions on it; the same for every causal stage."""

    def __init__(self, config, batch, draws):
        latents = batch["latents"]
        b, t = latents.shape[:2]
        device = latents.device
        self.config, self.latents = config, latents
        self.sigma = config.max_sigma * draws.uniform("context sigma", t).to(device).square()
        self.noise = draws.normal("context noise", *latents.shape[1:]).to(device)
        self.is_own = draws.uniform("own frames", t).to(device) < config.own_frames
        known = draws.uniform("null actions", t) >= config.null_actions
        known[:, 0] = False
        self.conditions = {"actions": batch["actions"], "action_mask": known.to(device), "columns": batch["columns"],
                           "window": config.window, "sink": config.sink}

    def spoil(self, call, role, draws):
        """Choose and noise the context frames; network `role` makes its own ones in one step from noise."""
        frames = self.latents
        if draws.shared_uniform("own step") < self.config.own_steps:
            with torch.no_grad():
                start = draws.normal("own frames start", *frames.shape[1:]).to(frames.device)
                ones = torch.ones(frames.shape[:2], device=frames.device)
                self.clean, self.clean_sigma = add_noise(frames, self.noise, self.sigma), self.sigma
                own = x0_from_velocity(start, self.predict(call, role, start, ones).float(), ones)
            frames = torch.where(self.is_own[:, :, None, None, None], own, frames)
        self.clean, self.clean_sigma = add_noise(frames, self.noise, self.sigma), self.sigma
        return self

    def keep(self):
        """Leave the context as it is, real and without noise."""
        self.clean, self.clean_sigma = self.latents, torch.zeros_like(self.sigma)
        return self

    def predict(self, call, role, noisy, sigma):
        """Velocity [b t c h w] of network `role` at sigma [b t] given this context."""
        return call(role, noisy, sigma, clean=self.clean, clean_sigma=self.clean_sigma, **self.conditions)


class TeacherForcingStage:
    """Trains `student`; `ema`, its running average, is the AR teacher."""
    name, trained, result = "teacher_forcing", {"student": 1.0}, "ema"

    def __init__(self, config, decode, init=None):
        """decode: latents [n c h w] -> frames uint8 [n H W 3], for the sheet. init: state dict to start from."""
        self.config, self.decode = config, decode
        student = Transformer(config.model)
        if init is not None:
            student.load_state_dict(init)
        self.models = {"student": student, "ema": copy.deepcopy(student).requires_grad_(False)}

    def turn(self, step):
        return "student"

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        context = Context(self.config.context, batch, draws).spoil(call, role, draws)
        sigma = shift_sigma(draws.uniform("sigma", latents.shape[1]), self.config.shift).to(latents.device)
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        velocity = context.predict(call, role, add_noise(latents, noise, sigma), sigma)
        return flow_matching_loss(velocity, latents, noise), {}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], min(self.config.ema, (step + 1) / (step + 10)))

    def sheet(self, batch, draws):
        return prediction_sheet(self.models["ema"], self.config.context, batch, draws, self.decode)


def prediction_sheet(model, context_config, batch, draws, decode, num=8):
    """Real frames above the one-step predictions of `model` from real context, two sequences; uint8 [H W 3]."""
    part = {name: x[:2] for name, x in batch.items()}
    draws = type(draws)(draws.seed, draws.step, draws.indices[:2])

    def call(role, *args, **kwargs):
        return model(*args, **kwargs)
    context = Context(context_config, part, draws).keep()
    noise = draws.normal("noise", *part["latents"].shape[1:]).to(part["latents"].device)
    ones = torch.ones_like(context.sigma)
    made = x0_from_velocity(noise, context.predict(call, "ema", noise, ones).float(), ones)
    rows = []
    for real, dream in zip(part["latents"], made):
        rows += [decode(real[-num:]).cpu(), decode(dream[-num:]).cpu()]
    return contact_sheet(rows)
