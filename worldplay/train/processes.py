"""The processes of a run, started by torchrun: shares, agreement, and networks sharded over them."""
import logging
import os
import time
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from worldplay import runtime
from worldplay.files import lock

log = logging.getLogger(__name__)

# The others wait for the first one wherever it works alone: collecting gameplay, encoding it, walking for the
# context.
PATIENCE = timedelta(hours=24)


class Processes:
    """Process number `rank` of `size`; without torchrun there is one, and nothing here costs anything."""

    def __init__(self, device):
        """device: torch.device by its type; this process takes the one of its own number on the machine."""
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device, self._mesh = device, None
        if self.size > 1:
            self.device = runtime.take_device(device, int(os.environ["LOCAL_RANK"]))
            dist.init_process_group(runtime.collectives(device), timeout=PATIENCE)
            self._mesh = init_device_mesh(device.type, (self.size,))

    @property
    def is_first(self):
        """Whether this process writes what people read: worlds, metrics, pictures, log lines."""
        return self.rank == 0

    def wait(self):
        """Until all are here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(()))

    def first_makes(self, path, make):
        """make() by the first process, unless `path` is there already; the others wait for it, and so does
        another run that shares the folder.
        """
        if self.is_first and not path.exists():
            with _turn(path):
                if not path.exists():
                    make()
        self.wait()

    @contextmanager
    def turn(self, path):
        """Context manager for what makes `path`: runs that share the folder enter it one after another."""
        with _turn(path) if self.is_first else nullcontext():
            self.wait()
            yield

    def agree(self, value):
        """The first process's value, for all; what depends on a clock or a file must not differ."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, src=0, device=torch.device("cpu"))
        return shared[0]

    def mean(self, values):
        """{name: mean over the processes}; all have the same names, and NaN in one is NaN in all."""
        if self.size == 1:
            return values
        shared = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(shared)
        return dict(zip(values, (shared / self.size).tolist()))

    def ranks(self, is_concerned):
        """Numbers of the processes for which it is true."""
        if self.size == 1:
            return [0] if is_concerned else []
        flags = torch.zeros(self.size)
        flags[self.rank] = bool(is_concerned)
        dist.all_reduce(flags)
        return flags.nonzero().flatten().tolist()

    def share(self, count, what):
        """How many of `count` samples are this process's; ValueError naming `what` if there is a rest."""
        if count % self.size:
            raise ValueError(f"{what} {count} on {self.size} processes: expected a multiple of {self.size}")
        return count // self.size

    def shard(self, model, dtype):
        """A network whose forward is `function(model, ...)`, sharded over the processes block by block
        (FSDP2).

        Weights and their gradients' sums stay float32; a block's weights are gathered in `dtype` while it
        works.
        """
        for p in model.parameters():
            p.data = p.data.contiguous()  # FSDP2 takes no channels-last kernels
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32,
                                      cast_forward_inputs=False)
        for block in getattr(model, "blocks", ()):
            fully_shard(block, mesh=self._mesh, mp_policy=policy)
            for method in ("keys_values", "text_keys_values"):
                register_fsdp_forward_method(block, method)
        return fully_shard(Applied(model), mesh=self._mesh, mp_policy=policy)

    def average_buffers(self, model):
        """Average a network's buffers, the running statistics of each process's samples, over all."""
        if self.size > 1:
            for x in model.buffers():
                if x.is_floating_point():
                    dist.all_reduce(x)
                    x /= self.size

    def close(self):
        """Leave the others; called once, at the end."""
        self.wait()  # whoever still talks to one that has left aborts
        if self.size > 1:
            dist.destroy_process_group()


@contextmanager
def _turn(path):
    """Holds the lock of `path`, a file beside it that stays: removed, it would let in two."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "a+b") as file:
        if not (is_free := lock(file)):
            log.info("%s: another run is making it; waiting", path)
        while not is_free:
            time.sleep(0.2)
            is_free = lock(file)
        yield


class Applied(nn.Module):
    """A module whose forward applies a function to `model`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, function, *args, **kwargs):
        return function(self.model, *args, **kwargs)


def full_state(model):
    """The whole state dict of a network, sharded or not; all processes must call it together."""
    return {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in model.state_dict().items()}
