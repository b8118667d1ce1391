"""The one loop that trains every stage: batches, mixed precision, optimizers, exact resume, progress."""
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.func import functional_call

from worldplay import checkpoint, runtime
from worldplay.train.draws import Draws
from worldplay.world import WorldError

log = logging.getLogger(__name__)


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


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how large."""
    batch: int
    """Samples a step."""
    share: float = 0.0
    """Part of a run's time budget, against the shares of the other stages; 0 leaves the stage out."""
    micro_batch: int | None = None
    """Samples of one forward and backward pass; gradients add up over batch / micro_batch passes."""
    steps: int | None = None
    """Ends after so many steps."""
    seconds: float | None = None
    """Ends after so much training time, over all calls together; one of the two is needed."""
    save_every: float = 120.0
    """Seconds between two saves of the training state."""
    sheet_every: float = 180.0
    """Seconds between two contact sheets and validation losses."""
    seed: int = 0
    """Set by the run."""
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self):
        if self.batch % (self.micro_batch or self.batch):
            raise ValueError(f"batch {self.batch} is not a multiple of micro_batch {self.micro_batch}")


class Stage(Protocol):
    """One stage of the chain: its networks and its loss; it touches neither disk nor processes nor other stages.

    name      of the stage
    models    role -> network; all of them are saved
    trained   the roles that have an optimizer -> share of the step size they learn with
    result    the role that the next stage and the player take
    """
    name: str
    models: dict[str, nn.Module]
    trained: dict[str, float]
    result: str

    def turn(self, step: int) -> str:
        """The role whose turn it is at this step."""

    def loss(self, role: str, batch: dict, draws: Draws, call: Callable) -> tuple[torch.Tensor, dict]:
        """(loss of `role`, what to log).

        call(role, *args, method="forward", **kwargs) runs a network in the compute dtype; method may also be
        a function whose first argument is the network.
        """

    def after_step(self, step: int) -> None:
        """What follows an update of the weights, for example moving an average."""

    def sheet(self, batch: dict, draws: Draws):
        """A picture for people, uint8 [H W 3]: the real thing above what the networks make of it."""


class Data(Protocol):
    """Where batches come from; what a batch holds is a function of `draws` alone."""

    def batch(self, draws: Draws, held_out: bool = False) -> dict: ...


class NotFinite(WorldError):
    """A loss or gradient became infinite or NaN; the message names role, step and the last good state."""

    def __init__(self, message):
        super().__init__("not_finite", message)

    def __reduce__(self):
        return type(self), (str(self),)


class Trainer:
    """Runs a Stage to its end, over any number of calls; the same seed gives the same weights however it was cut."""

    def __init__(self, stage, data, config, folder, metrics, device, dtype, after_save=None):
        """after_save: called after every save, for example to renew the world people can play."""
        self.stage, self.data, self.config = stage, data, config
        self.folder, self.metrics = Path(folder), metrics
        self.device, self.dtype, self.after_save = device, dtype, after_save
        self.step, self.spent = 0, 0.0
        assert config.steps or config.seconds, "a stage needs an end: steps or seconds"
        for model in stage.models.values():
            model.to(device)
        self.optimizers = {role: build_optimizers(stage.models[role], config.optim, share)
                           for role, share in stage.trained.items()}
        self._load()

    @property
    def progress(self):
        """How much of the stage is done, 0 to 1: of its steps or of its time, whichever is further."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        by_time = self.spent / self.config.seconds if self.config.seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self, stop_at=math.inf):
        """Train until the stage is done (True) or time.monotonic() passes stop_at (False); saves either way."""
        started = last_save = last_sheet = time.monotonic()
        status, spent_before = _Status(self.stage.name), self.spent
        while self.progress < 1 and time.monotonic() < stop_at:
            logs = self.train_step()
            now = time.monotonic()
            self.spent = spent_before + now - started
            status.add(logs, self.config.batch)
            if status.due(now):
                self.metrics.write(self.stage.name, self.step, status.flush(self, now))
            if now - last_sheet > self.config.sheet_every:
                self.validate()
                last_sheet = now
            if now - last_save > self.config.save_every:
                self.save()
                last_save = now
        self.spent = spent_before + time.monotonic() - started
        self.validate()
        self.save()
        return self.progress >= 1

    def train_step(self):
        """One update; returns what to log."""
        role = self.stage.turn(self.step)
        micro = self.config.micro_batch or self.config.batch
        first = self.step * self.config.batch
        logs = {}
        for start in range(first, first + self.config.batch, micro):
            draws = Draws(self.config.seed, self.step, range(start, start + micro))
            loss, extra = self.stage.loss(role, self._to_device(self.data.batch(draws)), draws, self.call)
            share = micro / self.config.batch
            (loss * share).backward()
            for name, x in {f"loss/{role}": loss, **extra}.items():
                logs[name] = logs.get(name, 0.0) + share * float(torch.as_tensor(x).detach())
        norm = self._update(role)
        if not math.isfinite(logs[f"loss/{role}"] + norm):
            raise NotFinite(f"{self.stage.name}: loss {logs[f'loss/{role}']} and gradient norm {norm} of {role} at step "
                            f"{self.step}; last good state: {self.folder / 'state'}. Lower the step size and run again")
        self.stage.after_step(self.step)
        self.step += 1
        return {**logs, f"grad_norm/{role}": norm}

    def call(self, role, *args, method="forward", **kwargs):
        """Run a network of the stage in the compute dtype; gradients reach its float32 weights."""
        model = self.stage.models[role]
        if self.dtype == torch.float32:
            return _Method(model, method)(*args, **kwargs)
        weights = {f"model.{name}": p.to(self.dtype) for name, p in model.named_parameters()}
        return functional_call(_Method(model, method), weights, args, kwargs)

    @torch.no_grad()
    def validate(self):
        """Loss on held-out data and a contact sheet, both with the same draws every time."""
        draws = Draws(self.config.seed, -1, range(self.config.batch))
        batch = self._to_device(self.data.batch(draws, held_out=True))
        for model in self.stage.models.values():
            model.eval()
        role = self.stage.turn(0)
        loss, extra = self.stage.loss(role, batch, draws, self.call)
        values = {f"held_out/loss/{role}": loss, **{f"held_out/{name}": x for name, x in extra.items()}}
        self.metrics.write(self.stage.name, self.step, {name: float(x) for name, x in values.items()})
        picture = self.metrics.picture(self.stage.name, self.step, self.stage.sheet(batch, draws))
        for model in self.stage.models.values():
            model.train()
        log.info("%s step %d: held-out %s; %s", self.stage.name, self.step,
                 " ".join(f"{name.split('/', 1)[1]} {float(x):.4f}" for name, x in values.items()), picture)

    def save(self):
        """Write everything the run needs to go on, atomically."""
        checkpoint.save_state(self.folder / "state", {
            "step": self.step, "spent": self.spent,
            "models": {role: model.state_dict() for role, model in self.stage.models.items()},
            "optimizers": {role: [opt.state_dict() for opt in opts] for role, opts in self.optimizers.items()}})
        if self.after_save:
            self.after_save()

    def _load(self):
        state = checkpoint.load_state(self.folder / "state")
        if state is None:
            return
        self.step, self.spent = state["step"], state["spent"]
        for role, model in self.stage.models.items():
            checkpoint.load_into(model, state["models"][role], f"{self.folder / 'state'} ({role})")
        for role, opts in self.optimizers.items():
            for opt, saved in zip(opts, state["optimizers"][role], strict=True):
                opt.load_state_dict(saved)

    def _update(self, role):
        """Clip, set the step size, step; returns the gradient norm before clipping. Does nothing if it is not finite."""
        parameters = [p for opt in self.optimizers[role] for group in opt.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, self.config.optim.grad_clip))
        if math.isfinite(norm):
            scale = step_size_scale(self.step, self.progress, self.config.optim)
            for opt in self.optimizers[role]:
                for group in opt.param_groups:
                    group["lr"] = group["base_lr"] * scale
                opt.step()
                opt.zero_grad(set_to_none=True)
        return norm

    def _to_device(self, batch):
        return {name: x.to(self.device) for name, x in batch.items()}


def step_size_scale(step, progress, optim):
    """Linear rise over `warmup` steps, constant, linear fall to 0 over the last `decay` of the stage."""
    rise = min(1.0, (step + 1) / max(1, optim.warmup))
    fall = min(1.0, (1 - progress) / optim.decay) if optim.decay else 1.0
    return rise * fall


def build_optimizers(model, config, share=1.0):
    """Muon for the matrices inside blocks when muon_lr is given, AdamW for the rest; [Muon,] AdamW.

    share: of the configured step sizes. The thin matrices of adapters are no weights of a layer: AdamW.

    Source of the split: Jordan et al., Muon (2024): hidden matrices only, not embeddings, heads, gains or biases.
    """
    hidden = {name for name, p in model.named_parameters()
              if config.muon_lr is not None and p.requires_grad and p.ndim == 2 and name.endswith(".weight")
              and ".blocks." in f".{name}"}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if name not in hidden and p.ndim > 1]
    vectors = [p for name, p in named if name not in hidden and p.ndim <= 1]
    adam = torch.optim.AdamW([
        {"params": matrices, "weight_decay": config.weight_decay, "base_lr": share * config.lr},
        {"params": vectors, "weight_decay": 0.0, "base_lr": share * config.lr}], lr=config.lr, betas=config.betas, foreach=True)
    if not hidden:
        return [adam]
    muon = torch.optim.Muon([{"params": [p for name, p in named if name in hidden], "base_lr": share * config.muon_lr}],
                            lr=config.muon_lr, momentum=0.95, weight_decay=0.0)
    return [muon, adam]


@torch.no_grad()
def move_average(average, model, decay):
    """average <- decay * average + (1 - decay) * model, weights and buffers, in place on the device."""
    ours, theirs = average.state_dict(), model.state_dict()
    floating = [name for name, x in ours.items() if x.is_floating_point()]
    torch._foreach_lerp_([ours[name] for name in floating], [theirs[name] for name in floating], 1 - decay)
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])


class _Method(nn.Module):
    """A module whose forward is a method of `model`, by name, or a function of it, so that functional_call can run it."""

    def __init__(self, model, method):
        super().__init__()
        self.model, self.method = model, method

    def forward(self, *args, **kwargs):
        if callable(self.method):
            return self.method(self.model, *args, **kwargs)
        return getattr(self.model, self.method)(*args, **kwargs)


class _Status:
    """Averages of what happened since the last line, every 10 seconds."""
    period = 10.0

    def __init__(self, name):
        self.name = name
        self.sums, self.count, self.samples, self.since = {}, 0, 0, time.monotonic()

    def add(self, logs, samples):
        for name, x in logs.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + x, count + 1)
        self.count += 1
        self.samples += samples

    def due(self, now):
        return now - self.since >= self.period

    def flush(self, trainer, now):
        elapsed = now - self.since
        values = {name: total / count for name, (total, count) in self.sums.items()}
        values |= {"time/step_ms": 1000 * elapsed / self.count, "samples_per_second": self.samples / elapsed,
                   "progress": trainer.progress, "memory/peak_mib": runtime.peak_memory_mib(trainer.device)}
        left = trainer.spent * (1 - trainer.progress) / max(trainer.progress, 1e-9)
        losses = " ".join(f"{name.split('/', 1)[1]} {x:.4f}" for name, x in values.items() if name.startswith("loss/"))
        log.info("%s step %6d  %s  %.1f samples/s  %.0f ms/step  %3.0f %%  left %d:%02d  %.0f MiB", self.name,
                 trainer.step, losses, values["samples_per_second"], values["time/step_ms"],
                 100 * trainer.progress, left // 60, left % 60, values["memory/peak_mib"])
        self.sums, self.count, self.samples, self.since = {}, 0, 0, now
        return values
