"""Optimizers of a stage: their numbers, their choice, the step size over a stage, and averages of weights."""
from dataclasses import dataclass

import torch
from torch.distributed.tensor import DTensor

from worldplay import runtime
from worldplay.train.state import replicated


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How the trained roles are optimized."""
    lr: float = 1e-3
    """AdamW's step size, for everything but the matrices below."""
    muon_lr: float | None = None
    """Muon's step size for the weights between hidden layers; None trains them with AdamW too."""
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


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: every direction of a matrix moves by the same step size.

    A kernel of a convolution is the matrix [out, in * rows * columns]. Sharded matrices are whole on every
    process while they are orthogonalised, their momenta too. It computes in bfloat16, whatever the compute
    dtype, where the hardware multiplies that: two sums that differ in their last bit then give updates that
    differ in the third digit. Elsewhere, in float32, because emulated bfloat16 took 50 times as long (AVX2).

    Source: Jordan et al., Muon (2024); on matrices the same as torch.optim.Muon, which refuses kernels.
    """
    replicated_state = ("momentum_buffer",)

    def __init__(self, groups, lr, momentum=0.95):
        """groups: of parameters with two dimensions or more; lr, momentum: of groups that have none."""
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, replicated(p.grad), group["lr"], group["momentum"])

    def _update(self, p, grad, lr, momentum):
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        average = state["momentum_buffer"]
        average.lerp_(grad, 1 - momentum)
        direction = grad.lerp(average, momentum).flatten(1)  # Nesterov's momentum
        update = orthogonalised(direction.to(runtime.pick_dtype(p.device)[0]))
        rows, columns = update.shape
        p.add_(update.view(p.shape), alpha=-lr * max(1.0, rows / columns)**0.5)


def orthogonalised(matrix, steps=5):
    """About U V^T of a matrix U S V^T [n m], in its number type: its singular values are moved towards 1.

    Newton-Schulz iteration of fifth order, with the published coefficients: they raise small values fast and
    leave them between 0.7 and 1.2.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x.T if is_tall else x


def step_size_scale(step, progress, optim):
    """Linear rise over `warmup` steps, constant, linear fall to 0 over the last `decay` of the stage."""
    rise = min(1.0, (step + 1) / max(1, optim.warmup))
    fall = min(1.0, (1 - progress) / optim.decay) if optim.decay else 1.0
    return rise * fall


def build_optimizers(model, config, share=1.0):
    """Muon for a network's hidden weights when muon_lr is given, AdamW for the rest; [Muon,] AdamW.

    model  has `hidden_weights`, names of the weights between two hidden layers
    share  of the configured step sizes

    Adapters are no weights of a layer: AdamW.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    hidden = named.keys() & set(model.hidden_weights) if config.muon_lr is not None else set()
    rest = [p for name, p in named.items() if name not in hidden]
    adam = torch.optim.AdamW([
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay,
         "base_lr": share * config.lr},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "base_lr": share * config.lr}],
        lr=config.lr, betas=config.betas, foreach=True)
    if not hidden:
        return [adam]
    matrices = [p for name, p in named.items() if name in hidden]
    return [Muon([{"params": matrices, "base_lr": share * config.muon_lr}], config.muon_lr), adam]


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
