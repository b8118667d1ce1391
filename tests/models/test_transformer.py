"""The transformer's own promises: fast equals plain, no leak from the future, the cache equals the mask."""
import copy

import pytest
import torch

from tests.models.passes import commit, denoise
from worldplay.models.attention import chunks
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.attention.rope import frame_rotary, rotate
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer, fuse_for_inference

TINY = TransformerConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, in_channels=4, out_channels=4,
                         patch_size=(1, 3, 2), freq_dim=32, action_channels=3)
CHANNELS, HEIGHT, WIDTH = 4, 6, 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = Transformer(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(False).eval()


def sequence(t, b=2, seed=1):
    """Inputs of a teacher-forced pass of t frames."""
    rng = torch.Generator().manual_seed(seed)
    noisy, clean = torch.randn(2, b, t, CHANNELS, HEIGHT, WIDTH, generator=rng)
    sigma, clean_sigma = torch.rand(2, b, t, generator=rng)
    return {"noisy": noisy, "sigma": sigma, "clean": clean, "clean_sigma": clean_sigma / 2,
            "actions": torch.randn(b, t, 3, generator=rng),
            "action_mask": torch.rand(b, t, generator=rng) > 0.2,
            "columns": torch.randn(b, t, generator=rng, dtype=torch.float64).cumsum(1)}


RULES = [{}, {"window": 3}, {"window": 4, "sink": 1},
         {"window": 4, "sink": 1, "sink_position": "before_window"},
         {"window": 5, "sink": 2, "sink_position": "before_window"},
         {"window": 5, "sink": 1, "frames_per_chunk": 3},
         {"window": 6, "sink": 2, "frames_per_chunk": 3, "sink_position": "before_window"}]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("is_teacher_forced", [True, False])
def test_fast_equals_plain(model, rule, is_teacher_forced):
    model.requires_grad_(True)
    inputs = sequence(9)
    if not is_teacher_forced:
        del inputs["clean"], inputs["clean_sigma"]
    results = []
    for attention in ("chunks", "plain"):
        model.zero_grad()
        velocity = model(**inputs, **rule, attention=attention)
        (velocity * inputs["noisy"]).sum().backward()
        results.append((velocity.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for fast, plain in zip(results[0][1], results[1][1]):
        torch.testing.assert_close(fast, plain, atol=2e-5 * max(1, plain.abs().max().item()), rtol=0)


def new_cache(model, b, **rule):
    return KVCache(model.config, batch=b, num_frames=rule.pop("window"),
                   tokens_per_frame=(HEIGHT // 3) * (WIDTH // 2), **rule)


def by_chunk(inputs, size):
    """The frames of a sequence, chunk by chunk: (first frame, {name: its part})."""
    for start in range(0, inputs["noisy"].shape[1], size):
        yield start, {name: x[:, start:start + size] for name, x in inputs.items()}


def conditions_of(part):
    return {name: part[name] for name in ("actions", "action_mask", "columns")}


def play(model, inputs, cache, size, first=0):
    """Velocity of every noisy frame, seen from the clean ones in the cache."""
    out = []
    for start, part in by_chunk(inputs, size):
        out.append(denoise(model, part["noisy"], part["sigma"], cache, frame=first + start,
                           **conditions_of(part)))
        commit(model, part["clean"], part["clean_sigma"], cache, frame=first + start, **conditions_of(part))
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_cache_equals_mask_over_three_windows(model, rule):
    size = rule.get("frames_per_chunk", 1)
    inputs = sequence(3 * rule["window"] // size * size)
    expected = model(**inputs, **rule, attention="plain")
    cached = play(model, inputs, new_cache(model, 2, **rule), size)
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES[2:5], ids=str)
def test_fast_groups_agree(model, rule, monkeypatch):
    """Chunks multiplied one at a time, some and all at once; also a sequence shorter than its sink."""
    inputs = sequence(7)
    expected = model(**inputs, **rule)
    for limit in (1, 10_000):
        monkeypatch.setattr(chunks, "GROUP_BYTES", limit)
        torch.testing.assert_close(model(**inputs, **rule), expected, atol=1e-5, rtol=1e-5)
    short = sequence(1)
    plain = model(**short, **rule, attention="plain")
    torch.testing.assert_close(model(**short, **rule), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("is_teacher_forced", [True, False])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_equals_plain_forward(model, rule, is_teacher_forced):
    """On the CPU it has no backward pass; the one on a GPU is tested there."""
    inputs = sequence(9)
    if not is_teacher_forced:
        del inputs["clean"], inputs["clean_sigma"]
    with torch.no_grad():
        flex, plain = (model(**inputs, **rule, attention=name) for name in ("flex", "plain"))
    torch.testing.assert_close(flex, plain, atol=1e-5, rtol=1e-5)


def test_an_unknown_attention_is_refused(model):
    with pytest.raises(ValueError, match="expected one of plain, chunks, flex"):
        model(**sequence(2), attention="fast")


@pytest.mark.parametrize("attention", ["chunks", "plain"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_leak_from_the_future(model, rule, attention):
    size = rule.get("frames_per_chunk", 1)
    changed_from = 6
    inputs, other = sequence(9), sequence(9, seed=2)
    # Noisy frames must not see each other either: every noisy chunk but the one compared is changed.
    for frame in (0, 3):
        chunk = slice(frame, frame + size)
        mixed = {name: torch.cat([x[:, :changed_from], other[name][:, changed_from:]], dim=1)
                 for name, x in inputs.items()}
        mixed["noisy"] = other["noisy"].clone()
        mixed["noisy"][:, chunk] = inputs["noisy"][:, chunk]
        mixed["clean"][:, chunk] = other["clean"][:, chunk]
        here, there = (model(**x, **rule, attention=attention)[:, chunk] for x in (inputs, mixed))
        assert torch.equal(here, there)


def test_the_past_is_seen(model):
    inputs = sequence(5)
    changed = dict(inputs, clean=inputs["clean"].clone())
    changed["clean"][:, 2] += 1
    here, there = (model(**x, window=3) for x in (inputs, changed))
    differs = (here - there).abs().amax(dim=(0, 2, 3, 4))
    assert differs[:3].max() == 0 and differs[3:].min() > 1e-4


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_denoising_never_writes_the_cache(model, rule):
    size = rule.get("frames_per_chunk", 1)
    inputs, cache = sequence(9), new_cache(model, 2, **rule)
    for start, part in by_chunk(inputs, size):
        before, held = cache.past(), (cache.first_frame, cache.num_frames)
        first = denoise(model, part["noisy"], part["sigma"], cache, frame=start, **conditions_of(part))
        denoise(model, part["clean"], 0.3, cache, frame=start, **conditions_of(part))
        assert torch.equal(cache.past(), before) and held == (cache.first_frame, cache.num_frames)
        again = denoise(model, part["noisy"], part["sigma"], cache, frame=start, **conditions_of(part))
        assert torch.equal(first, again)
        commit(model, part["clean"], part["clean_sigma"], cache, frame=start, **conditions_of(part))
        assert not torch.equal(cache.past(), before)


@pytest.mark.parametrize("sink_position", ["absolute", "before_window"])
def test_positions_without_end(model, sink_position):
    rule = {"window": 4, "sink": 1, "sink_position": sink_position}
    inputs = sequence(7)
    near, far = (play(model, inputs, new_cache(model, 2, **rule), 1, first=first) for first in (10, 100_000))
    torch.testing.assert_close(far, near, atol=2e-5, rtol=0)  # float32 rounding of other angles


def test_moved_sinks_stay_near(model):
    """Past the window, sink keys before it act the same at every frame; absolute ones drift away."""
    rule = {"window": 4, "sink": 1}
    inputs = sequence(1)
    rest = sequence(4, seed=3)
    outputs = {}
    for position in ("absolute", "before_window"):
        for length in (3, 6):
            cycles = [inputs, *[rest] * length]
            long = {name: torch.cat([x[name] for x in cycles], dim=1) for name in inputs}
            outputs[position, length] = model(**long, **rule, sink_position=position)[:, -1]
    absolute, moved = ((outputs[position, 6] - outputs[position, 3]).abs().max()
                       for position in ("absolute", "before_window"))
    assert absolute > 100 * moved


def test_snapshot(model):
    rule = {"window": 4, "sink": 1, "sink_position": "before_window"}
    inputs, later = sequence(6), sequence(3, seed=5)
    cache = new_cache(model, 2, **rule)
    play(model, inputs, cache, 1)
    saved = cache.clone()
    first = play(model, later, cache, 1, first=6)
    assert not torch.equal(saved.past(), cache.past())
    again = play(model, later, saved.clone(), 1, first=6)
    assert torch.equal(first, again)


def test_wrong_frame_is_refused(model):
    inputs, cache = sequence(2), new_cache(model, 2, window=4)
    part = next(by_chunk(inputs, 1))[1]
    commit(model, part["clean"], 0.0, cache, frame=5)
    with pytest.raises(ValueError, match="frame 5 is not the next one"):
        denoise(model, part["noisy"], 1.0, cache, frame=5)
    with pytest.raises(ValueError, match="chunk of 2 frames"):
        denoise(model, inputs["noisy"], 1.0, cache, frame=6)


def test_fused_equals_separate(model):
    inputs = sequence(6)
    expected = play(model, inputs, new_cache(model, 2, window=3), 1)
    fused = play(fuse_for_inference(model), inputs, new_cache(model, 2, window=3), 1)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


def test_compiled_and_eager_turns_agree(monkeypatch):
    x = torch.randn(2, 3, 6, 2, 24, generator=torch.Generator().manual_seed(0))
    rotary = frame_rotary(torch.tensor([0, 5, 1000]), (2, 3), 24, columns=torch.rand(2, 3))
    eager = rotate(x, rotary)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(x, rotary), eager, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(eager.norm(dim=-1), x.norm(dim=-1))


def test_unknown_actions(model):
    inputs = sequence(4)
    hidden = dict(inputs, action_mask=torch.zeros(2, 4, dtype=torch.bool))
    none = {name: x for name, x in inputs.items() if name not in ("actions", "action_mask")}
    known = dict(inputs, action_mask=torch.ones(2, 4, dtype=torch.bool))
    unmasked = {name: x for name, x in inputs.items() if name != "action_mask"}
    assert torch.equal(model(**hidden), model(**none))
    assert torch.equal(model(**known), model(**unmasked))
    assert not torch.equal(model(**known), model(**none))


def test_bfloat16_weights_run_in_bfloat16(model):
    inputs = sequence(6)
    expected = model(**inputs, window=3)
    low = copy.deepcopy(model).bfloat16()
    velocity = low(**inputs, window=3)
    assert velocity.dtype == torch.bfloat16
    assert (velocity - expected).square().mean() < 1e-3 * expected.square().mean()
    cache = new_cache(low, 2, window=3, dtype=torch.bfloat16)
    cached = play(low, inputs, cache, 1)
    assert (cached - expected).square().mean() < 1e-3 * expected.square().mean()


@pytest.mark.parametrize("arguments, message", [
    ({"attention": "dense"}, "attention 'dense'"), ({"window": 1, "sink": 1}, "window 1 has no room"),
    ({"sink_position": "nowhere"}, "sink_position 'nowhere'"), ({"frames_per_chunk": 2}, "not a multiple"),
    ({"is_causal": False}, "is_causal=False"), ({"text": torch.zeros(1, 1, 1)}, "takes no text")])
def test_bad_arguments_name_themselves(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**sequence(3), **arguments)


def test_bad_sizes_name_themselves(model):
    with pytest.raises(ValueError, match="patches of 3 x 2"):
        model(torch.zeros(1, 1, CHANNELS, 4, 4), 1.0)
    with pytest.raises(ValueError, match="dim 50"):
        TransformerConfig(dim=50, num_heads=3)
