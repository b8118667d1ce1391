"""Compiled code takes over between two chunks; clips tell the path of every step, and replay follows it."""
import logging

import numpy as np
import pytest
import torch

from tests.client.tape import Tape
from tests.engine.test_dream import WALK, float32_world, folder, walk  # noqa: F401  (folder: a fixture)
from tests.engine.toy_code import begun, code_on_disk  # noqa: F401  (code_on_disk: a fixture)
from worldplay import runtime
from worldplay.cli.play import main as play
from worldplay.client.recorder import frame_record
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.engine.compiled import CompiledCode
from worldplay.engine.loading import load_world
from worldplay.errors import WorldError
from worldplay.eval.replay import run_replay

pytestmark = pytest.mark.skipif(not runtime.pick_compile(torch.device("cpu"))[0],
                                reason="nothing compiles here")


def late(monkeypatch, chunks):
    """Let the code be ready when it has been asked for so often."""
    asked, is_ready = [0], CompiledCode.is_ready

    def ready(self):
        asked[0] += 1
        return asked[0] > chunks and is_ready(self)
    monkeypatch.setattr(CompiledCode, "is_ready", ready)


def test_no_chunk_is_made_by_the_one_path_and_committed_by_the_other(code_on_disk, monkeypatch):
    world = begun(float32_world())
    expected = walk(world)
    steps = begun(world).step(WALK[0])
    frames = [next(steps)]
    for change in (lambda: world.compile(wait=True), lambda: world.take_path("eager")):
        with pytest.raises(WorldError, match="between steps"):
            change()
    frames += [*steps, *(frame for action in WALK[1:] for frame in world.step(action))]
    assert np.array_equal(frames, expected) and world.info["path"] == "eager"
    steps = world.step(WALK[0])
    next(steps)
    world.compile()
    world._code._thread.join()
    begun(world)  # a reset ends a step that was not run to its end
    assert world.info["path"] == "compiled"


def test_play_begins_at_once_and_code_takes_over_between_two_chunks(code_on_disk, monkeypatch):
    late(monkeypatch, 5)
    eager = walk(begun(float32_world()))
    world, frames, paths = float32_world(), [], []
    world.compile()
    world._code._thread.join()
    begun(world)
    for action in WALK:
        for frame in world.step(action):
            frames.append(frame)
            paths.append(world.info["path"])
    assert paths == ["eager"] * 4 + ["compiled"] * 6, "the first question was that of the reset"
    assert np.array_equal(frames[:4], eager[:4]) and np.abs(np.stack(frames).astype(int) - eager).max() <= 2
    assert (walk(begun(world)) is not None) and world.info["path"] == "compiled"


@pytest.mark.parametrize("begin", [2, 7])  # before the code takes over, and long after
# noqa: F811
def test_a_clip_knows_the_path_of_every_step_and_replays_by_it(
        begin, code_on_disk, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.float32, "test"))
    late(monkeypatch, 4)
    world, request = load_world(folder, device="cpu"), Reset("a-first")
    world.compile()
    world._code._thread.join()
    recorder = Tape(world)
    recorder.begin(request, world.reset("a-first"))
    for step, action in enumerate(WALK):
        if step == begin:
            recorder.start(tmp_path / "clip")
        recorder.step(action)
        for frame in world.step(action):
            recorder.frame(frame, frame_record(world, 0.0, polled=0.0, ready=0.0))
    recorder.close()
    clip = read_clip(tmp_path / "clip")
    assert clip.paths == {0: "eager", 4: "compiled"} and clip.sidecar["info"]["path"] == "eager"

    used, take = [], type(world).take_path
    monkeypatch.setattr(type(world), "take_path", lambda self,
                        path: (used.append((self.state.frame, path)), take(self, path))[1])
    assert run_replay(tmp_path / "clip", world=folder, device="cpu", out=tmp_path / "again.mp4")["is_equal"]
    assert used == [(0, "compiled"), (0, "eager"), (3 + 3, "compiled")]
    assert read_clip(tmp_path / "again").paths == clip.paths


# noqa: F811
def test_a_clip_replays_eager_where_there_is_no_compiler(code_on_disk, folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.float32, "test"))
    out = tmp_path / "clip.mp4"
    assert play([str(folder), "--headless", "--script", "w*4", "--out", str(out), "--path", "compiled",
                 "--device", "cpu"]) == 0
    assert read_clip(out).paths == {0: "compiled"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "no C++ compiler on the path"))
    with caplog.at_level(logging.WARNING):
        figures = run_replay(out, world=folder, device="cpu", out=tmp_path / "again.mp4")
    assert figures["largest_difference"] <= 8 and read_clip(tmp_path / "again").paths == {0: "eager"}
    assert "was played by compiled code" in caplog.text and "no C++ compiler on the path" in caplog.text
