"""What one step of a stage costs in arithmetic and memory, counted on networks without values."""
import copy
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worldplay.engine.cost import FusedAttention, flop_counter
from worldplay.engine.networks import META
from worldplay.models.transformer import Transformer
from worldplay.train.stages.draws import PlacedDraws


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes of one forward and backward pass, weights and their gradients' total left out.

    kept             tensors that the graph keeps for its backward pass
    peak             most of all tensors alive at one moment
    kept_recomputed  what is kept when every block keeps its inputs alone, and one block computed again
    peak_recomputed  most alive then
    """
    kept: int
    peak: int
    kept_recomputed: int
    peak_recomputed: int


def on_meta(stage, dtype=None):
    """The same stage on networks without values; dtype: of the weights, None keeps theirs.

    Its blocks keep their activations: what computing them again adds is counted from one pass, not by running it.
    """
    twin = copy.copy(stage)
    twin.models = {role: _without_values(model, dtype) for role, model in stage.models.items()}
    for model in _transformers(twin):
        model.checkpoint_activations = False
    return twin


def step_flops(stage, role, batch, draws):
    """(operations of loss and backward, those among them of the blocks' forward passes that have a gradient).

    stage  from `on_meta`; batch: tensors, of which only shapes and dtypes are used
    A multiplication and an addition count two; of attention only what is seen counts. The second number is
    what activation checkpointing adds. Blocks are alike: where all networks have as many, more than two, one
    and two of them are run, and the others count like the second.
    """
    for model in _transformers(stage):
        model.causal_attention = "chunks"
    depths = {len(model.blocks) for model in stage.models.values() if hasattr(model, "blocks")}
    if len(depths) != 1 or max(depths) < 3:
        return _flops(stage, role, batch, draws)
    one, two = (_flops(_shallow(stage, layers), role, batch, draws) for layers in (1, 2))
    return tuple(a + (max(depths) - 1) * (b - a) for a, b in zip(one, two))


def over_shared_draws(run, num_samples):
    """[run(draws), ...] over what a whole batch draws at once, such as an exit step; the mean of many steps.

    run  takes Draws without values, the same shapes as real ones
    """
    results, parts = [], [0.1, 0.3, 0.5, 0.7, 0.9]
    while parts:
        draws = PlacedDraws(parts.pop(0), range(num_samples))
        results.append(run(draws))
        if "uniform" not in draws.shared:  # work grows evenly with an exit step: first and last tell the mean
            parts = parts[-1:] if draws.shared else []
    return results


def _transformers(stage):
    return [model for model in stage.models.values() if isinstance(model, Transformer)]


def _shallow(stage, num_layers):
    """The same stage on the first blocks of its networks."""
    twin = copy.copy(stage)
    twin.models = {role: copy.copy(model) for role, model in stage.models.items()}
    for model in twin.models.values():
        model._modules = {**model._modules, "blocks": model.blocks[:num_layers]}
    return twin


def _flops(stage, role, batch, draws):
    forward = []
    with flop_counter() as counter, _around_blocks(
            stage, lambda *_: forward.append(-counter.get_total_flops()),
            lambda *_: forward.append(counter.get_total_flops())):
        _pass(stage, role, batch, draws)
    return counter.get_total_flops(), sum(forward)


def step_memory(stage, role, batch, draws):
    """StepMemory; arguments as for `step_flops`."""
    with _Memory(stage) as memory, _around_blocks(stage, memory.enter_block, memory.leave_block):
        _pass(stage, role, batch, draws)
    return StepMemory(kept=memory.most_kept, peak=memory.most_alive, peak_recomputed=memory.most_recomputed,
                      kept_recomputed=memory.most_outside + memory.largest_block)


def _pass(stage, role, batch, draws):
    def call(role, function, *args, **kwargs):
        return function(stage.models[role], *args, **kwargs)
    batch = {name: torch.empty_like(x, device=META) for name, x in batch.items()}
    with _gradients_dropped(stage), FusedAttention():
        stage.loss(role, batch, draws, call)[0].backward()


def _without_values(model, dtype):
    """A copy of a network on the meta device; its weights are never copied."""
    memo = {}
    for p in model.parameters():
        memo[id(p)] = torch.nn.Parameter(torch.empty_like(p, device=META, dtype=dtype), p.requires_grad)
    for x in model.buffers():
        memo[id(x)] = torch.empty_like(x, device=META)
    return copy.deepcopy(model, memo)


@contextmanager
def _gradients_dropped(stage):
    """Inside, a weight's gradient goes as soon as it is complete, as when processes share it out."""
    def drop(p):
        p.grad = None
    hooks = [p.register_post_accumulate_grad_hook(drop) for model in stage.models.values()
             for p in model.parameters() if p.requires_grad]
    yield
    for hook in hooks:
        hook.remove()


@contextmanager
def _around_blocks(stage, enter, leave):
    """Inside, enter(block, args) and leave(block, args, out) go around every block whose graph is kept."""
    def only_with_graph(hook):
        return lambda *args: hook(*args) if torch.is_grad_enabled() else None
    blocks = [block for model in stage.models.values() for block in getattr(model, "blocks", ())]
    hooks = [add(only_with_graph(hook)) for block in blocks for add, hook in (
        (block.register_forward_pre_hook, enter), (block.register_forward_hook, leave))]
    yield
    for hook in hooks:
        hook.remove()


class _Memory(TorchDispatchMode):
    """Follows every storage on the networks' device from making to end, and what autograd keeps of them."""

    def __init__(self, stage):
        super().__init__()
        weights = [x for model in stage.models.values() for x in (*model.parameters(), *model.buffers())]
        self.device = weights[0].device
        self.ignored = {x.untyped_storage()._cdata for x in weights}
        self.sizes, self.references = {}, Counter()  # of storages alive; how often autograd keeps each
        self.alive = self.most_alive = self.kept = self.most_kept = self.most_outside = 0
        self.inner, self.blocks = {}, []  # storage -> number of the block that alone keeps it; their bytes
        self.inputs, self.largest_block, self.most_recomputed = None, 0, 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def __enter__(self):
        self.hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        self.hooks.__exit__(*error)
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.device == self.device:
                self._add(x)
        return out

    def enter_block(self, block, args):
        self.inputs = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
        for key in self.inputs:
            self._keep_outside(key)
        self.blocks.append(0)

    def leave_block(self, block, args, out):
        self.largest_block = max(self.largest_block, self.blocks[-1])
        self.inputs = None

    def _add(self, x):
        storage = x.untyped_storage()
        key = storage._cdata
        if key not in self.sizes and key not in self.ignored:
            self.sizes[key] = storage.nbytes()
            self.alive += storage.nbytes()
            self.most_alive = max(self.most_alive, self.alive)
            self.most_recomputed = max(self.most_recomputed, self.alive - sum(self._absent()))
            weakref.finalize(storage, self._remove, key)

    def _absent(self):
        """Bytes of the blocks that are not there when blocks are computed again: not in their backward."""
        if torch._C._current_graph_task_id() == -1:
            return self.blocks
        while self.blocks and not self.blocks[-1]:
            self.blocks.pop()
        return self.blocks[:-1]

    def _remove(self, key):
        self._keep_outside(key)
        self.alive -= self.sizes.pop(key)

    def _pack(self, x):
        self._add(x)
        key = x.untyped_storage()._cdata
        if key in self.ignored or x.device != self.device:
            return _Kept(x)
        self.references[key] += 1
        if self.references[key] == 1:
            self.kept += self.sizes[key]
            self.most_kept = max(self.most_kept, self.kept)
            if self.inputs is not None and key not in self.inputs and self.sizes[key]:
                self.inner[key] = len(self.blocks) - 1
                self.blocks[-1] += self.sizes[key]
        if self.inputs is None:
            self._keep_outside(key)
        self.most_outside = max(self.most_outside, self.kept - sum(self.blocks))
        return _Kept(x, lambda: self._release(key))

    def _release(self, key):
        self.references[key] -= 1
        if not self.references[key]:
            self._keep_outside(key)
            self.kept -= self.sizes[key]

    def _keep_outside(self, key):
        """This storage lives whether or not blocks are computed again."""
        if key in self.inner:
            self.blocks[self.inner.pop(key)] -= self.sizes[key]


class _Kept:
    """A tensor that autograd keeps; tells when it lets go of it."""

    def __init__(self, tensor, release=None):
        self.tensor = tensor
        if release:
            weakref.finalize(self, release)
