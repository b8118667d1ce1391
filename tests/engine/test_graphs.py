"""Steps by graphs equal those as written, on tensors that stay in place; chosen where they win."""
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engine import test_dream_wan
from tests.engine.test_dream import CONFIG, WALK, networks
from tests.engine.toy_code import begun, code_on_disk  # noqa: F401  (code_on_disk: a fixture)
from worldplay import runtime
from worldplay.action import Action
from worldplay.engine import graphs
from worldplay.engine.compiled import CompiledCode
from worldplay.engine.dream import DreamWorld
from worldplay.eval.graphs import compare_graphs
from worldplay.models.codecs.image import ImageCodec

CPU = torch.device("cpu")
HOST = {getattr(torch.Tensor, name) for name in (
    "cpu", "numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero")}


class Addresses(TorchDispatchMode):
    """Notes where the tensors lie that work reads or writes and has not made itself."""

    def __init__(self):
        super().__init__()
        self.noted, self._made, self._alive = [], set(), []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        outside = [x for x in given if _storage(x) not in self._made]
        self.noted += [x.data_ptr() for x in outside]
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self._made |= {_storage(x) for x in made} - {_storage(x) for x in outside}
        self._alive += made  # so that no other tensor gets its place
        return out


def _storage(x):
    return x.untyped_storage().data_ptr()


class OffTheHost(TorchFunctionMode):
    """Fails where work asks a tensor for its values, which cannot be recorded."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        assert function not in HOST, f"a step waits for the device: {function.__name__}"
        return function(*args, **(kwargs or {}))


class FakeGraphs:
    """Stands for CUDA graphs: work is recorded, run again on the same tensors, and checked.

    Like a graph it cannot know of a tensor that lies elsewhere than when it was recorded; unlike one it says
    so. slowness: seconds that a step as written takes longer, for graphs to win or to lose.
    """

    def __init__(self, monkeypatch):
        self.recorded, self.replayed = 0, 0
        monkeypatch.setattr(runtime, "records", lambda device: True)
        monkeypatch.setattr(runtime, "record", self.record)

    def record(self, device, work):
        run = self._checked(work)
        run()  # as the warm-up: a second time must change nothing
        given, before = run()
        self.recorded += 1
        for x in self._tensors(given):
            x.fill_(0)  # a graph gives nothing before it is run

        def again():
            out, now = run()
            assert now == before, "a tensor lies elsewhere than when the step was recorded"
            for kept, made in zip(self._tensors(given), self._tensors(out), strict=True):
                kept.copy_(made)
            self.replayed += 1
        return given, again

    def _checked(self, work):
        def run():
            with OffTheHost(), Addresses() as addresses:
                return work(), addresses.noted
        return run

    @staticmethod
    def _tensors(tree):
        return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


@pytest.fixture
def fake(monkeypatch):
    """Graphs that are recorded, and win."""
    make = FakeGraphs(monkeypatch)
    win(monkeypatch)
    return make


def win(monkeypatch, by=-1.0):
    """Let a step by a graph seem so many seconds longer than one as written."""
    step, clock = graphs.GraphChoice._step, [0.0]

    def timed(self, player, state):
        frames = step(self, player, state)
        clock[0] += 2.0 if player is None else 2.0 + by
        return frames
    monkeypatch.setattr(graphs.GraphChoice, "_step", timed)
    monkeypatch.setattr(graphs.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(graphs, "_FRAMES", 2)


def world_of(config=CONFIG, **options):
    transformer, codec = networks()
    codec = codec if config.codec == CONFIG.codec else ImageCodec(config.codec)
    return DreamWorld(config, transformer, codec, device=CPU, dtype=torch.float32, dtype_reason="test",
                      **options)


def wan(**fields):
    return lambda: test_dream_wan.world_of(**fields)


def play(world, actions=WALK):
    """(frames, whether the step of each was by a graph)"""
    shown = [(frame, world.info["graph"]) for action in actions for frame in world.step(action)]
    return np.stack([frame for frame, _ in shown]), [graph for _, graph in shown]


def start(world):
    return begun(world) if world.action_space == CONFIG.action_space else world.reset()


def both(make, actions):
    """The frames of a walk as written and by graphs, and of which steps the latter were."""
    written, by_graph = make(), make()
    start(written)
    expected, none = play(written, actions)
    by_graph.graphs.want()
    start(by_graph)
    frames, graph = play(by_graph, actions)
    assert not any(none)
    return expected, frames, graph, by_graph


@pytest.mark.parametrize("make", [
    world_of, lambda: world_of(steps=1), lambda: world_of(replace(CONFIG, context_sigma=0.0)),
    lambda: world_of(replace(CONFIG, sink=1)),
    lambda: world_of(replace(CONFIG, sink=1, sink_position="before_window")),
    lambda: world_of(replace(CONFIG, window=6, frames_per_chunk=2)),
    lambda: world_of(replace(CONFIG, window=5, frames_per_chunk=3)),  # a ring smaller than a chunk
    lambda: world_of(replace(CONFIG, window=1))],
    ids=["frame", "one step", "clean", "sink", "moving sink", "chunk", "small ring", "no past"])
def test_frames_are_those_as_written_while_the_ring_wraps(make, fake):
    expected, frames, graph, world = both(make, WALK * 2)
    assert np.array_equal(frames, expected)
    assert sum(graph) >= len(WALK) and graph[-1] and not graph[0], "the first chunk has its own steps"
    assert world.graphs.figures["eager"]["are_equal"] and fake.replayed > len(WALK)
    assert world.state.cache.num_frames > 2 * world.config.window


@pytest.mark.parametrize("make", [
    wan(), wan(sink=1, sink_position="before_window"), wan(frames_per_chunk=2, window=6),
    test_dream_wan.text_only], ids=["camera", "camera, sink", "chunk", "text"])
def test_worlds_with_a_camera_a_text_and_a_video_codec_are_the_same_by_graphs(make, fake):
    keys = Action({"w"}) if make().action_space.keys else Action()
    expected, frames, graph, _ = both(make, [keys] * 9)
    assert np.array_equal(frames, expected) and graph[-1] and sum(graph) >= len(graph) // 3


def test_another_text_is_read_by_the_same_graphs(fake):
    written, by_graph = test_dream_wan.text_only(), test_dream_wan.text_only()
    by_graph.graphs.want()
    frames = []
    for world in (written, by_graph):
        world.reset()
        play(world, [Action()] * 6)
        world.set_prompt("a cave", 1 - test_dream_wan.ROWS)
        frames.append(play(world, [Action()] * 3))
    assert np.array_equal(frames[0][0], frames[1][0]) and all(frames[1][1])
    assert not np.array_equal(frames[0][0][:4], frames[0][0][4:8])


def test_snapshots_saves_and_new_starts_keep_their_own_past(fake):
    world, written = world_of(), world_of()
    world.graphs.want()
    results = []
    for each in (written, world):
        begun(each)
        made = [play(each, WALK[:4])[0]]
        state, saved = each.snapshot(), each.pack()
        made.append(play(each, WALK[4:])[0])
        other = each.snapshot()
        each.restore(state)
        made.append(play(each, WALK[4:])[0])
        each.restore(other)
        made.append(play(each)[0])
        begun(each)
        made.append(play(each)[0])
        each.restore(state)
        made.append(play(each, WALK[4:])[0])
        each.restore(each.unpack(*saved))
        made.append(play(each, WALK[4:])[0])
        results.append(made)
    assert all(np.array_equal(a, b) for a, b in zip(*results)) and world.info["graph"]
    assert np.array_equal(results[1][1], results[1][2])
    assert np.array_equal(results[1][1], results[1][5]) and np.array_equal(results[1][1], results[1][6])


def test_two_pasts_take_turns_on_the_same_tensors(fake):
    world, written = world_of(), world_of()
    world.graphs.want()
    for each in (written, world):
        begun(each)
        play(each, WALK[:3])
    states = {each: (each.snapshot(), each.snapshot()) for each in (written, world)}
    for turn, action in enumerate(WALK):
        for each in (written, world):
            each.state = states[each][turn % 2]  # not copies: each cache is moved aside for the other
        assert np.array_equal(play(written, [action])[0], play(world, [action])[0])
    assert world.info["graph"]


def test_what_governs_quality_finds_graphs_for_its_steps_and_none_for_another_window(fake):
    world, written, expected, made, by_graph = world_of(), world_of(), [], [], []
    world.graphs.want()
    for each in (written, world):
        begun(each)
    for steps, window in ((2, 4), (1, 4), (2, 4), (1, 2), (1, 4), (2, 4)):
        for each in (written, world):
            each.quality.fix(steps=steps, window=window)
        expected.append(play(written, WALK[:5])[0])
        frames, graph = play(world, WALK[:5])
        made.append(frames)
        by_graph.append(graph[-1])
    assert np.array_equal(expected, made) and by_graph == [True, True, True, False, True, True]
    recorded = fake.recorded
    world.quality.fix(steps=1, window=2)
    begun(world)
    assert np.array_equal(play(world)[0], play(begun_as(written, steps=1, window=2))[0])
    assert fake.recorded == recorded and not world.info["graph"], "no graph is made for another window"


def begun_as(world, **quality):
    world.quality.fix(**quality)
    return begun(world)


def test_nothing_is_recorded_amid_play_and_measuring_is_no_play(fake):
    world = world_of()
    world.graphs.want()
    assert fake.recorded == 0
    begun(world)
    recorded, state = fake.recorded, world.state
    # sampling in two steps and in one, decoding, committing, the move
    assert recorded == 5 and (state.frame, state.is_mid_step) == (3, False)
    play(world)
    assert fake.recorded == recorded
    begun(world)
    assert fake.recorded == recorded, "measured once"


def test_graphs_that_are_slower_or_differ_are_not_used(monkeypatch, caplog):
    FakeGraphs(monkeypatch)
    with monkeypatch.context() as patch:
        win(patch, by=0.5)
        world = world_of()
        world.graphs.want()
        begun(world)
        assert world.graphs.figures["eager"] == {"written_ms": 2000.0, "graph_ms": 2500.0, "are_equal": True,
                                                 "is_used": False}
    win(monkeypatch)
    monkeypatch.setattr(graphs.StaticCache, "move", lambda self: None)  # a ring that stands still
    broken = world_of()
    broken.graphs.want()
    with caplog.at_level(logging.INFO):
        begun(broken)
    assert not broken.graphs.figures["eager"]["are_equal"] and "NOT equal" in caplog.text
    for each in (world, broken):
        assert not any(play(each)[1])


def test_what_cannot_be_recorded_is_said_once(monkeypatch, caplog):
    def record(device, work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")
    monkeypatch.setattr(runtime, "records", lambda device: True)
    monkeypatch.setattr(runtime, "record", record)
    world, written = world_of(), world_of()
    world.graphs.want()
    with caplog.at_level(logging.WARNING):
        begun(world)
        begun(world)
    assert [x.message for x in caplog.records] == [
        "steps are not recorded (operation not permitted when stream is capturing); play goes on without"]
    begun(written)
    assert np.array_equal(play(world)[0], play(written)[0])


@pytest.mark.parametrize("fault, says", [
    (lambda work, x: lambda *inputs: (work(*inputs), x.sum().item())[0], "waits for the device"),
    (lambda work, x: lambda *inputs: (work(*inputs), torch.zeros(3).add_(x[0].clone()))[0], None),
    (lambda work, x: lambda *inputs: (work(*inputs), x.append(torch.ones(1)), x.pop(0) + 1)[0], "elsewhere")],
    ids=["a wait", "no fault", "another tensor"])
def test_the_stand_in_for_a_graph_finds_faults(fault, says, fake):
    others = [torch.ones(1) for _ in range(9)] if says == "elsewhere" else torch.ones(1)
    graph_of = graphs._Graph
    work = fault(lambda x: x * 2, others)
    if says is None:
        assert graph_of(CPU, work, (torch.ones(2),))(torch.full((2,), 3.0)).tolist() == [6.0, 6.0]
        return
    with pytest.raises(AssertionError, match=says):
        graph_of(CPU, work, (torch.ones(2),))(torch.ones(2))


def test_code_takes_over_from_graphs_at_a_start(code_on_disk, monkeypatch):  # noqa: F811
    """By the steps that run again on a processor: the stand-in does not see into compiled code."""
    monkeypatch.setattr(runtime, "records", lambda device: True)
    win(monkeypatch)
    is_late, is_ready = [True], CompiledCode.is_ready
    monkeypatch.setattr(CompiledCode, "is_ready", lambda self: not is_late[0] and is_ready(self))
    world = world_of()
    world.graphs.want()
    world.compile()
    world._code.join()
    begun(world)
    is_late[0] = False
    eager, graph = play(world)
    assert (world.info["path"], graph[-1]) == ("eager", True), "amid play nothing is recorded"
    begun(world)
    frames, graph = play(world)
    assert (world.info["path"], graph[-1]) == ("compiled", True)
    assert np.abs(eager.astype(int) - frames).max() <= 2


def test_the_figures_of_the_check_on_a_processor():
    figures = compare_graphs(world_of(), frames=3)
    assert set(figures) == {"eager"} and figures["eager"]["are_equal"]
    assert min(figures["eager"]["written_ms"], figures["eager"]["graph_ms"]) > 0
