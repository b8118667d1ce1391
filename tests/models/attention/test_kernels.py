"""Attention between frames: its backends, which one runs where, and the measured choice of training."""
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from worldplay.engine import attention_backend
from worldplay.models.attention import kernels
from worldplay.models.attention.causal import causal_attention, plain_attention
from worldplay.models.attention.kernels import BACKENDS, AttentionShape, attend, candidates, prefer
from worldplay.models.configs import FrameRule
from worldplay.train import attention_choice
from worldplay.train.attention_choice import fastest_attention

Q, K, V = (torch.randn(2, *sizes, generator=torch.Generator().manual_seed(i))
           for i, sizes in enumerate([(3, 5, 4, 16), (4, 30, 16), (4, 30, 16)]))
SHAPE = AttentionShape("cpu", torch.float32, 4, 16, 15, 30)


@pytest.fixture
def preferred(monkeypatch):
    """The backends that `attend` prefers, AttentionShape -> name, for one test."""
    found = {}
    monkeypatch.setattr(kernels, "_preferred", found)
    return found


def test_attention_runs_by_what_was_preferred_at_its_shape_in_play_alone(preferred, monkeypatch):
    monkeypatch.setitem(BACKENDS, "other", lambda q, k, v: 2 * F.scaled_dot_product_attention(q, k, v))
    own = attend(Q, K, V)
    prefer(SHAPE, "other")
    assert torch.equal(attend(Q, K, V), own), "training goes its own way"
    with torch.no_grad():
        assert torch.equal(attend(Q, K, V), own)
    with torch.inference_mode():
        assert torch.equal(attend(Q, K, V), 2 * own)
        for i, others in enumerate([(Q[:, :2], K, V), (Q, K[:, :, :29], V[:, :, :29]),
                                    (Q[..., :8], K[..., :8], V[..., :8]),
                                    (Q[..., :2, :], K[:, :2], V[:, :2]), [x.double() for x in (Q, K, V)]]):
            own, found = F.scaled_dot_product_attention(others[0].flatten(1, 2).transpose(1, 2),
                                                        *others[1:]), \
                attend(*others)
            assert torch.equal(found.flatten(1, 2).transpose(1, 2), own), f"another shape: {i}"
        mask = torch.ones(15, 30, dtype=torch.bool)
        torch.testing.assert_close(attend(Q, K, V, mask), attend(Q.double(), *(
            x.double() for x in (K, V))).float(), atol=1e-5, rtol=1e-5)


def test_every_backend_takes_and_gives_the_same_layout(monkeypatch):
    """xformers by a stand-in with the layout it documents, q, k, v [b l k d]; SDPA's kernels by their
    shapes.
    """
    def memory_efficient_attention(q, k, v):
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "xformers.ops", SimpleNamespace(
        memory_efficient_attention=memory_efficient_attention))
    q = Q.flatten(1, 2).transpose(1, 2)
    torch.testing.assert_close(BACKENDS["xformers"](q, K, V), BACKENDS["sdpa"](q, K, V))
    empty = [torch.empty_like(x, device="meta", dtype=torch.bfloat16) for x in (q, K, V)]
    for name in ("flash", "cudnn", "efficient"):
        out = BACKENDS[name](*empty)
        assert out.shape == q.shape and out.dtype == torch.bfloat16


def test_a_cpu_has_one_backend_and_asks_for_no_other(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail("asked"))
    assert candidates(torch.device("cpu")) == ("sdpa",)


@pytest.mark.parametrize("rule", [FrameRule(frames_per_chunk=4), FrameRule(window=1)], ids=str)
def test_chunks_of_one_sequence_without_a_past(rule):
    """Of one sequence, heads can be looked at as if in order when they are not; windows go by strides."""
    q, k, v = torch.randn(3, 1, 4, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    fast, plain = (causal_attention(name)(q, k, v, rule, 1) for name in ("chunks", "plain"))
    torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)


SIZE = {"rule": FrameRule(window=3), "batch": 1, "num_frames": 4, "num_tokens": 6, "num_heads": 2,
        "head_dim": 8}


class Clock:
    """A clock that moves only when it is advanced, in place of the time that `runtime.measured` reads."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.seconds)
        monkeypatch.setattr(attention_backend.runtime, "time", clock)

    def taking(self, seconds, function=plain_attention):
        """The function, which takes so long on this clock."""
        def run(*args):
            self.seconds += seconds
            return function(*args)
        return run


def chosen(monkeypatch, ways):
    """What is chosen among stand-ins where the device is no CPU; the sums run on one."""
    monkeypatch.setattr(attention_choice, "CANDIDATES", tuple(ways))
    monkeypatch.setattr(attention_choice, "causal_attention", (ways | {"plain": plain_attention}).get)
    monkeypatch.setattr(attention_backend.runtime, "synchronize", lambda device: None)
    monkeypatch.setattr(attention_choice.torch, "randn", lambda *a, device, **rest: randn(*a, **rest))
    return fastest_attention(SimpleNamespace(type="gpu"), torch.float32, **SIZE)


randn = torch.randn


def test_trainings_attention_is_the_fastest_that_is_right(monkeypatch):
    def broken(*args):
        raise RuntimeError("no Triton\nat all")
    clock = Clock(monkeypatch)
    wrong = clock.taking(1e-3, lambda *args: 1.1 * plain_attention(*args))
    name, times = chosen(monkeypatch, {"slow": clock.taking(3e-3), "quick": clock.taking(2e-3),
                                       "broken": broken, "wrong": wrong})
    assert name == "quick" and times["slow"] == pytest.approx(3) and times["quick"] == pytest.approx(2)
    assert times["broken"] == "no Triton" and "off by" in times["wrong"]


def test_where_no_way_is_right_the_oracle_itself_trains(monkeypatch, caplog):
    name, _ = chosen(monkeypatch, {"wrong": lambda *args: 1.1 * plain_attention(*args)})
    assert name == "plain" and "the plain one is taken" in caplog.text


def test_a_cpu_has_one_way():
    assert fastest_attention(torch.device("cpu"), torch.float32, **SIZE) == ("chunks", {})
