"""Low-rank adapters on a trained transformer's attention, which merge into its published weights."""
import torch
from torch import nn
from torch.nn import functional as F

from worldplay.models.block import CrossAttention, SelfAttention

ACTION_PATH = ("action_embedding.", "null_action")


class LowRank(nn.Module):
    """A trained linear layer that stays as it is, plus a product of two thin matrices that learn.

    It has the `weight` and `bias` of the layer it stands for. The product starts as zero, exactly; it learns
    where the layer learned.

    Source: Hu et al., LoRA, arXiv:2106.09685; its factor alpha / rank is 1 here, the step size says as much.
    """

    def __init__(self, linear, rank, generator):
        super().__init__()
        learns, (width_out, width_in) = linear.weight.requires_grad, linear.weight.shape
        self.base = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, width_in, generator=generator) / width_in**0.5, learns)
        self.up = nn.Parameter(torch.zeros(width_out, rank), learns)

    @property
    def weight(self):
        return self.base.weight + self.up @ self.down

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


def add_adapters(model, rank, generator):
    """Let a Transformer learn by adapters on its attention's linear layers, and by its whole action path.

    All else is frozen, in place; what it predicts does not change. A frozen model, such as a running average,
    stays frozen. Returns the model. generator: torch.Generator of the matrices that do not start as zero.
    """
    kept = set()
    attentions = [module for module in model.modules() if isinstance(module, (SelfAttention, CrossAttention))]
    for attention in attentions:
        layers = ("q", "k", "v", "o", "prope_o")
        for name in (name for name in layers if getattr(attention, name, None) is not None):
            adapted = LowRank(getattr(attention, name), rank, generator)
            setattr(attention, name, adapted)
            kept |= {adapted.down, adapted.up}
    for name, p in model.named_parameters():
        if not name.startswith(ACTION_PATH) and p not in kept:
            p.requires_grad_(False)
    return model


def merged_weights(tensors):
    """A state dict whose adapters, if it has any, are added to the weights they stand beside."""
    merged = dict(tensors)
    for name in [key.removesuffix(".up") for key in tensors if key.endswith(".up")]:
        parts = {part: merged.pop(f"{name}.{part}") for part in ("base.weight", "base.bias", "up", "down")}
        merged[f"{name}.weight"] = parts["base.weight"] + parts["up"] @ parts["down"]
        merged[f"{name}.bias"] = parts["base.bias"]
    return merged
