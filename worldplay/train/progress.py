"""The trainer's progress line: losses, frames a second, operations against the machine's ceiling."""
import logging
import math
import time
from collections import Counter

import torch

from worldplay import runtime
from worldplay.eval.latency import matmul_tflops
from worldplay.train.stages.draws import Draws
from worldplay.train.work import on_meta, over_shared_draws, step_flops

log = logging.getLogger(__name__)


class Progress:
    """Averages of what happened since the last line, every 10 seconds.

    Operations are counted on a copy of the stage without values, never in a step that trains: weights and
    random numbers stay as they are. That, and the ceiling, wait until the first line is due.
    """
    period = 10.0

    def __init__(self, trainer):
        """trainer: a Trainer whose networks are not sharded yet."""
        self.trainer, self.twin = trainer, on_meta(trainer.stage, trainer.dtype)
        self.flops, self.frames_per_sample, self.ceiling, self.can_count = {}, math.nan, math.nan, True
        self._restart(time.monotonic())

    def add(self, logs):
        """Add the step that the trainer has just finished to the averages; logs: its {name: float}."""
        for name, x in logs.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + x, count + 1)
        self.turns[self.trainer.stage.turn(self.trainer.step - 1)] += 1

    def due(self, now):
        return now - self.since >= self.period

    def flush(self, now):
        """The line to the log; returns its numbers, keys with units, and begins anew.

        Numbers that could not be found are NaN.

        gflops          10^9 operations of losses and gradients a second, blocks computed again left out
        ceiling_gflops  what this machine reaches on a large matrix product in that dtype, measured once,
                        times the number of processes
        """
        trainer, elapsed = self.trainer, now - self.since
        self._measure()
        steps = self.turns.total()
        samples = steps * trainer.config.batch / elapsed
        gflops = sum(n * self.flops.get(role, math.nan) for role, n in self.turns.items()) / elapsed / 1e9
        values = {name: total / count for name, (total, count) in self.sums.items()} | {
            "time/step_ms": 1000 * elapsed / steps, "samples_per_second": samples,
            "frames_per_second": samples * self.frames_per_sample, "gflops": gflops,
            "ceiling_gflops": self.ceiling, "progress": trainer.progress,
            "memory/peak_mib": runtime.peak_memory_mib(trainer.device), "threads": torch.get_num_threads()}
        left = trainer.spent * (1 - trainer.progress) / max(trainer.progress, 1e-9)
        # what a stage measures beside its loss tells more than it: a consistency loss has no scale of its own
        losses = " ".join(f"{name.removeprefix('loss/')} {values[name]:.3g}" for name in self.sums
                          if not name.startswith("grad_norm/"))
        log.info("%s step %6d  %s  %.1f frames/s  %.0f ms/step  %.0f of %.0f GFLOP/s (%.0f %%)  "
                 "%3.0f %% done  left %d:%02d  %.0f MiB", trainer.stage.name, trainer.step, losses,
                 values["frames_per_second"], values["time/step_ms"], gflops, self.ceiling,
                 100 * gflops / self.ceiling, 100 * trainer.progress, left // 60, left % 60,
                 values["memory/peak_mib"])
        self._restart(now)
        return values

    def _restart(self, now):
        self.sums, self.turns, self.since = {}, Counter(), now

    def _measure(self):
        """Count what has not been counted. A failure costs these figures and never the run, whatever it
        is.
        """
        if self.can_count:
            try:
                self._count()
            except Exception as error:
                self.can_count = False
                log.warning("%s: operations cannot be counted, training goes on without that figure (%s: %s)",
                            self.trainer.stage.name, type(error).__name__, str(error).partition("\n")[0])
                log.debug("counting failed", exc_info=error)

    def _count(self):
        """Measure the ceiling and count the operations of the roles, where that has not been done."""
        trainer = self.trainer
        if math.isnan(self.ceiling):
            self.ceiling = 1000 * trainer.processes.size * matmul_tflops(trainer.device, trainer.dtype,
                                                                         repeats=5)
        for role in self.turns.keys() - self.flops.keys():
            micro = trainer.micro
            batch = trainer.data.batch(Draws(trainer.config.seed, 0, range(micro)))
            self.frames_per_sample = batch["latents"].shape[1] if "latents" in batch else 1
            passes = over_shared_draws(lambda draws: step_flops(self.twin, role, batch, draws)[0], micro)
            self.flops[role] = trainer.config.batch // micro * sum(passes) / len(passes)
