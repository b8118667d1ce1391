"""The attention backend of play: the fastest right one, measured once per machine and shape, and kept."""
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from tests import ROOT
from worldplay.data.clip_writer import describe
from worldplay.engine import attention_backend
from worldplay.engine.loading import load_world, random_configs, random_world, replace, same_networks
from worldplay.eval import latency, replay
from worldplay.models.attention import kernels
from worldplay.models.attention.kernels import BACKENDS, AttentionShape

CPU = torch.device("cpu")
SHAPE = AttentionShape("gpu", torch.float32, 2, 16, 10, 30)


class Gpu:
    """A stand-in for one on the CPU: backends that take as long as they are told on a clock of its own.

    seconds  backend -> what it takes; scale: what its result is multiplied by; error: what it raises
    runs     how often each was called
    """

    def __init__(self, monkeypatch):
        self.now, self.seconds, self.scale, self.error = 0.0, {"slow": 3e-3, "quick": 1e-3,
                                                               "middle": 2e-3}, {}, {}
        self.name, self.runs = "GPU of a test", dict.fromkeys(self.seconds, 0)
        monkeypatch.setattr(attention_backend.runtime, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(attention_backend.runtime, "device_name", lambda device: self.name)
        monkeypatch.setattr(attention_backend, "candidates", lambda device: tuple(self.seconds))
        monkeypatch.setattr(kernels, "_preferred", {})
        for name in self.seconds:
            monkeypatch.setitem(BACKENDS, name, lambda q, k, v, name=name: self.attend(name, q, k, v))

    def attend(self, name, q, k, v):
        self.runs[name] += 1
        self.now += self.seconds[name]
        if name in self.error:
            raise self.error[name]
        return self.scale.get(name, 1.0) * F.scaled_dot_product_attention(q, k, v)

    def start(self, shape=SHAPE):
        """(what a new process chooses, whether it measured)."""
        attention_backend.choose.cache_clear()
        attention_backend._warn_once.cache_clear()
        kernels._preferred.clear()
        before = sum(self.runs.values())
        name = attention_backend.choose(shape, CPU)
        assert kernels._preferred[shape] == name
        return name, sum(self.runs.values()) > before


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    attention_backend.choose.cache_clear()
    yield Gpu(monkeypatch)
    attention_backend.choose.cache_clear()


@pytest.fixture
def file(gpu):
    return attention_backend._path()


def test_the_fastest_right_one_is_chosen_and_said_in_one_line(gpu, caplog):
    caplog.set_level(logging.INFO)
    gpu.scale["quick"], gpu.error["slow"] = 1.01, NotImplementedError("no kernel\nlong list")
    assert gpu.start() == ("middle", True)
    line, = (record.getMessage() for record in caplog.records)
    assert "middle 2.000 ms" in line
    assert "quick unusable (off by" in line and "slow unusable (no kernel)" in line
    assert "10 x 30 tokens" in line


@pytest.mark.parametrize("wrong", [0.0, 1.01, -1.0, float("nan")])
def test_what_is_wrong_is_out_however_fast(gpu, wrong):
    gpu.seconds["quick"], gpu.scale["quick"] = 1e-6, wrong
    assert gpu.start()[0] == "middle"


def test_in_half_precision_a_result_of_nothing_is_wrong(gpu):
    """Over many keys the mean of values is smaller than what bfloat16 may be off by: zeros would pass."""
    gpu.scale["quick"] = 0.0
    assert gpu.start(AttentionShape("gpu", torch.bfloat16, 2, 64, 50, 4000))[0] == "middle"


def test_operands_lie_as_in_play(gpu):
    """Queries share their projection's rows with keys, keys and values lie in the slots of one cache."""
    q, k, v = attention_backend._operands(SHAPE, CPU)
    assert q.shape == (1, 2, 10, 16) and k.shape == v.shape == (1, 2, 30, 16)
    assert q.stride() == (640, 16, 64, 1) and k.stride() == v.stride() == (960, 480, 16, 1)
    assert k.untyped_storage().data_ptr() == v.untyped_storage().data_ptr()
    assert not any(torch.equal(a, b) for a, b in zip(q.unbind(1), q.roll(1, 1).unbind(1))) and q.ne(0).all()


def test_measuring_draws_no_random_numbers_of_others(gpu):
    state = torch.random.get_rng_state()
    gpu.start()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_later_starts_read_and_measure_nothing(gpu):
    first = gpu.start()
    gpu.seconds = dict.fromkeys(gpu.seconds, 5e-3) | {"slow": 1e-6}
    assert first == ("quick", True) and gpu.start() == ("quick", False)


@pytest.mark.parametrize("changes", [
    {"num_queries": 11}, {"num_keys": 31}, {"num_heads": 3}, {"head_dim": 8}, {"dtype": torch.bfloat16}],
    ids=str)
def test_another_shape_is_measured_anew(gpu, changes):
    gpu.start()
    gpu.seconds["slow"] = 1e-6
    assert gpu.start(SHAPE._replace(**changes)) == ("slow", True)
    assert gpu.start() == ("quick", False), "and the old one is still known"


@pytest.mark.parametrize("change", ["GPU", "torch", "xformers"])
def test_another_machine_or_version_measures_anew(gpu, change, monkeypatch):
    gpu.start()
    gpu.seconds["slow"] = 1e-6
    with monkeypatch.context() as other:
        if change == "GPU":
            gpu.name = "another GPU"
        elif change == "torch":
            other.setattr(torch, "__version__", "3.0")
        else:
            other.setattr(attention_backend.metadata, "version", lambda name: "1.0")
        assert gpu.start() == ("slow", True)
    gpu.name = "GPU of a test"
    assert gpu.start() == ("quick", False)


@pytest.mark.parametrize("damage", [
    "", "{", "[]", "3", '{"format": 1}', '{"format": 2, "measured": {}}', '{"format": 1, "measured": 7}',
    '{"format": 1, "measured": {"x": []}}', '{"format": 1, "measured": {"x": {"attention": []}}}',
    b"\xff\xfe"])
def test_a_damaged_file_is_said_once_and_made_again(gpu, file, damage, caplog):
    gpu.start()
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    gpu.seconds["slow"] = 1e-6
    assert gpu.start() == ("slow", True)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1 and str(file) in caplog.text
    assert gpu.start() == ("slow", False)


def test_a_backend_that_is_none_is_no_choice(gpu, file):
    gpu.start()
    file.write_text(file.read_text().replace('"attention": "quick"', '"attention": "rocket"'))
    assert gpu.start() == ("quick", True)


def test_a_file_that_cannot_be_written_costs_one_warning(gpu, file, caplog):
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    file.parent.write_text("in the way")
    gpu.start()
    attention_backend.choose(SHAPE._replace(num_keys=60), CPU)
    warnings = [record for record in caplog.records if "cannot be kept" in record.getMessage()]
    assert len(warnings) == 1


def test_nothing_but_the_file_is_left_and_a_quicker_process_is_believed(gpu, file, monkeypatch):
    measure = attention_backend.measure

    def overtaken(shape, device):
        monkeypatch.setattr(attention_backend, "measure", measure)
        kept = gpu.seconds
        gpu.seconds = kept | {"slow": 1e-6}
        attention_backend.choose.cache_clear()
        attention_backend.choose(shape, device)  # the other process, from beginning to end
        gpu.seconds = kept
        return measure(shape, device)
    monkeypatch.setattr(attention_backend, "measure", overtaken)
    assert gpu.start() == ("slow", True) and gpu.start() == ("slow", False)
    assert [path.name for path in file.parent.iterdir()] == ["attention.json"]


def test_processes_that_write_at_once_leave_a_whole_file(gpu, file):
    program = """if True:
        import pathlib, sys
        from worldplay.engine import attention_backend as backend
        for i in range(40):
            entry = {"attention": "flash", "ms": {}}
            backend._keep(pathlib.Path(sys.argv[1]), f"{sys.argv[2]} {i}", entry)"""
    writers = [subprocess.Popen([sys.executable, "-c", program, file, str(i)], cwd=ROOT,
                                stderr=subprocess.PIPE, text=True) for i in range(2)]
    while any(writer.poll() is None for writer in writers):
        assert not file.exists() or json.loads(file.read_text())["format"] == 1
    assert [writer.communicate()[1] for writer in writers] == ["", ""]
    assert {"0 39", "1 39"} & json.loads(file.read_text())["measured"].keys()
    assert len(os.listdir(file.parent)) == 1


def test_a_lack_of_memory_is_not_kept(gpu, file):
    gpu.error["quick"] = torch.OutOfMemoryError("no room")
    assert gpu.start() == ("middle", True) and not file.exists()
    del gpu.error["quick"]
    assert gpu.start() == ("quick", True) and file.exists()


def test_where_none_is_right_pytorch_chooses(gpu, caplog):
    gpu.scale = dict.fromkeys(gpu.seconds, 2.0)
    assert gpu.start() == ("sdpa", True) and "sdpa" in attention_backend.measure(SHAPE, CPU)
    assert gpu.start() == ("sdpa", False)


def test_a_processor_times_and_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(attention_backend, "measure", lambda *arguments: pytest.fail("measured"))
    world = load_world(device="cpu")
    assert world.info["attention"] == "sdpa" and not attention_backend._path().exists()


# In a world -------------------------------------------------------------------------------------------------


def test_a_world_is_measured_at_its_full_window_and_plays_by_it(gpu, file):
    """Its clip tells; the window that is not full yet is attended to by PyTorch's own choice."""
    world = load_world(device="cpu", seed=1)
    assert world.info["attention"] == "quick"
    key, = json.loads(file.read_text())["measured"]
    sizes = world.config.transformer
    tokens = sizes.num_tokens(*world.config.latent_shape[1:])
    keys = world.config.window * tokens
    assert f"{sizes.num_heads} heads of {sizes.head_dim}, {tokens} x {keys} tokens" in key
    header = json.loads(json.dumps(describe(world)))
    assert header["info"]["attention"] == "quick"
    world.reset()
    runs = dict(gpu.runs)
    for _ in range(world.config.window):
        list(world.step(world.action_space.decode([0] * world.action_space.num_channels)))
    assert gpu.runs["quick"] > runs["quick"] and gpu.runs["slow"] == runs["slow"]
    attention_backend.choose.cache_clear()
    runs = dict(gpu.runs)
    assert load_world(device="cpu").info["attention"] == "quick" and gpu.runs == runs


def test_every_window_of_the_same_networks_has_its_own(gpu, monkeypatch):
    config = replace(random_configs("doom-maze")[0], window=3)
    world = random_world(config, device="cpu")
    gpu.seconds["slow"] = 1e-6
    other = same_networks(world, replace(config, window=5))
    assert (world.info["attention"], other.info["attention"]) == ("quick", "slow")


@pytest.mark.parametrize("played, words",
                         [("quick", ""), (None, ""), ("flash", "by flash on an H100, here by quick:")])
def test_replay_says_where_attention_is_another(gpu, played, words, caplog):
    world = load_world(device="cpu")
    sidecar = json.loads(json.dumps(describe(world)))
    sidecar["info"] |= {"attention": played, "device_name": "an H100"}
    if played is None:
        del sidecar["info"]["attention"]
    caplog.clear()
    clip = SimpleNamespace(sidecar=sidecar, path=Path("a.mp4"), prompts={}, paths={})
    attention_backend.choose.cache_clear()
    replay.open_for(clip, None, "cpu")
    said = [record.getMessage() for record in caplog.records if "a.mp4" in record.getMessage()]
    assert len(said) == bool(words) and all(words in text for text in said)


def test_a_pass_of_calls_is_timed_together(gpu):
    """What a GPU does not wait for between calls is no time of theirs."""
    def work():
        gpu.now += 1e-3
        return torch.ones(2)
    times = [attention_backend.trial(work, torch.ones(1), CPU, calls=calls,
                                     part=lambda out: out[:1]) for calls in (1, 10)]
    assert times == pytest.approx([1.0, 1.0])


def test_ceilings_tell_every_backend_at_the_shapes_of_wan(monkeypatch):
    monkeypatch.setattr(latency, "measure", lambda shape,
                        device: {"quick": 1.0, "slow": 3.0, "middle": "off by 2"})
    monkeypatch.setattr(latency, "matmul_tflops", lambda device, dtype: 1.0)
    monkeypatch.setattr(latency, "_median_ms", lambda work, device: 1.0)
    figures = latency.ceilings(CPU, torch.float32)
    assert {"copy_gbs", "matmul_tflops", "attention_tflops", "attention_tflops_at"} == set(figures)
    assert figures["attention_tflops"] == pytest.approx(4 * 4 * 2048**2 * 128 / 1e-3 / 1e12)
    assert list(figures["attention_tflops_at"]) == [f"{queries} x {keys}" for queries in (60, 240)
                                                    for keys in (420, 540, 1260)]
    rates = figures["attention_tflops_at"]["240 x 1260"]
    expected = 4 * 2 * 240 * 1260 * 128 / 1e-3 / 1e12
    assert rates["quick"] == pytest.approx(3 * rates["slow"]) == pytest.approx(expected)
    assert rates["middle"].startswith("off by") and json.loads(json.dumps(figures,
                                                                          allow_nan=False)) == figures
