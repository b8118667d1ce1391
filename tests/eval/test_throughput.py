"""Bench of Wan-size shapes with random weights: names, figures that agree, and what has no room on a GPU."""
import json
from dataclasses import replace

import pytest
import torch

from tests.engine import test_dream_wan
from worldplay.cli.commands import main
from worldplay.engine.dream import DreamWorld
from worldplay.engine.loading import random_configs, random_world
from worldplay.errors import WorldError
from worldplay.eval import latency, throughput
from worldplay.worlds import catalog

RATES = {"copy_gbs": 10.0, "matmul_tflops": 0.1, "attention_tflops": 0.05,
         "attention_tflops_at": {"60 x 420": {"sdpa": 0.04}}}


def toy(config):
    return replace(config, frame_size=test_dream_wan.SIZE,
                   transformer=replace(test_dream_wan.MODEL, has_camera=False))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(throughput, "scaled_down", toy)
    monkeypatch.setattr(throughput, "ceilings", lambda device, dtype: RATES)
    monkeypatch.setattr(throughput, "_PROBED", 3)


def test_a_shape_is_several_configurations_and_a_world_its_own():
    named = [throughput._named(config) for config in random_configs("wan-1.3b")]
    assert [(x["mode"], x["frames_per_chunk"], x["window"], x["steps"]) for x in named] == [
        *(("frame-wise", 1, window, steps) for window in (7, 9, 21) for steps in (1, 2, 4)),
        ("chunk-wise", 3, 21, 4)]
    assert {config.window for config in random_configs("wan-1.3b", steps=2)} == {7, 9, 21}
    world, = random_configs("wan-action")
    assert world.transformer.has_camera and (world.window, world.frames_per_chunk, world.steps) == (20, 4, 4)
    published, = random_configs("causal-forcing-4step")
    assert random_configs("causal-forcing-4step", steps=2) == [replace(published, steps=2)]
    with pytest.raises(WorldError, match="unknown"):
        random_configs("nowhere")


def test_scaled_down_only_in_size():
    for config in (*random_configs("wan-1.3b"), *random_configs("wan-action")):
        small = throughput.scaled_down(config)
        assert throughput._named(small) == throughput._named(config)
        assert replace(small, frame_size=config.frame_size, transformer=config.transformer) == config
        assert small.transformer.head_dim == config.transformer.head_dim
        assert small.transformer.has_camera == config.transformer.has_camera


def test_figures_fit_together(small):
    configs = [random_configs("wan-1.3b")[1], random_configs("wan-1.3b")[-1]]
    figures = throughput.bench_random("wan-1.3b", configs, frames=24, device="cpu")
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["is_scaled_down"] and figures["is_random"] and figures["shape"]["dim"] == 32
    assert {"world", "device", "dtype", "seed", "load_ms", "peak_memory_mib", *RATES} <= figures.keys()
    for config, entry in zip(configs, figures["configs"]):
        assert {"mode", "window", "steps", "frames", "fps", "frame_ms", "first_frame_ms", "latency_ms",
                "decode_ms",
                "one_percent_low_fps", "peak_memory_mib"} <= entry.keys()
        assert entry["frames"] == 24 and set(entry["frame_ms"]) == {"p50", "p95", "p99", "max"}
        assert entry["passes_per_frame"] == (config.steps + 1) / (4 * config.frames_per_chunk)
        assert entry["fps_without_decode"] > 0 and entry["bound_share"] == entry["fps"] / entry["bound_fps"]
        assert set(entry["pass_split_ms"]) == {"linear", "attention", "rest"}
        assert entry["pass_split_ms"]["linear"] > 0 < entry["pass_split_ms"]["attention"]
        assert RATES["attention_tflops"] < entry["ceiling_gflops"] / 1000 < RATES["matmul_tflops"]
    page = throughput.table(figures)
    assert "SCALED DOWN" in page and "assumptions" in page
    assert page.count("frame-wise") == page.count("chunk-wise") == 2


def test_full_size_is_counted_at_full_size():
    two, chunk = (throughput.full_size([config])["configs"][0] for config in (
        random_configs("wan-1.3b", steps=2)[-1], random_configs("wan-1.3b")[-1]))
    assert two["tflop_per_frame"]["all"] - two["tflop_per_frame"]["decode"] == pytest.approx(10.2, rel=0.03)
    flops = chunk["tflop_per_frame"]
    assert flops["all"] - flops["decode"] == pytest.approx(16.9, rel=0.03)
    assert two["memory_mib"]["all"] == pytest.approx(sum(two["memory_mib"].values()) / 2)
    assert set(two["bound_fps"]) == set(throughput.DATA_SHEETS), "no measured rate is mixed in"
    arithmetic = 312 / two["tflop_per_frame"]["all"]
    assert two["bound_fps"]["A800 80 GB"] == pytest.approx(arithmetic, rel=0.01)


def test_the_window_is_full_before_anything_is_timed(small, monkeypatch):
    seen = []

    def noted(world, actions):
        seen.append(world.state.cache.num_frames)
        return latency.played(world, actions)
    monkeypatch.setattr(throughput, "played", noted)
    config = random_configs("wan-1.3b")[-1]
    throughput.bench_random("wan-1.3b", [config], frames=24, device="cpu")
    assert min(seen[1:]) >= config.window > seen[0]


def test_what_does_not_fit_is_said_and_the_others_go_on(small, monkeypatch):
    def room(config, device, held):
        if config.window > 7:
            raise WorldError("device", "no room")
    monkeypatch.setattr(throughput, "check_room", room)
    figures = throughput.bench_random("wan-1.3b", random_configs("wan-1.3b", steps=1)[:2], frames=24,
                                      device="cpu")
    first, second = figures["configs"]
    assert first["fps"] > 0 and second == throughput._named(random_configs("wan-1.3b", steps=1)[1]) | {
        "path": "eager", "problem": "no room"}
    assert "no room" in throughput.table(figures)


def test_random_weights_hold_no_zeros_and_the_codec_is_left_as_it_was():
    config = toy(random_configs("causal-forcing-2step")[0])
    world = random_world(config, device="cpu")
    assert all(p.any() for p in world.transformer.parameters() if p.ndim > 1)
    with throughput._without_decoding(world):
        assert "decode_next" in vars(world.codec)
    assert "decode_next" not in vars(world.codec)


def test_frames_that_come_together_share_their_time():
    ready = [0.5, 0.5, 1.0, 1.0, 3.0, 3.0]
    assert latency.frame_seconds(ready, 2).tolist() == [0.25, 0.25, 1.0, 1.0]
    assert latency.frame_seconds(ready, 1).tolist() == [0, 0.5, 0, 2.0, 0]


def test_a_shape_without_random_is_one_clear_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for argv in (["bench", "wan-1.3b"], ["eval", "wan-1.3b"]):
        assert main(argv) == 1
        out, err = capsys.readouterr()
        assert out == "" and "wan-1.3b is a shape without weights" in err and "bench wan-1.3b --random" in err


def test_shapes_are_no_worlds():
    assert not catalog.SHAPES.keys() & catalog.WORLDS.keys()


def test_both_paths_are_measured_on_a_gpu_and_one_is_on_request(small, monkeypatch):
    assert throughput.paths("auto", torch.device("cpu")) == ("eager",)
    assert throughput.paths("auto", torch.device("meta")) == ("eager", "compiled")
    assert throughput.paths("compiled", torch.device("meta")) == ("compiled",)
    waited = []
    monkeypatch.setattr(DreamWorld, "compile",
                        lambda self, wait: waited.append(wait) or self.info.update(path="compiled"))
    monkeypatch.setattr(throughput, "paths", lambda path, device: ("eager", "compiled"))
    figures = throughput.bench_random("wan-1.3b", random_configs("wan-1.3b", steps=1)[:1], frames=24,
                                      device="cpu")
    assert [entry["path"] for entry in figures["configs"]] == ["eager", "compiled"] and waited == [True]
    assert all(entry["pass_split_ms"]["linear"] > 0 for entry in figures["configs"])
    assert "compiled" in throughput.table(figures)


def test_a_gpu_without_a_compiler_is_measured_eager_unless_code_was_asked_for(monkeypatch, capsys):
    def refuse(self, wait):
        raise WorldError("device", "compiled code is not to be had here (no compiler)")
    monkeypatch.setattr(DreamWorld, "compile", refuse)
    monkeypatch.setattr(throughput, "paths", lambda path, device: ("eager", "compiled"))
    assert main(["bench", "--frames", "10", "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["path"] == "eager" and "(no compiler); measured eager" in said.err
    assert main(["bench", "--frames", "10", "--device", "cpu", "--path", "compiled"]) == 1
