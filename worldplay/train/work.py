"""Floating-point operations and memory of a training step, counted on the meta device."""
import copy
import weakref
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worldplay.engine.cost import FusedAttention, flop_counter
from worldplay.engine.memory import AllocatedMemory
from worldplay.engine.networks import META
from worldplay.models.transformer import Transformer
from worldplay.train.stages.draws import PlacedDraws


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes of one forward and backward pass, without the weights and their accumulated gradients.

    kept             activations that autograd saves for the backward pass
    peak             largest sum of all tensors alive at one moment
    kept_recomputed  as kept, with activation checkpointing: the inputs of every block, and all of one block
    peak_recomputed  as peak, with activation checkpointing
    """
    kept: int
    peak: int
    kept_recomputed: int
    peak_recomputed: int


def on_meta(stage, dtype=None):
    """A copy of the stage whose networks are on the meta device; dtype: of their weights, None keeps it.

    Activation checkpointing is off in the copy: what it adds is derived from a single pass.
    """
    twin = copy.copy(stage)
    twin.models = {role: _without_values(model, dtype) for role, model in stage.models.items()}
    for model in _transformers(twin):
        model.checkpoint_activations = False
    return twin


def step_flops(stage, role, batch, draws):
    """(FLOPs of loss and backward pass, FLOPs of the forward passes of blocks that record a graph).

    stage  from `on_meta`; batch: tensors, of which only shapes and dtypes are used
    A multiply-add counts two; masked-out attention counts nothing. The second number is what activation
    checkpointing adds, because it runs these forward passes again.
    """
    for model in _transformers(stage):
        model.causal_attention = "chunks"
    return _by_depth(lambda part: _flops(part, role, batch, draws), stage, (1, 2))


def over_shared_draws(run, num_samples):
    """[run(draws), ...], whose mean is that of many steps with random numbers shared by the whole batch.

    Such a number, for example a DMD exit step, decides how much work a step does: `run` is called with it at
    a few places of its range, and once where the step draws none.

    run  function of a PlacedDraws
    """
    def at(part):
        draws = PlacedDraws(part, range(num_samples))
        return run(draws), draws.shared
    first, shared = at(0.1)
    if not shared:
        return [first]
    last, _ = at(0.9)
    # a coin toss such as own_steps decides: more places estimate how often it is won
    if "uniform" in shared and first != last:
        return [first, *(at(part)[0] for part in (0.3, 0.5, 0.7)), last]
    return [first, last]  # work is linear in an exit step: the mean over all is that of first and last


def _by_depth(count, stage, depths):
    """count(stage), a tuple of numbers, extrapolated from networks cut to depths[0] and depths[1] blocks.

    All blocks of a network are alike. A stage with no more blocks than depths[1], or with networks of
    different depths, is counted as it is.
    """
    found = {len(model.blocks) for model in stage.models.values() if hasattr(model, "blocks")}
    if len(found) != 1 or max(found) <= max(depths):
        return count(stage)
    less, more = (count(_shallow(stage, depth)) for depth in depths)
    return tuple(a + (max(found) - depths[0]) * (b - a) // (depths[1] - depths[0])
                 for a, b in zip(less, more))


def _transformers(stage):
    return [model for model in stage.models.values() if isinstance(model, Transformer)]


def _shallow(stage, num_layers):
    """A copy of the stage whose networks have only their first num_layers blocks."""
    twin = copy.copy(stage)
    twin.models = {role: copy.copy(model) for role, model in stage.models.items()}
    for model in twin.models.values():
        model._modules = {**model._modules, "blocks": model.blocks[:num_layers]}
    return twin


def _flops(stage, role, batch, draws):
    forward = []
    with Counted() as counter, _around_blocks(stage, lambda *_: forward.append(-counter.flops),
                                              lambda *_: forward.append(counter.flops)):
        _pass(stage, role, batch, draws)
    return counter.flops, sum(forward)


def step_memory(stage, role, batch, draws):
    """StepMemory; arguments as for `step_flops`."""
    def count(part):
        with Counted(), _Memory(part) as memory, _around_blocks(part, memory.enter_block, memory.leave_block):
            _pass(part, role, batch, draws)
        outside = memory.most_outside + memory.largest_block
        return memory.most_kept, memory.most_alive, outside, memory.most_recomputed
    kept, peak, kept_recomputed, peak_recomputed = _by_depth(count, stage, (2, 3))
    return StepMemory(kept=kept, peak=peak, kept_recomputed=kept_recomputed, peak_recomputed=peak_recomputed)


def _pass(stage, role, batch, draws):
    def call(role, function, *args, **kwargs):
        return function(stage.models[role], *args, **kwargs)
    batch = {name: torch.empty_like(x, device=META) for name, x in batch.items()}
    with _gradients_dropped(stage), FusedAttention():
        stage.loss(role, batch, draws, call)[0].backward()


def _without_values(model, dtype):
    """A copy of a network on the meta device, made without copying weight values."""
    memo = {}
    for p in model.parameters():
        memo[id(p)] = torch.nn.Parameter(torch.empty_like(p, device=META, dtype=dtype), p.requires_grad)
    for x in model.buffers():
        memo[id(x)] = torch.empty_like(x, device=META)
    return copy.deepcopy(model, memo)


@contextmanager
def _gradients_dropped(stage):
    """Context manager: a weight's gradient is freed once accumulated, as FSDP frees it after reduction."""
    def drop(p):
        p.grad = None
    hooks = [p.register_post_accumulate_grad_hook(drop) for model in stage.models.values()
             for p in model.parameters() if p.requires_grad]
    yield
    for hook in hooks:
        hook.remove()


@contextmanager
def _around_blocks(stage, enter, leave):
    """Context manager: calls enter(block, args) and leave(block, args, out) around blocks under autograd."""
    def only_with_graph(hook):
        return lambda *args: hook(*args) if torch.is_grad_enabled() else None
    blocks = [block for model in stage.models.values() for block in getattr(model, "blocks", ())]
    hooks = [add(only_with_graph(hook)) for block in blocks for add, hook in (
        (block.register_forward_pre_hook, enter), (block.register_forward_hook, leave))]
    yield
    for hook in hooks:
        hook.remove()


class Counted(TorchDispatchMode):
    """Inside, counts operations; one without values that was run before is not run again.

    PyTorch works out the shape of a result in Python, which takes 0.2 ms an operation, and a network repeats
    a few hundred operations for every block, frame and sampling step. So the first of a kind is run. Views,
    and what writes into its inputs, always are.

    flops  multiplications and additions so far, as `flop_counter` counts them
    """
    _known = {}  # operation and its arguments -> shapes of the result, flops; they follow from these alone
    _always_run = set()
    _formulas = flop_counter().flop_registry

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in self._always_run:
            return function(*args, **kwargs)
        key = (function, _described(args), _described(tuple(kwargs.items())) if kwargs else ())
        if key not in self._known:
            out = function(*args, **kwargs)
            shapes, formula = _fresh_shapes(out, (args, kwargs)), self._formulas.get(function._overloadpacket)
            flops = formula(*args, **kwargs, out_val=out) if formula else 0
            self.flops += flops
            if shapes:
                self._known[key] = shapes, flops
            elif not formula:
                self._always_run.add(function)
            return out
        shapes, flops = self._known[key]
        self.flops += flops
        return _like(shapes) if isinstance(shapes[0], torch.Size) else tuple(map(_like, shapes))


def _described(x):
    """What the shape of a result depends on of an argument."""
    if isinstance(x, torch.Tensor):
        return x.shape, x.stride(), x.dtype, x.device
    return tuple(map(_described, x)) if isinstance(x, (tuple, list)) else (type(x), x)


def _fresh_shapes(out, inputs):
    """Size, stride and number type of a result on the meta device, or of each of several; () of a result that
    is something else or shares its storage with an input."""
    if isinstance(out, (tuple, list)) and all(isinstance(x, torch.Tensor) for x in out):
        shapes = tuple(_fresh_shapes(x, inputs) for x in out)
        return shapes if all(shapes) else ()
    if not isinstance(out, torch.Tensor) or out.device != META:
        return ()
    storages = {x.untyped_storage()._cdata for x in tree_leaves(inputs) if isinstance(x, torch.Tensor)}
    return () if out.untyped_storage()._cdata in storages else (out.size(), out.stride(), out.dtype)


def _like(shape):
    size, stride, dtype = shape
    return torch.empty_strided(size, stride, dtype=dtype, device=META)


class _Memory(AllocatedMemory):
    """Also follows the tensors that autograd saves, in total and for each block; weights are not counted."""

    def __init__(self, stage):
        weights = [x for model in stage.models.values() for x in (*model.parameters(), *model.buffers())]
        super().__init__(weights[0].device, uncounted=weights)
        self.references = Counter()  # how often autograd has saved each storage
        self.kept = self.most_kept = self.most_outside = 0
        self.inner, self.blocks = {}, []  # storage -> the block that alone saved it; bytes of each block
        self.inputs, self.largest_block, self.most_recomputed = None, 0, 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def __enter__(self):
        self.hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        self.hooks.__exit__(*error)
        return super().__exit__(*error)

    def enter_block(self, block, args):
        self.inputs = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
        for key in self.inputs:
            self._keep_outside(key)
        self.blocks.append(0)

    def leave_block(self, block, args, out):
        self.largest_block = max(self.largest_block, self.blocks[-1])
        self.inputs = None

    def add(self, x):
        """As AllocatedMemory.add; also updates most_recomputed, the peak with activation checkpointing."""
        is_new = super().add(x)
        if is_new:
            self.most_recomputed = max(self.most_recomputed, self.alive - sum(self._absent()))
        return is_new

    def released(self, key):
        """As AllocatedMemory.released."""
        self._keep_outside(key)
        super().released(key)

    def _absent(self):
        """Bytes of each block that checkpointing would not hold now: all blocks but the one in backward."""
        if torch._C._current_graph_task_id() == -1:
            return self.blocks
        while self.blocks and not self.blocks[-1]:
            self.blocks.pop()
        return self.blocks[:-1]

    def _pack(self, x):
        if x.device != self.device:
            return _Kept(x)
        self.add(x)
        key = x.untyped_storage()._cdata
        if not self.sizes[key]:
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
        """Count this storage no more as inner to a block: checkpointing would not free it."""
        if key in self.inner:
            self.blocks[self.inner.pop(key)] -= self.sizes[key]


class _Kept:
    """A tensor saved by autograd; `release` is called when autograd drops it."""

    def __init__(self, tensor, release=None):
        self.tensor = tensor
        if release:
            weakref.finalize(self, release)
