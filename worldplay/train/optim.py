"""Optimizers of a stage: their numbers, their choice, the step size over a stage, and averages of weights."""
from dataclasses import dataclass

import torch
from torch.distributed.tensor import DTensor

from worldplay.train.state import replicated


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the trained roles are optimized."""
    lr: float = 1e-3
    """AdamW's step size, for everything but the matrices below."""
    muon_lr: float | None = None
    """Muon's step size for the two-dimensional weights inside blocks; None trains them with AdamW too."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates."""
    weight_decay: float = 0.01
    """Of AdamW, on matrices and kernels only."""
    grad_clip: float = 1.0
    """Largest norm of the whole gradient."""
    warmup: int = 50
    """Steps of linear rise."""
    decay: float = 0.4
    """Last part of the stage, as a fraction of it, over which the step size falls linearly to 0."""


class Muon(torch.optim.Muon):
    """PyTorch's, of sharded matrices too: their gradients and momenta are whole on every process.

    It orthogonalises a whole matrix, in bfloat16, whatever the compute dtype: two sums that differ in their
    last bit give updates that differ in the third digit.
    """
    replicated_state = ("momentum_buffer",)

    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad = replicated(p.grad)
        super().step()


def step_size_scale(step, progress, optim):
    """Linear rise over `warmup` steps, constant, linear fall to 0 over the last `decay` of the stage."""
    rise = min(1.0, (step + 1) / max(1, optim.warmup))
    fall = min(1.0, (1 - progress) / optim.decay) if optim.decay else 1.0
    return rise * fall


def build_optimizers(model, config, share=1.0):
    """Muon for the matrices inside blocks when muon_lr is given, AdamW for the rest; [Muon,] AdamW.

    share: of the configured step sizes. The thin matrices of adapters are no weights of a layer: AdamW.

    Source of the split: Jordan et al., Muon (2024): hidden matrices only, neither embeddings nor heads nor
    gains nor biases.
    """
    hidden = {name for name, p in model.named_parameters()
              if config.muon_lr is not None and p.requires_grad and p.ndim == 2 and name.endswith(".weight")
              and ".blocks." in f".{name}"}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if name not in hidden and p.ndim > 1]
    vectors = [p for name, p in named if name not in hidden and p.ndim <= 1]
    adam = torch.optim.AdamW([
        {"params": matrices, "weight_decay": config.weight_decay, "base_lr": share * config.lr},
        {"params": vectors, "weight_decay": 0.0, "base_lr": share * config.lr}],
        lr=config.lr, betas=config.betas, foreach=True)
    if not hidden:
        return [adam]
    muon = Muon([{"params": [p for name, p in named if name in hidden], "base_lr": share * config.muon_lr}],
                lr=config.muon_lr, momentum=0.95, weight_decay=0.0)
    return [muon, adam]


@torch.no_grad()
def move_average(average, model, decay):
    """average <- decay * average + (1 - decay) * model, weights and buffers, in place on the device."""
    ours, theirs = ({name: x.to_local() if isinstance(x, DTensor) else x
                     for name, x in network.state_dict().items()}
                    for network in (average, model))
    floating = [name for name, x in ours.items() if x.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])


def early_decay(decay, step):
    """`decay` of an average, smaller over the first steps: short stages must not ship initial weights."""
    return min(decay, (step + 1) / (step + 10))
