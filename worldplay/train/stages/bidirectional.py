"""Stage `bidirectional`: diffusion on sequences whose frames all see each other, the score of stage `dmd`."""
from dataclasses import dataclass

import torch

from worldplay.diffusion import add_noise, shift_sigma, x0_from_velocity
from worldplay.train.stages.averaged import AveragedStudent, new_transformer
from worldplay.train.stages.context import first_two, sheet_of, whole_sequence
from worldplay.train.stages.losses import flow_matching_loss


@dataclass(frozen=True, kw_only=True)
class BidirectionalConfig:
    """What the score of stage dmd is trained with."""
    null_actions: float = 0.1
    """Share of sequences whose actions are hidden, for guidance."""
    ema: float = 0.998
    """Decay of the averaged weights."""


class BidirectionalStage(AveragedStudent):
    """Flow matching with one noise level for all frames of a sequence, each of which attends to all."""
    name = "bidirectional"

    def __init__(self, config, model, decode, init=None):
        """model: TransformerConfig. init: state dict to start from, of another stage's network.
        decode: latents [n c h w] -> frames uint8 [n H W 3], for the sheet.
        """
        self.config, self.decode = config, decode
        super().__init__(new_transformer(model, init))

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        sigma = shift_sigma(draws.uniform("sigma")).to(latents.device)[:, None].expand(latents.shape[:2])
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        known = draws.uniform("null actions") >= self.config.null_actions
        velocity = whole_sequence(call, role, add_noise(latents, noise, sigma), sigma, batch, known,
                                  is_causal=False)
        return flow_matching_loss(velocity, latents, noise), {}

    def sheet(self, batch, draws, call, num=8, level=0.75):
        """Real frames above what the average makes in one step of them at sigma `level`, two sequences."""
        part, draws = first_two(batch, draws)
        latents = part["latents"]
        sigma = torch.full(latents.shape[:2], level, device=latents.device)
        x = add_noise(latents, draws.normal("noise", *latents.shape[1:]).to(latents.device), sigma)
        velocity = whole_sequence(call, "ema", x, sigma, part, is_causal=False)
        made = x0_from_velocity(x, velocity.float(), sigma)
        return sheet_of(latents[:, -num:], made[:, -num:], self.decode)
