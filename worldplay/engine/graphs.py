"""Steps of a world recorded once on tensors that stay in place, and run again: CUDA graphs on a GPU."""
import logging
import time
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from worldplay import runtime
from worldplay.action import Action
from worldplay.errors import WorldError
from worldplay.models.attention.static_cache import StaticCache

log = logging.getLogger(__name__)

_FRAMES = 8  # steps that are timed before graphs are used
_WARM_UP = 2


class StepGraphs:
    """Samples, decodes and commits as a ChunkSampler does, by graphs: its passes as they are at present.

    Sampling, decoding, a pass that commits and the move of its keys and values into the ring are a graph
    each. Inputs (noise, actions, positions, the text) are copied to where the graphs read them.
    """

    def __init__(self, sampler, cache):
        """cache: a full KVCache of the size that graphs are for."""
        self._sampler, self._cache, self._graphs, self._text = sampler, StaticCache(cache), {}, None
        self.is_recording = True

    def takes(self, cache, sigmas):
        """Whether there are graphs for a chunk behind a KVCache at these noise levels, or may be made now."""
        return self._cache.takes(cache) and (self.is_recording or _levels(sigmas) in self._graphs)

    def sample(self, cache, chunk, *, seed, text, sigmas):
        """As ChunkSampler.sample; the latents change at the next one."""
        cache.check(chunk.frame, cache.rule.frames_per_chunk)
        self._cache.hold(cache)
        self._take(text)
        levels = _levels(sigmas)

        def work(noises, chunk):
            return self._sampler.sampled(noises, levels, self._cache, chunk, self._kept_text())
        return self._run(levels, work, self._sampler.noises(seed, chunk.frame, len(levels)), _tensors(chunk))

    def decode(self, latent, state):
        """As ChunkSampler.decode."""
        return _cloned(self._run(("decode", state is None), self._sampler.decode, latent, state))

    def commit(self, cache, latents, chunk, *, seed, text):
        """As ChunkSampler.commit, after `sample` of the same Chunk under the same text."""
        def work(latents, noise, chunk):
            self._sampler.committed(latents, noise, self._cache, chunk, self._kept_text())
        noise = self._sampler.context_noise(seed, chunk.frame)
        self._run("commit", work, latents, noise, _tensors(chunk))
        self._cache.place(cache)
        self._run("move", self._cache.move)
        cache.advance(chunk.frame, chunk.positions)

    def _run(self, name, work, *inputs):
        if name not in self._graphs:
            self._graphs[name] = _Graph(self._sampler.device, work, inputs)
        return self._graphs[name](*inputs)

    def _take(self, text):
        """Copy the keys and values of a text where they are read, when it is another one."""
        if text is None or self._text and self._text[0] is text:
            return
        kept = self._text[1] if self._text else _cloned(text)
        _copy(kept, text)
        self._text = text, kept

    def _kept_text(self):
        return self._text and self._text[1]


class _Graph:
    """A function of tensors, recorded: called with others of the same shapes it gives their results."""

    def __init__(self, device, work, inputs):
        self._inputs = _cloned(inputs)
        self._given, self._again = runtime.record(device, lambda: work(*self._inputs))

    def __call__(self, *inputs):
        _copy(self._inputs, inputs)
        self._again()
        return self._given


def _cloned(tree):
    return tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, tree)


def _copy(kept, given):
    for to, x in zip(tree_leaves(kept), tree_leaves(given), strict=True):
        if isinstance(to, torch.Tensor):
            to.copy_(x)


def _tensors(chunk):
    """A Chunk without what the host knows of it: `cache.advance` takes that."""
    positions = chunk.positions and chunk.positions._replace(own={})
    return chunk._replace(frame=0, positions=positions)


def _levels(sigmas):
    return tuple(map(float, sigmas))


class GraphChoice:
    """Whether steps of a DreamWorld run by graphs: where that is measured to be faster, frames being equal.

    figures  path -> {written_ms, graph_ms: medians of a step, are_equal: whether all frames were, is_used} or
             {problem}, as measured

    A graph is made for one path, device and window. Recording takes longer than a frame, so it is done at a
    reset and never amid play: until the next reset a step runs as written where there is no graph for it
    (another path, another window, a window that is not full, the first chunk after a start).
    """

    def __init__(self, world):
        self._world, self._kept, self._trial, self._is_wanted, self.figures = world, {}, None, False, {}
        self._windows = {}  # path -> window that its figures are of

    def want(self):
        """From the next reset on use graphs where the device has them and they win."""
        self._is_wanted = runtime.records(self._world.device)

    @property
    def is_measuring(self):
        """Whether a measurement is under way, whose steps are no play."""
        return self._trial is not None

    def are_used(self):
        """Whether there are graphs for the present path."""
        return self._kept.get(self._world.info["path"]) is not None

    def player(self, cache, sigmas):
        """What samples, decodes and commits the next chunk of a KVCache: StepGraphs or the sampler."""
        graphs = self._trial[0] if self.is_measuring else self._kept.get(self._world.info["path"])
        return graphs if graphs and graphs.takes(cache, sigmas) else self._world.sampler

    def update(self):
        """Call after a reset: measures what is due."""
        info = self._world.info
        if self._is_wanted and not self.is_measuring and self._windows.get(info["path"]) != info["window"]:
            self.measure(_FRAMES)

    def forget(self):
        """Drop all graphs, which have something in them that has been replaced."""
        self._kept, self.figures, self._windows = {}, {}, {}

    @torch.inference_mode()
    def measure(self, frames):
        """Record steps by the present path, play so many as written and by graphs in turn, and keep the
        faster; the world must have begun, and goes on from where it is.
        """
        world, path = self._world, self._world.info["path"]
        state, graphs, full = world.state, None, None
        self._trial, self._kept[path], self._windows[path] = (None,), None, world.info["window"]
        try:
            world.state = state.clone()
            while not world.state.cache.is_full or world.state.frame == world.state.first_generated:
                list(world.step(Action()))
            graphs, full = StepGraphs(world.sampler, world.state.cache), world.state
            self.figures[path] = self._compared(graphs, full, frames)
            for others in (1, 2, 4):  # sampling steps that worldplay.engine.quality may choose
                if self.figures[path]["is_used"] and world.info["steps"] != others <= world.info["max_steps"]:
                    world.sampler.set_steps(others)
                    self._step(graphs, full.clone())
            graphs.is_recording = False
            self._kept[path] = graphs if self.figures[path]["is_used"] else None
        # a kernel that cannot be recorded, or no memory for it, or one that gives no finite numbers
        except (RuntimeError, WorldError) as error:
            self.figures[path] = {"problem": str(error).splitlines()[0], "is_used": False}
            log.warning("steps are not recorded (%s); play goes on without", self.figures[path]["problem"])
        finally:
            self._trial, world.state, graphs, full = None, state, None, None
            runtime.release_memory(world.device)  # copies of the past, which the next step has no use for
            world.sampler.set_steps(world.info["steps"])

    @contextmanager
    def off(self):
        """Inside, steps run as written: so that their parts can be timed."""
        kept, self._kept = self._kept, {}
        try:
            yield
        finally:
            self._kept = kept

    def _compared(self, graphs, full, frames):
        ways = {"written_ms": None, "graph_ms": graphs}
        states, ms, shown = {way: full.clone() for way in ways}, {way: [] for way in ways}, {}
        are_equal = True
        for _ in range(_WARM_UP + frames):
            for way, player in ways.items():
                started = time.perf_counter()
                shown[way] = self._step(player, states[way])
                ms[way].append(1000 * (time.perf_counter() - started))
            are_equal &= np.array_equal(*shown.values())
        figures = {way: float(np.median(times[_WARM_UP:])) for way, times in ms.items()}
        is_used = are_equal and figures["graph_ms"] < figures["written_ms"]
        log.info("a step takes %.2f ms as written and %.2f by a graph, frames %s", figures["written_ms"],
                 figures["graph_ms"], "equal" if are_equal else "NOT equal: no graph is used")
        return figures | {"are_equal": are_equal, "is_used": is_used}

    def _step(self, player, state):
        """The frames of one step, and its end waited for."""
        self._trial, self._world.state = (player,), state
        frames = np.stack(list(self._world.step(Action())))
        runtime.synchronize(self._world.device)
        return frames
