"""Which attention runs: xformers where it is there and right, SDPA otherwise; training's by measurement."""
import time
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from worldplay.models import attention
from worldplay.train import attention_choice
from worldplay.train.attention_choice import fastest_attention


def operator(scale=1.0, error=None):
    """A stand-in for xformers.ops with the layout it documents: q, k, v [b l k d] -> [b l k d]."""
    def memory_efficient_attention(q, k, v):
        if error:
            raise error
        assert q.shape[2:] == k.shape[2:] == v.shape[2:]
        return scale * F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    return SimpleNamespace(memory_efficient_attention=memory_efficient_attention)


@pytest.fixture
def on_gpu(monkeypatch):
    """backend() as a GPU would see it, with `install(ops)` in place of xformers; the sums run on the CPU."""
    def install(ops):
        monkeypatch.setattr(attention, "_xformers", lambda: ops)
        device = SimpleNamespace(type="gpu")
        monkeypatch.setattr(attention.torch, "linspace", lambda *args, device, **rest: linspace(*args, **rest))
        return attention.backend.__wrapped__(device, torch.float32, 64)
    linspace = torch.linspace
    return install


def test_xformers_is_taken_where_it_is_right(on_gpu):
    assert on_gpu(operator()) == "xformers"
    assert on_gpu(None) == "sdpa"


def test_xformers_that_is_wrong_or_does_not_run_is_said_and_left(on_gpu, caplog):
    assert on_gpu(operator(scale=1.01)) == "sdpa" and "off by" in caplog.text
    assert on_gpu(operator(error=NotImplementedError("no operator found\nlong list"))) == "sdpa"
    assert "does not run here (no operator found)" in caplog.text


def test_the_cpu_asks_for_no_xformers(monkeypatch):
    monkeypatch.setattr(attention, "_xformers", lambda: pytest.fail("asked"))
    assert attention.backend.__wrapped__(torch.device("cpu"), torch.float32, 64) == "sdpa"


def test_both_backends_take_the_same_layout(monkeypatch):
    q, k, v = torch.randn(2, 3, 5, 4, 16), torch.randn(2, 4, 30, 16), torch.randn(2, 4, 30, 16)
    by_sdpa = attention.attend(q, k, v)
    monkeypatch.setattr(attention, "_xformers", operator)
    monkeypatch.setattr(attention, "backend", lambda *device: "xformers")
    torch.testing.assert_close(attention.attend(q, k, v), by_sdpa)


@pytest.mark.parametrize("rule", [attention.FrameRule(frames_per_chunk=4), attention.FrameRule(window=1)], ids=str)
def test_chunks_of_one_sequence_without_a_past(rule):
    """Of one sequence, heads can be looked at as if in order when they are not; windows go by strides."""
    q, k, v = torch.randn(3, 1, 4, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    fast, plain = (attention.causal_attention(name)(q, k, v, rule, 1) for name in ("chunks", "plain"))
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)


SIZE = {"rule": attention.FrameRule(window=3), "batch": 1, "num_frames": 4, "num_tokens": 6, "num_heads": 2, "head_dim": 8}


def chosen(monkeypatch, ways):
    """What is chosen among stand-ins where the device is no CPU; the sums run on one."""
    monkeypatch.setattr(attention_choice, "CANDIDATES", tuple(ways))
    monkeypatch.setattr(attention_choice, "causal_attention", (ways | {"plain": attention.plain_attention}).get)
    monkeypatch.setattr(attention_choice.runtime, "synchronize", lambda device: None)
    monkeypatch.setattr(attention_choice.torch, "randn", lambda *a, device, **rest: randn(*a, **rest))
    return fastest_attention(SimpleNamespace(type="gpu"), torch.float32, **SIZE)


randn = torch.randn


def test_trainings_attention_is_the_fastest_that_is_right(monkeypatch):
    def slow(*args):
        time.sleep(0.02)
        return attention.plain_attention(*args)

    def broken(*args):
        raise RuntimeError("no Triton\nat all")
    name, times = chosen(monkeypatch, {"slow": slow, "quick": attention.plain_attention, "broken": broken,
                                       "wrong": lambda *args: 1.1 * attention.plain_attention(*args)})
    assert name == "quick" and times["slow"] > times["quick"]
    assert times["broken"] == "no Triton" and "off by" in times["wrong"]


def test_where_no_way_is_right_the_oracle_itself_trains(monkeypatch, caplog):
    name, _ = chosen(monkeypatch, {"wrong": lambda *args: 1.1 * attention.plain_attention(*args)})
    assert name == "plain" and "the plain one is taken" in caplog.text


def test_a_cpu_has_one_way():
    assert fastest_attention(torch.device("cpu"), torch.float32, **SIZE) == ("chunks", {})
