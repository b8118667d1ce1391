"""The one loop that trains every stage: batches, mixed precision, optimizers, exact resume, progress."""
import logging
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from worldplay.cores import OtherPrograms
from worldplay.engine.threads import choose_threads
from worldplay.errors import WorldError
from worldplay.train.deadline import Deadline
from worldplay.train.optim import OptimConfig, build_optimizers, step_size_scale
from worldplay.train.processes import Applied
from worldplay.train.progress import Progress
from worldplay.train.stages.draws import HELD_OUT, Draws, PlacedDraws
from worldplay.train.state import load_state, save_state

log = logging.getLogger(__name__)

FEW_STEPS = 200  # with less a stage learns little: its step size has hardly risen before it falls
PLANNED_AFTER = 0.1  # part of a stage's seconds after which its number of steps is fixed
_PLANNED_PACE = 0.95  # of the measured pace, so that a steady machine ends by steps and not by the clock
_SHOWN = 8  # samples that a contact sheet may show


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Batch sizes, length, save intervals and optimizer of one stage."""
    batch: int
    """Samples a step."""
    share: float = 0.0
    """Part of a run's time budget, against the shares of the other stages; 0 leaves the stage out."""
    micro_batch: int | None = None
    """Samples of a forward and backward pass of a process, whose gradients add up; None: all in one pass."""
    checkpoint_activations: bool = False
    """Keep only each block's inputs and compute the block again in the backward pass: saves memory."""
    steps: int | None = None
    """Ends after so many steps."""
    seconds: float | None = None
    """Ends after so much training time, over all calls together; one of the two is needed, of both the first
    ends it. Over the first PLANNED_AFTER of it the pace is measured, which fixes the number of steps."""
    save_every: float = 120.0
    """Seconds between two saves of the training state."""
    sheet_every: float = 180.0
    """Seconds between two contact sheets and validation losses."""
    seed: int = 0
    """Set by the run."""
    optim: OptimConfig = field(default_factory=OptimConfig)


class Stage(Protocol):
    """One stage of the chain: its networks and its loss; it knows no disk, no processes and no other stage.

    Its loss also runs on the meta device, where tensors have no values, so that its work can be counted.

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

        call(role, function, *args, **kwargs) gives function(network, *args, **kwargs) in the compute dtype; a
        network is used in no other way, because its weights may be spread over processes.
        """

    def after_step(self, step: int) -> None:
        """What follows an update of the weights, for example moving an average."""

    def sheet(self, batch: dict, draws: Draws, call: Callable):
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
    """Runs a Stage to its end, over any number of calls; the same seed gives the same weights in any case.

    A stage of so many seconds measures its pace over the first tenth of them and fixes its number of steps by
    it, kept in the saved state: the step size falls by steps, so that from there on it does not matter how
    the run was cut. Only on a machine that slows down later the clock ends the stage before its steps do.

    On a processor the number of torch's threads follows what other programs use, and changes at saves alone.
    The order of sums depends on it, so weights are the same bit for bit where the numbers are.

    Of several processes each makes its part of every batch; networks, optimizers and saved states are spread
    over them (FSDP2), and only the first one writes metrics and pictures.
    """
    _cast_role = None  # whose weights are in the compute dtype right now

    def __init__(self, stage, data, config, folder, metrics, processes, dtype, before_save=None):
        """processes: worldplay.train.processes.Processes. before_save: called by all processes before every
        save, to renew the world people can play: a state that says the stage is done is never without the
        world it made.

            Raises ValueError where the batch cannot be divided, WorldError where a saved state does not fit.
        """
        self.stage, self.data, self.config = stage, data, config
        self.folder, self.metrics = Path(folder), metrics
        self.processes, self.device, self.dtype = processes, processes.device, dtype
        self.before_save = before_save
        self.step, self.spent, self.planned = 0, 0.0, None  # planned: steps of a stage of so many seconds
        self.samples = processes.share(config.batch, f"stage {stage.name}: batch")
        self.micro = config.micro_batch or self.samples
        if self.samples % self.micro:
            raise ValueError(f"stage {stage.name}: a process's {self.samples} samples of a batch are no "
                             f"multiple of micro_batch {self.micro}")
        self.status = Progress(self)  # before the networks are spread
        for model in stage.models.values():
            model.to(self.device)
        self._applied = {role: processes.shard(model, dtype) if processes.size > 1 else Applied(model)
                         for role, model in stage.models.items()}
        self.optimizers = {role: build_optimizers(stage.models[role], config.optim, share)
                           for role, share in stage.trained.items()}
        counters = load_state(self.folder / "state", stage.models, self.optimizers, processes)
        if counters:
            self.step, self.spent = int(counters["step"]), counters["spent"]
            self.planned = int(counters.get("planned", 0)) or None

    @property
    def progress(self):
        """How much of the stage is done, 0 to 1: of its steps or of its time, whichever is further."""
        ends = [done / end for done, end in ((self.step, self.config.steps), (self.step, self.planned),
                                             (self.spent, self.config.seconds)) if end]
        return min(1.0, max(ends, default=0.0))

    def run(self, deadline=None):
        """Train until the stage is done (True) or a Deadline passes (False), then save."""
        assert self.config.steps or self.config.seconds, "a stage needs an end: steps or seconds"
        deadline = deadline or Deadline()
        with deadline.awaited():
            return self._run(deadline)

    def _run(self, deadline):
        def clock():
            now = time.monotonic()
            return self.processes.agree((now, deadline.passed(now)))
        started, is_over = clock()
        last_save = last_sheet = started
        spent_before, others = self.spent, OtherPrograms()

        def save():
            self.save()
            choose_threads(self.device, others)
        while self.progress < 1 and not is_over:
            logs = self.train_step()
            now, is_over = clock()
            self.spent = spent_before + now - started
            self.status.add(logs)
            if self.processes.is_first and self.status.due(now):
                self.metrics.write(self.stage.name, self.step, self.status.flush(now))
            if now - last_sheet > self.config.sheet_every:
                self.validate()
                last_sheet = now
            if now - last_save > self.config.save_every or self._plan():
                save()
                last_save = now
        self.spent = spent_before + clock()[0] - started
        save()
        self.validate()  # after it: a save settles the codec that the last picture shows
        return self.progress >= 1

    def _plan(self):
        """Whether the number of steps was fixed just now, by the pace so far."""
        seconds = self.config.seconds
        if self.planned or not seconds or not PLANNED_AFTER <= self.spent / seconds < 1:
            return False
        self.planned = self.step + math.ceil(_PLANNED_PACE * self.step * (seconds - self.spent) / self.spent)
        log.info("%s: %d steps, by the pace of the first %d", self.stage.name, self.planned, self.step)
        if self.planned < FEW_STEPS:
            needed = FEW_STEPS * self.spent / self.step / seconds
            log.warning("%s: so few steps show that everything runs and teach little; for %d of them give "
                        "%.0f times the time (--budget)", self.stage.name, FEW_STEPS, math.ceil(needed))
        return True

    def warm_up(self):
        """Run every kind of pass once and change nothing: what compiles does so before the clock starts."""
        for role in self.stage.trained:
            for part in (0.0, 0.9):  # what a whole batch draws decides which passes there are
                draws = PlacedDraws(part, range(self.micro))
                with self._cast(role):
                    loss, _ = self.stage.loss(role, self._to_device(self.data.batch(draws)), draws, self.call)
                    loss.backward()
        for model in self.stage.models.values():
            model.zero_grad(set_to_none=True)
        self._held_out()

    def train_step(self):
        """One update; returns what to log."""
        role = self.stage.turn(self.step)
        first = self.step * self.config.batch + self.processes.rank * self.samples
        logs = {}
        for start in range(first, first + self.samples, self.micro):
            self._sum_gradients(role, start + self.micro == first + self.samples)
            draws = Draws(self.config.seed, self.step, range(start, start + self.micro))
            share = self.micro / self.samples  # over processes gradients are averaged, within one they add up
            with self._cast(role):
                loss, extra = self.stage.loss(role, self._to_device(self.data.batch(draws)), draws, self.call)
                (loss * share).backward()
            for name, x in {f"loss/{role}": loss, **extra}.items():
                logs[name] = logs.get(name, 0.0) + share * float(torch.as_tensor(x).detach())
        own_loss = logs[f"loss/{role}"]
        norm, logs = self._update(role), self.processes.mean(logs)
        if not math.isfinite(logs[f"loss/{role}"] + norm):
            ranks = self.processes.ranks(not math.isfinite(own_loss))
            raise NotFinite(f"{self.stage.name}: loss {logs[f'loss/{role}']} and gradient norm {norm} of "
                            f"{role} at step {self.step}, {_where(ranks)}; last good state: "
                            f"{self.folder / 'state'}. Lower the step size and run again")
        self.processes.average_buffers(self.stage.models[role])
        self.stage.after_step(self.step)
        self.step += 1
        return {**logs, f"grad_norm/{role}": norm}

    def call(self, role, function, *args, **kwargs):
        """function(network, *args, **kwargs) in the compute dtype; gradients reach the float32 weights."""
        applied = self._applied[role]
        if self.processes.size > 1 or self.dtype == torch.float32 or role == self._cast_role:
            return applied(function, *args, **kwargs)
        weights = {name: p.to(self.dtype) for name, p in applied.named_parameters()}
        return functional_call(applied, weights, (function, *args), kwargs)

    @contextmanager
    def _cast(self, role):
        """Inside, the weights of `role` are in the compute dtype: blocks that are computed again on the way
        back, after `call` has returned, must find them so.
        """
        if self.processes.size > 1 or self.dtype == torch.float32:
            yield
            return
        held = [(module, name, p) for module in self.stage.models[role].modules()
                for name, p in module.named_parameters(recurse=False)]
        for module, name, p in held:
            module._parameters[name] = p.to(self.dtype)
        self._cast_role = role
        try:
            yield
        finally:
            self._cast_role = None
            for module, name, p in held:
                module._parameters[name] = p

    def validate(self):
        """Write the loss on held-out data and a contact sheet, both with the same draws every time."""
        values, sheet = self._held_out()
        if self.processes.is_first:
            self.metrics.write(self.stage.name, self.step, values)
            picture = self.metrics.picture(self.stage.name, self.step, sheet)
            log.info("%s step %d: held-out %s; %s", self.stage.name, self.step,
                     " ".join(f"{name.split('/', 1)[1]} {x:.3g}" for name, x in values.items()), picture)

    @torch.no_grad()
    def _held_out(self):
        """({name: value}, contact sheet) on held-out data."""
        def held_out(indices):
            draws = Draws(self.config.seed, HELD_OUT, indices)
            return self._to_device(self.data.batch(draws, held_out=True)), draws
        for model in self.stage.models.values():
            model.eval()
        role, batch, values = self.stage.turn(0), self.config.batch, {}
        for start in range(0, batch, self.micro):  # no more at once than in training
            loss, extra = self.stage.loss(role, *held_out(range(start, start + self.micro)), self.call)
            for name, x in {f"loss/{role}": loss, **extra}.items():
                key = f"held_out/{name}"
                values[key] = values.get(key, 0.0) + float(x) * self.micro / batch
        sheet = self.stage.sheet(*held_out(range(min(_SHOWN, batch))), self.call)
        for model in self.stage.models.values():
            model.train()
        return values, sheet

    def save(self):
        """Write everything the run needs to go on, atomically."""
        if self.before_save:
            self.before_save()
        counters = {"step": self.step, "spent": self.spent, "planned": self.planned or 0}
        save_state(self.folder / "state", counters, self.stage.models, self.optimizers, self.processes)

    def _sum_gradients(self, role, is_last):
        """Sum the gradients of the next backward pass over the processes if it is the last one of a step."""
        if self.processes.size > 1:
            self._applied[role].set_requires_gradient_sync(is_last)

    def _update(self, role):
        """Clip, set the step size, step; returns the norm before clipping, at once where it is not finite."""
        parameters = [p for opt in self.optimizers[role] for group in opt.param_groups
                      for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.optim.grad_clip)
        norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
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


def _where(ranks):
    return f"on rank {', '.join(map(str, ranks))}" if ranks else "in the gradient alone"
