"""Compiled passes: equal to the written ones, part by part, and what is said where there are none."""
import gc
import logging
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import worldplay
from tests.engine.test_dream import CONFIG, WALK, context, float32_world, walk
from tests.engine.toy_code import begun, code_on_disk, empty_code_cache, passes  # noqa: F401  (fixtures too)
from tests.models import test_transformer_camera
from tests.models.passes import commit, denoise
from worldplay import runtime
from worldplay.action import Action
from worldplay.engine import compiled
from worldplay.engine.compiled import CompiledCode, Passes, compile_code, uninstall
from worldplay.engine.cost import flop_counter, part_of
from worldplay.errors import WorldError
from worldplay.models.attention.prope import Branches
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import fuse_for_inference

pytestmark = pytest.mark.skipif(not runtime.pick_compile(torch.device("cpu"))[0],
                                reason="nothing compiles here")

WIDE = TransformerConfig(dim=32, ffn_dim=64, num_heads=2, num_layers=2, in_channels=4, out_channels=4,
                         text_dim=24,
                         text_len=8, has_camera=True)


def counted(world, monkeypatch):
    """How often a part of a block ran by code, a list of one number."""
    calls, run = [0], compiled._Compiled.__call__

    def counting(self, *inputs):
        calls[0] += 1
        return run(self, *inputs)
    monkeypatch.setattr(compiled._Compiled, "__call__", counting)
    return calls


def test_frames_are_those_of_the_written_passes(code_on_disk, monkeypatch):
    world = begun(float32_world())
    expected = walk(world)
    world.compile(wait=True)
    calls = counted(world, monkeypatch)
    again = walk(begun(world))
    assert world.info["path"] == "compiled"
    assert calls[0] >= 3 * 2 * len(WALK), "two parts of each block, every pass"
    assert np.abs(again.astype(int) - expected).max() <= 1
    assert np.array_equal(walk(begun(world)), again), "the same seed and actions give the same frames"
    world.take_path("eager")
    assert np.array_equal(walk(begun(world)), expected)


def test_products_inside_code_are_seen_where_passes_are_measured(code_on_disk):
    """Otherwise a bench would count them among the rest."""
    world = begun(float32_world())
    with flop_counter() as written:
        list(world.step(Action()))
    world.compile(wait=True)
    begun(world)
    with flop_counter() as ran:
        list(world.step(Action()))
    assert ran.get_flop_counts()["Global"] == written.get_flop_counts()["Global"]
    times = runtime.work_ms(torch.device("cpu"), lambda: list(world.step(Action())))
    assert sum(ms for name, ms in times.items() if part_of(name) == "linear") > 0


def test_a_batch_runs_as_written(code_on_disk):
    world = begun(float32_world())
    frames = np.stack([context()[0]] * 2)
    actions = np.zeros((2, 3, 3), np.float32)
    expected = list(world.follow(frames, actions, start=1))
    world.compile(wait=True)
    assert all(np.array_equal(a, b) for x, y in zip(world.follow(frames, actions, start=1), expected) for a,
               b in zip(x, y))


@pytest.mark.parametrize("name", ["qkv", "text_queries", "feed_forward", "queries", "keys_values", "output"])
def test_every_part_with_text_and_camera_gives_what_it_was_made_of(name, tmp_path):
    """The comparison is the one that every new code goes through; what it finds is the error."""
    shape = passes(WIDE, num_frames=2, num_tokens=6, window=5)
    parts = shape.block_parts() | shape.branch_parts()
    compiled._compile_part(shape, name, parts[name], tmp_path / name)


def test_code_that_is_off_is_not_kept(empty_code_cache, monkeypatch):
    monkeypatch.setattr(compiled, "_TOLERANCE", {"float32": -1.0})
    with pytest.raises(ArithmeticError, match="compiled qkv is off by"):
        compile_code(passes())
    assert not (passes().folder() / "qkv").exists() and not passes().is_cached()


def test_a_camera_and_a_text_have_their_parts():
    names = {"qkv", "text_queries", "feed_forward", *Branches()._asdict()}
    assert passes(WIDE, device="cuda").parts().keys() == names
    assert passes(WIDE).parts().keys() == {"qkv", "text_queries",
                                           "feed_forward"}, "on a processor branches run as written"
    assert passes(replace(WIDE, text_dim=None, has_camera=False)).parts().keys() == {"qkv", "feed_forward"}


def test_installed_parts_play_a_text_and_a_camera(code_on_disk, monkeypatch):
    """The code is replaced by a stand-in that runs each part as written, on what it is given."""
    torch.manual_seed(0)
    model = fuse_for_inference(test_transformer_camera.filled(WIDE).requires_grad_(False))
    shape, ran = passes(WIDE, num_tokens=6, window=4), []

    def load(name):
        part = compiled._Part(shape, name)

        def run(*given):
            ran.append(name)
            number = len(part.weights)
            out = part(given[:number], *given[number:])
            return [out] if isinstance(out, torch.Tensor) else list(out)
        return run
    monkeypatch.setattr(Passes, "parts", lambda self: self.block_parts() | self.branch_parts())
    inputs = test_transformer_camera.with_cameras({
        "noisy": torch.randn(1, 6, 4, 4, 6), "clean": torch.randn(1, 6, 4, 4, 6), "sigma": torch.rand(1, 6),
        "clean_sigma": torch.zeros(1, 6)})

    def played():
        text = model.encode_text(torch.randn(1, 5, 24, generator=torch.Generator().manual_seed(1)))
        cache = test_transformer_camera.KVCache(WIDE, batch=1, num_frames=4, tokens_per_frame=6, sink=1)
        out = []
        for frame in range(6):
            part = test_transformer_camera.part_of(inputs, slice(frame, frame + 1))
            conditions = {"cameras": part["cameras"], "text": text}
            out.append(denoise(model, part["noisy"], part["sigma"], cache, frame=frame, **conditions))
            commit(model, part["clean"], part["clean_sigma"], cache, frame=frame, **conditions)
        return torch.cat(out, dim=1)
    with torch.inference_mode():
        expected = played()
        code = CompiledCode.__new__(CompiledCode)
        code.passes, code._parts = shape, {name: load(name) for name in shape.parts()}
        code.install(model)
        torch.testing.assert_close(played(), expected, atol=1e-5, rtol=1e-5)
        assert set(ran) == shape.parts().keys()
        assert ran.count("keys_values") == 3 * 3, "once the window is full"
        uninstall(model)
        assert torch.equal(played(), expected) and ran.count("keys_values") == 3 * 3


# What cannot be had -----------------------------------------------------------------------------------------


def without_compiler(monkeypatch):
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "no C++ compiler on the path"))
    return "no C++ compiler on the path"


def without_room(monkeypatch):
    monkeypatch.setattr(runtime, "memory", lambda device: (2**30, 2**34))
    return "compiling takes 2 GiB of GPU memory; less is free"


def failing(monkeypatch):
    """The other process ends with an error."""
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda args, **options: popen(
        [sys.executable, "-c", "import sys; print('first', file=sys.stderr); sys.exit('no room for it')"],
        **options))
    return "no room for it"


@pytest.mark.parametrize("hinder", [without_compiler, without_room, failing])
def test_without_it_play_goes_on_and_says_so_once(hinder, empty_code_cache, monkeypatch, caplog):
    expected = walk(begun(float32_world()))
    says, world = hinder(monkeypatch), float32_world()
    with pytest.raises(WorldError, match=f"there is no compiled code here .{re.escape(says)}.; --path eager"):
        world.compile(wait=True)
    world.compile()
    world._code._thread.join()
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(walk(begun(world)), expected)
    assert [record.getMessage().count(says)
            for record in caplog.records] == [1] and world.info["path"] == "eager"


def test_damaged_code_is_named(code_on_disk, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = passes().folder()
    folder.mkdir(parents=True)
    for name in passes().parts():
        (folder / name).write_bytes(b"no code")
    world = float32_world()
    with pytest.raises(WorldError, match=f"{folder} cannot be loaded .*delete that folder"):
        world.compile(wait=True)
    world.compile()
    world._code._thread.join()
    with caplog.at_level(logging.WARNING):
        walk(begun(world))
    assert len(caplog.records) == 1 and world.info["path"] == "eager"


def test_two_at_once_load_what_each_is_for_and_leave_the_environment_alone(code_on_disk, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    codes = [CompiledCode(passes()) for _ in range(6)]
    for code in codes:
        code.wait()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ and gc.isenabled()


def test_who_collects_no_garbage_is_left_at_that(code_on_disk):
    gc.disable()
    try:
        CompiledCode(passes()).wait()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_process_that_is_ended_leaves_nothing_but_what_the_next_one_goes_on_from(empty_code_cache):
    code = CompiledCode(passes())
    while not (passes().folder() / "files").exists():
        time.sleep(0.05)
    code.close()
    assert [path.name for path in passes().folder().parent.iterdir()] == [passes().folder().name]
    assert not passes().is_cached() and not code.is_ready()


def test_the_other_process_takes_this_package_wherever_play_was_started(
        empty_code_cache, tmp_path, monkeypatch):
    (tmp_path / "worldplay").mkdir()
    (tmp_path / "worldplay/__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda args, **options: popen(
        [sys.executable, "-c", "import worldplay; print(worldplay.__file__)"], **options))
    code = CompiledCode(passes())
    code._thread.join()
    assert code.problem == worldplay.__file__


def test_what_hinders_is_said_and_no_code_is_taken_for_ready(code_on_disk, monkeypatch):
    def refuse(error):
        def fail(*_):
            raise error
        return fail
    for owner, name, error, says in (
            (compiled, "_load", OSError(30, "Read-only file system"),
             f"{passes().folder()}: Read-only file system"),
            (Passes, "folder", RuntimeError("no name"), "no name"),
            (runtime, "pick_compile", lambda device: (False, "no C++ compiler on the path"),
             "no C++ compiler on the path")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse(error) if isinstance(error, Exception) else error)
            code = CompiledCode(passes())
            code._thread.join()
            assert code.problem == says and not code.is_ready()


def test_a_cache_folder_with_a_blank_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two words"))
    with pytest.raises(OSError, match="takes no blank in .*two words.*XDG_CACHE_HOME"):
        compile_code(passes())


def test_a_closed_world_compiles_no_more(empty_code_cache, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda args, **options: popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], **options))
    world = float32_world()
    world.compile()
    while world._code._process is None:
        time.sleep(0.01)
    process = world._code._process
    assert process.poll() is None
    world.close()
    assert process.poll() is not None
    world.close()


def test_the_same_code_serves_what_runs_it_and_nothing_else(monkeypatch):
    monkeypatch.setattr(runtime, "instructions", lambda device: device.type)
    here = passes().folder()
    assert passes(replace(CONFIG.transformer, num_layers=9), window=99).folder() == here
    for other in (passes(num_tokens=5), passes(num_frames=2), passes(dtype="bfloat16"), passes(device="cuda"),
                  passes(replace(CONFIG.transformer, eps=1e-5)), passes(WIDE)):
        assert other.folder() != here
    with monkeypatch.context() as patch:
        patch.setattr(sys.implementation, "cache_tag", "cpython-399")
        assert passes().folder() != here
    assert passes(WIDE, device="cuda", window=9).folder() != passes(WIDE, device="cuda", window=8).folder()
