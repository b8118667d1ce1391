"""Quality of play: lowered where frames are late, raised where there is room, recorded and replayed."""
import numpy as np
import pytest
import torch

from tests.engine.test_dream import CONFIG, WALK, float32_world, folder, walk  # noqa: F401
from tests.engine.toy_code import begun
from worldplay import runtime
from worldplay.client.line import Line
from worldplay.client.recorder import Recorder, frame_record
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.engine import quality
from worldplay.engine.loading import load_world
from worldplay.engine.quality import PATIENCE, ROOM_OVER, Governor, Quality
from worldplay.eval.replay import run_replay
from worldplay.models.attention.kv_cache import KVCache

RUNGS = [Quality(2, 8), Quality(1, 8), Quality(1, 4)]


def run(governor, pass_seconds, frames):
    """The qualities of so many frames on a machine whose passes take so long; half a window saves a tenth."""
    chosen = []
    for _ in range(frames):
        steps, window = governor.quality
        chosen.append(governor.quality)
        governor.worked(pass_seconds * (steps + 1) * (1.0 if window == 8 else 0.9))
    return chosen


def test_a_fast_machine_keeps_the_quality():
    assert set(run(Governor(10, RUNGS), 0.03, 500)) == {RUNGS[0]}


def test_a_slow_machine_lowers_the_steps_then_the_window():
    assert run(Governor(10, RUNGS), 0.045, 300)[-1] == RUNGS[1]
    chosen = run(Governor(10, RUNGS), 0.08, 300)
    assert [*dict.fromkeys(chosen)] == RUNGS and chosen[-1] == RUNGS[2]


def test_it_goes_up_again_when_there_is_room():
    governor = Governor(10, RUNGS)
    assert run(governor, 0.08, 100)[-1] == RUNGS[2]
    assert [*dict.fromkeys(run(governor, 0.02, 300))] == RUNGS[::-1]


def test_single_late_frames_change_nothing():
    governor, rng = Governor(10, RUNGS), np.random.default_rng(0)
    for late in rng.random(2000) < 0.1:
        governor.worked(1.0 if late else 0.05)
        assert governor.quality == RUNGS[0]


def test_what_was_too_slow_is_tried_later_and_later():
    """A machine that makes single steps well, and gets slower whenever it makes two."""
    governor, tried, frames = Governor(10, RUNGS[:2]), [], 20 * PATIENCE
    for frame in range(frames):
        before = governor.quality
        governor.worked(0.02 if before.steps == 1 else 0.2)
        if governor.quality.steps > before.steps:
            tried.append(frame)
    waits = np.diff(tried)
    assert waits[0] < 4 * ROOM_OVER and (np.diff(waits[:5]) > 0).all() and waits[-1] >= PATIENCE


def test_a_cache_of_another_window_holds_the_latest_frames():
    torch.manual_seed(0)
    cache = KVCache(CONFIG.transformer, batch=1, num_frames=4, tokens_per_frame=2)
    written = []
    for frame in range(6):
        keys, values = torch.randn(2, 1, 1, 2, 2, 16)
        for layer in range(2):
            cache.with_past(layer, keys, values)
        written.append(keys)
        cache.commit(frame)
    for window, latest in ((3, [4, 5]), (2, [5]), (6, [3, 4, 5])):
        other = cache.resized(window)
        assert other.first_frame + other.num_frames == 6
        expected = torch.cat([written[i] for i in latest], dim=2)[0, 0].transpose(0, 1)
        assert torch.equal(other.past()[0, 0, 0], expected)
        other.check(6, 1)
    assert cache.num_frames == 6, "the old one stays as it is"


def test_sinks_keep_their_window():
    cache = KVCache(CONFIG.transformer, batch=1, num_frames=4, tokens_per_frame=2, sink=1)
    with pytest.raises(ValueError, match="keeps its window"):
        cache.resized(3)


def test_fewer_steps_and_a_shorter_window_are_those_of_a_world_made_so():
    """From a past that both windows hold whole."""
    world, other = begun(float32_world()), begun(float32_world(steps=1))
    world.state.first_generated = other.state.first_generated = -1  # past the first chunk's own steps
    world.quality.fix(steps=1)
    assert np.array_equal(walk(world, WALK[:3]), walk(other, WALK[:3]))
    assert (world.info["steps"], world.info["max_steps"]) == (1, 2)
    world.quality.fix(window=2)
    walk(world, WALK[:1])
    assert world.state.cache.rule.window == world.info["window"] == 2 and world.info["max_window"] == 4


def test_steps_made_again_have_their_own_quality_and_a_saved_state_its_window():
    world = begun(float32_world())
    state = world.snapshot()
    for action, how in zip(WALK, ((2, 4), (1, 4), (1, 2), (2, 2))):
        world.run_as("eager", 1, *how)
        walk(world, [action])
    saved = world.pack()
    later = walk(world, WALK[4:6])
    world.run_as()
    world.restore(state)
    walk(world, WALK[:1])
    assert (world.info["steps"], world.info["window"]) == (2, 4), "the world's own again"
    world.restore(world.unpack(*saved))
    world.run_as("eager", 1, 2, 2)
    assert np.array_equal(walk(world, WALK[4:6]), later)


@pytest.mark.parametrize("begin", [1, 5])  # before the quality is lowered, and after
def test_a_clip_knows_the_quality_of_every_step_and_replays_by_it(begin, folder, tmp_path,  # noqa: F811
                                                                 monkeypatch):
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.float32, "test"))
    world, request = load_world(folder, device="cpu"), Reset("a-first")
    plan = {3: {"steps": 1}, 4: {"window": 2}, 7: {"steps": 2, "window": 4}}
    recorder = Recorder(world)
    line = Line(world, request, frames := world.reset("a-first"))
    recorder.branch(line, frames[-1])
    for step, action in enumerate(WALK):
        if step == begin:
            recorder.start(tmp_path / "clip")
        if step in plan:
            world.quality.fix(**plan[step])
        line.act(action)
        for frame in world.step(action):
            times = frame_record(world, 0.0, polled=0.0, ready=0.0)
            line.show(times)
            recorder.frame(frame, times)
    recorder.close()
    clip = read_clip(tmp_path / "clip")
    assert clip.steps == {0: 2, 4: 1, 8: 2} and clip.windows == {0: 4, 5: 2, 8: 4}
    assert run_replay(tmp_path / "clip", world=folder, device="cpu", out=tmp_path / "again.mp4")["is_equal"]
    assert read_clip(tmp_path / "again").windows == clip.windows
    assert read_clip(tmp_path / "again").steps == clip.steps


def test_play_governs_itself(monkeypatch):
    """Every frame is late for a rate that no machine has."""
    monkeypatch.setattr(quality, "LATE_OVER", 2)
    world = begun(float32_world())
    world.quality.govern(1e9)
    walk(world, WALK)
    assert (world.info["steps"], world.info["window"]) == (1, 2)
