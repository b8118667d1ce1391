"""Stage `bidirectional`: diffusion on whole sequences in which every frame sees every other, the score of stage `dmd`."""
import copy
from dataclasses import dataclass

import torch

from worldplay.diffusion import add_noise, shift_sigma, x0_from_velocity
from worldplay.models.transformer import Transformer, TransformerConfig
from worldplay.train.metrics import contact_sheet
from worldplay.train.teacher_forcing import flow_matching_loss
from worldplay.train.trainer import move_average


@dataclass(frozen=True, kw_only=True)
class BidirectionalConfig:
    """model: sizes, latent channels and action channels are set by the run. shift: of the noise schedule.
    null_actions: share of sequences whose actions are hidden, for guidance. ema: decay of the averaged weights.
    """
    model: TransformerConfig
    shift: float = 5.0
    null_actions: float = 0.1
    ema: float = 0.998


class BidirectionalStage:
    """Trains `student` with one noise level for all frames of a sequence; `ema`, its running average, is the result."""
    name, trained, result = "bidirectional", {"student": 1.0}, "ema"

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
        sigma = shift_sigma(draws.uniform("sigma"), self.config.shift).to(latents.device)[:, None].expand(latents.shape[:2])
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        known = draws.uniform("null actions") >= self.config.null_actions
        velocity = whole_sequence(call, role, add_noise(latents, noise, sigma), sigma, batch, known)
        return flow_matching_loss(velocity, latents, noise), {}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], min(self.config.ema, (step + 1) / (step + 10)))

    def sheet(self, batch, draws, num=8):
        """Real frames above what the average makes in one step of their half-noised sequence, two sequences."""
        part = {name: x[:2] for name, x in batch.items()}
        latents = part["latents"]
        sigma = torch.full(latents.shape[:2], 0.75, device=latents.device)
        x = add_noise(latents, draws.normal("noise", *latents.shape[1:])[:2].to(latents.device), sigma)
        velocity = whole_sequence(lambda role, *args, **kwargs: self.models[role](*args, **kwargs), "ema", x, sigma, part)
        made = x0_from_velocity(x, velocity.float(), sigma)
        return contact_sheet([self.decode(frames[-num:]).cpu() for pair in zip(latents, made) for frames in pair])


def whole_sequence(call, role, x, sigma, batch, known=None):
    """Velocity [b t c h w] of network `role` with every frame of x seeing every other.

    known  bool [b]: sequences whose actions are told; None is all. The action before the first frame never is.
    """
    mask = torch.ones(x.shape[:2], dtype=torch.bool) if known is None else known[:, None].repeat(1, x.shape[1])
    mask[:, 0] = False
    return call(role, x, sigma, actions=batch["actions"], action_mask=mask.to(x.device), columns=batch["columns"],
                is_causal=False)
