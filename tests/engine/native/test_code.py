"""Native passes: equal to the written ones, chosen by play, and what is said where there are none."""
import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engine.test_dream import CONFIG, WALK, context, float32_world, folder, networks, walk  # noqa: F401
from tests.engine.toy_code import begun
from worldplay import runtime
from worldplay.action import Action
from worldplay.cli.commands import main
from worldplay.engine import code
from worldplay.engine.code import _give_way
from worldplay.engine.code_choice import is_chosen, is_native
from worldplay.engine.dream import DreamWorld
from worldplay.engine.native import code as native_code
from worldplay.engine.native.code import NativeCode, check
from worldplay.engine.native.library import Library
from worldplay.engine.native.passes import NativePasses
from worldplay.errors import WorldError
from worldplay.eval.latency import timed
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer, fuse_for_inference

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not runtime.cpp_compiler(), reason="no g++ is here")


@pytest.fixture
def kept(native_cache, monkeypatch):
    """The code is there, and nothing is made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(native_cache))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("what is there is made again"))


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A user's cache folder without any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("config", [
    CONFIG, replace(CONFIG, frames_per_chunk=2, window=6), replace(CONFIG, sink=1),
    replace(CONFIG, steps=1, context_sigma=0.0)], ids=["frame", "chunk", "sink", "one step"])
def test_frames_are_those_of_the_written_passes(config, kept):
    transformer, codec = networks()
    world = DreamWorld(config, transformer, codec, device=CPU, dtype=torch.float32, dtype_reason="test")
    expected = walk(begun(world))
    world.compile(wait=True)
    again = walk(begun(world))
    assert world.info["path"] == "compiled" and "denoise" in vars(world.transformer)
    assert np.abs(again.astype(int) - expected).max() <= 1
    assert np.array_equal(walk(begun(world)), again), "the same seed and actions give the same frames"
    world.take_path("eager")
    assert np.array_equal(walk(begun(world)), expected)


def test_threads_do_not_change_it(kept):
    world = begun(float32_world())
    world.compile(wait=True)
    before, frames = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            frames.append(walk(begun(world)))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(each, frames[0]) for each in frames)


def test_a_snapshot_brings_the_past_back(kept):
    world = begun(float32_world())
    world.compile(wait=True)
    walk(world, WALK[:3])
    state = world.snapshot()
    expected = walk(world)
    walk(begun(world), WALK[5:])
    world.restore(state)
    assert np.array_equal(walk(world), expected)


def test_what_a_broken_frame_leaves_does_not_come_back(kept):
    config = TransformerConfig(dim=32, ffn_dim=32, num_heads=2, num_layers=1, in_channels=4, out_channels=4,
                               patch_size=(1, 3, 2))
    transformer = fuse_for_inference(Transformer(config).eval().requires_grad_(False))
    passes, x = NativePasses(Library("float32").load(), transformer), torch.randn(1, 1, 4, 9, 10)

    def play(latents):
        cache = KVCache(config, batch=1, num_frames=3, tokens_per_frame=15)  # 15: no whole vector
        for frame, latent in enumerate(latents):
            chunk = transformer.prepare(cache, latent.shape, frame=frame)
            velocity = passes.denoise(latent, 0.7, cache, chunk)
            passes.commit(latent, 0.1, cache, chunk)
        return velocity
    with torch.inference_mode():
        assert not torch.isfinite(play([x * torch.nan] * 3)).any()
        assert torch.isfinite(play([x])).all()


def test_code_of_a_processor_with_other_instructions_is_not_taken(monkeypatch):
    here = Library("float32").folder()
    monkeypatch.setattr(runtime, "extensions", lambda: "fpu sse2")
    assert Library("float32").folder() != here


def test_a_batch_runs_as_written(kept):
    world = begun(float32_world())
    frames, actions = np.stack([context()[0]] * 2), np.zeros((2, 3, 3), np.float32)
    expected = list(world.follow(frames, actions, start=1))
    world.compile(wait=True)
    assert all(np.array_equal(a, b) for x, y in zip(world.follow(frames, actions, start=1), expected)
               for a, b in zip(x, y))


def test_what_times_a_pass_leaves_the_code_in_place(kept):
    world, times = begun(float32_world()), {}
    world.compile(wait=True)
    installed = world.transformer.denoise
    with timed(world.transformer, ("denoise",), CPU, times, "pass"):
        list(world.step(Action()))
    assert len(times["pass"]) == CONFIG.first_steps and world.transformer.denoise is installed


def test_code_that_is_off_is_not_kept(empty, monkeypatch):
    monkeypatch.setattr(native_code, "_TOLERANCE", {"float32": -1.0})
    with pytest.raises(ArithmeticError, match="the native code is off by"):
        Library("float32").build(lambda library: check(library, "float32"))
    assert not Library("float32").is_cached() and not [*Library("float32").folder().iterdir()]


def test_it_is_made_beside_play_once_and_used_from_the_first_frame_the_next_time(empty, monkeypatch):
    world, gave_way = begun(float32_world()), []
    monkeypatch.setattr(code, "_give_way", gave_way.append)
    world.compile()
    list(world.step(Action()))
    world._code.join()
    assert world._code.problem == "" and gave_way == [world._code._process.pid]
    list(world.step(Action()))
    assert world.info["path"] == "compiled"
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("what is there is made again"))
    world = float32_world()
    world.compile()
    begun(world)
    assert world.info["path"] == "compiled"


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="Linux alone has such a class")
def test_what_is_made_beside_play_gives_way():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        _give_way(process.pid)
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        process.kill()  # a busy machine leaves it no time
    _give_way(process.pid)  # it has ended meanwhile


def test_a_command_makes_it_beforehand(kept, folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.float32, "test"))
    assert main(["compile", str(folder), "--device", "cpu"]) == 0
    assert f"native code for toy is in {Library('float32').folder()}" in capsys.readouterr().out


def test_without_a_compiler_play_goes_on_and_says_so_once(empty, monkeypatch, caplog):
    monkeypatch.setattr(runtime, "cpp_compiler", lambda: None)
    expected, world = walk(begun(float32_world())), float32_world()
    with pytest.raises(WorldError, match="there is no compiled code here .g.. is not on the path"):
        world.compile(wait=True)
    world.compile()
    world._code.join()
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(walk(begun(world)), expected)
    assert len(caplog.records) == 1 and world.info["path"] == "eager"


def test_a_damaged_library_is_named(empty):
    folder = Library("float32").folder()
    folder.mkdir(parents=True)
    (folder / "passes.so").write_bytes(b"no code")
    with pytest.raises(WorldError, match=f"{folder} cannot be loaded .*delete that folder"):
        NativeCode("float32").wait()


def test_worlds_with_a_text_or_a_camera_and_those_on_a_gpu_have_compiled_code():
    with_text = replace(CONFIG, transformer=replace(CONFIG.transformer, text_dim=24))
    narrow = replace(CONFIG, transformer=replace(CONFIG.transformer, dim=24))
    gpu = torch.empty(0, device="meta").device
    assert is_native(CONFIG, CPU) and is_chosen(CONFIG, CPU)
    for config in (with_text, narrow):
        assert not is_native(config, CPU) and not is_chosen(config, CPU)
    assert not is_native(CONFIG, gpu) and is_chosen(CONFIG, gpu)
