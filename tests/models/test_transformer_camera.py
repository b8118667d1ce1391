"""The transformer with a camera: only relative poses count, the cache equals the mask, nothing drifts."""
import copy
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch

from tests.models.passes import cameras_at, commit, denoise
from tests.models.test_transformer import CHANNELS, RULES, TINY, by_chunk, new_cache, sequence
from tests.models.test_transformer import conditions_of as base_conditions
from worldplay.action import Action
from worldplay.camera import TRAINING_INTRINSICS, CameraRig
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.attention.prope import Cameras, rigid_inverse
from worldplay.models.configs import TransformerConfig
from worldplay.models.lora import add_adapters, merged_weights
from worldplay.models.transformer import Transformer, fuse_for_inference

CAMERA = replace(TINY, has_camera=True)


@pytest.fixture
def model():
    return filled(CAMERA)


def filled(config):
    torch.manual_seed(0)
    network = Transformer(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(False).eval()


def motions(*shape, seed=1):
    """Rigid motions [... 4 4] that turn by any angle and move by about a unit."""
    rng = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=rng)).Q
    turn = turn * torch.linalg.det(turn)[..., None, None]
    motion = torch.eye(4).repeat(*shape, 1, 1)
    motion[..., :3, :3], motion[..., :3, 3] = turn, torch.randn(*shape, 3, generator=rng)
    return motion


def with_cameras(inputs, seed=1, motion=None):
    """The same inputs of `sequence` with a wild camera for every frame, seen from another world frame for a
    motion.
    """
    shape = inputs["noisy"].shape[:2]
    poses = motions(*shape, seed=seed)
    focal = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed)) + 0.5
    return inputs | {"cameras": Cameras.of(poses if motion is None else poses @ motion, focal)}


def part_of(inputs, frames):
    return {name: cameras_at(x, frames) if name == "cameras" else x[:, frames] for name, x in inputs.items()}


def conditions_of(part):
    return base_conditions(part) | {"cameras": part["cameras"]}


def play(model, inputs, cache, size, first=0):
    """Velocity of every noisy frame, seen from the clean ones in the cache."""
    out = []
    for start in range(0, inputs["noisy"].shape[1], size):
        part = part_of(inputs, slice(start, start + size))
        out.append(denoise(model, part["noisy"], part["sigma"], cache, frame=first + start,
                           **conditions_of(part)))
        commit(model, part["clean"], part["clean_sigma"], cache, frame=first + start, **conditions_of(part))
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("rule", RULES[1:], ids=str)
def test_cache_equals_mask_over_three_windows(model, rule):
    size = rule.get("frames_per_chunk", 1)
    inputs = with_cameras(sequence(3 * rule["window"] // size * size))
    expected = model(**inputs, **rule, attention="plain")
    cached = play(model, inputs, new_cache(model, 2, **rule), size)
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("is_teacher_forced", [True, False])
def test_fast_equals_plain(model, rule, is_teacher_forced):
    inputs = with_cameras(sequence(6))
    if not is_teacher_forced:
        del inputs["clean"], inputs["clean_sigma"]
    results = [gradients(model, attention=attention, **inputs, **rule) for attention in ("chunks", "plain")]
    agree(*results)


def gradients(model, **inputs):
    """(velocity, gradient of every weight) of a pass."""
    model.requires_grad_(True).zero_grad()
    velocity = model(**inputs)
    (velocity * inputs["noisy"]).sum().backward()
    return velocity.detach(), [p.grad.clone() for p in model.parameters()]


def agree(here, there):
    torch.testing.assert_close(here[0], there[0], atol=1e-5, rtol=1e-5)
    for x, y in zip(here[1], there[1]):
        torch.testing.assert_close(x, y, atol=2e-5 * max(1, y.abs().max().item()), rtol=0)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_equals_plain_forward(model):
    """Also where sinks move in time, in one branch and not in the other."""
    inputs = with_cameras(sequence(5))
    rule = {"window": 3, "sink": 1, "sink_position": "before_window"}
    flex, plain = (model(**inputs, **rule, attention=name) for name in ("flex", "plain"))
    torch.testing.assert_close(flex, plain, atol=1e-5, rtol=1e-5)


def test_blocks_computed_again_give_the_same(model):
    inputs = with_cameras(sequence(4))
    kept = gradients(model, **inputs, window=3)
    model.checkpoint_activations = True
    agree(gradients(model, **inputs, window=3), kept)


def test_the_world_frame_does_not_count(model):
    inputs, motion = sequence(5), motions(seed=7)
    here, there = (model(**with_cameras(inputs, motion=x), window=3) for x in (None, motion))
    torch.testing.assert_close(there, here, atol=2e-5, rtol=1e-5)
    turned_alone = with_cameras(inputs)
    turned_alone["cameras"].matrices[:, 2] @= motion
    turned_alone["cameras"].inverses[:, 2] = rigid_inverse(motion) @ turned_alone["cameras"].inverses[:, 2]
    assert (model(**turned_alone, window=3) - here).abs().max() > 1e-2, "this network feels its cameras"


def test_no_camera_is_not_the_camera_at_rest(model):
    inputs = sequence(4)
    rest = Cameras.of(torch.eye(4).expand(2, 4, 4, 4), TRAINING_INTRINSICS)
    assert (model(**inputs) - model(**inputs, cameras=rest)).abs().max() > 1e-2


@pytest.mark.parametrize("attention", ["chunks", "plain"])
@pytest.mark.parametrize("rule", RULES[2:6], ids=str)
def test_no_leak_from_the_future(model, rule, attention):
    """Neither the frames to come nor their cameras change anything, nor other noisy chunks."""
    inputs, other = with_cameras(sequence(9)), with_cameras(sequence(9, seed=2), seed=2)
    size, changed_from = rule.get("frames_per_chunk", 1), 6
    for frame in (0, 3):
        chunk = slice(frame, frame + size)
        mixed = {name: joined(x, other[name], changed_from) for name, x in inputs.items()}
        mixed["noisy"] = other["noisy"].clone()
        mixed["noisy"][:, chunk] = inputs["noisy"][:, chunk]
        mixed["clean"][:, chunk] = other["clean"][:, chunk]
        here, there = (model(**x, **rule, attention=attention)[:, chunk] for x in (inputs, mixed))
        assert torch.equal(here, there)


def joined(x, other, frame):
    """x up to the frame, other from there on."""
    if isinstance(x, Cameras):
        return Cameras(*(joined(*parts, frame) for parts in zip(x, other)))
    return torch.cat([x[:, :frame], other[:, frame:]], dim=1)


@pytest.mark.parametrize("rule", [RULES[2], RULES[6]], ids=str)
def test_denoising_never_writes_the_cache(model, rule):
    size = rule.get("frames_per_chunk", 1)
    inputs, cache = with_cameras(sequence(12)), new_cache(model, 2, **rule)
    other = with_cameras(inputs, seed=3)
    for start in range(0, 12, size):
        part, wrong = (part_of(x, slice(start, start + size)) for x in (inputs, other))
        before = cache.past()
        first = denoise(model, part["noisy"], part["sigma"], cache, frame=start, **conditions_of(part))
        denoise(model, part["clean"], 0.3, cache, frame=start, **conditions_of(wrong))
        assert torch.equal(cache.past(), before)
        assert torch.equal(denoise(model, part["noisy"], part["sigma"], cache, frame=start,
                                   **conditions_of(part)), first)
        commit(model, part["clean"], part["clean_sigma"], cache, frame=start, **conditions_of(part))


@pytest.mark.parametrize("rule", [RULES[1], RULES[3], RULES[6]], ids=str)
def test_rebasing_a_cache_changes_nothing(model, rule):
    size, motion = rule.get("frames_per_chunk", 1), motions(seed=7)
    inputs = sequence(12)
    expected = play(model, with_cameras(inputs), new_cache(model, 2, **rule), size)
    cache = new_cache(model, 2, **rule)
    before = play(model, part_of(with_cameras(inputs), slice(6)), cache, size)
    saved = cache.clone()
    cache.rebase(motion)
    rest = part_of(with_cameras(inputs, motion=motion), slice(6, 12))
    after = play(model, rest, cache, size, first=6)
    torch.testing.assert_close(torch.cat([before, after], dim=1), expected, atol=2e-5, rtol=1e-5)
    again = play(model, part_of(with_cameras(inputs), slice(6, 12)), saved, size, first=6)
    assert torch.equal(again, expected[:, 6:]), "a snapshot keeps its own anchor"


LENGTH, WINDOW = 3000, 4


def test_a_long_walk():
    """3000 steps: with new anchors on the way the last frame comes out as if the walk had begun just before
    it.
    """
    model, rng = filled(replace(CAMERA, num_layers=1)), np.random.default_rng(0)
    actions = [Action({"w"}, (rng.uniform(-3, 3) if rng.random() < 0.1 else 0.0, 0.0)) for _ in range(LENGTH)]
    frames = torch.randn(LENGTH, 1, 1, CHANNELS, 3, 2, generator=torch.Generator().manual_seed(0))
    rig, cache = CameraRig(), KVCache(model.config, batch=1, num_frames=WINDOW, tokens_per_frame=1)
    for frame, (action, x) in enumerate(zip(actions, frames)):
        rig, motion = rig.step(action).rebased()
        if motion is not None:
            cache.rebase(motion)
        last = denoise(model, x, 1.0, cache, frame=frame,
                       cameras=camera(rig)) if frame == LENGTH - 1 else None
        commit(model, x, 0.0, cache, frame=frame, cameras=camera(rig))
    assert len(cache._positions._held) == WINDOW - 1, "what is kept does not grow"
    begin = LENGTH - 1 - WINDOW  # in one layer the last frame hangs on no more
    walked = list(accumulate(actions, CameraRig.step, initial=CameraRig()))[begin + 1]
    fresh, far = (walk_on(model, start, actions[begin:], frames[begin:], begin) for start in (CameraRig(),
                                                                                              walked))
    assert np.linalg.norm(walked.pose[:3, 3]) > 100
    error = (last - fresh).abs().max()
    assert error < 5e-6 and (far - fresh).abs().max() > 10 * error


def walk_on(model, rig, actions, frames, first):
    """The last frame of a walk by a rig that keeps its anchor; actions[0] has been carried out."""
    cache = KVCache(model.config, batch=1, num_frames=WINDOW, tokens_per_frame=1)
    for frame, (action, x) in enumerate(zip(actions[1:], frames[:-1]), first):
        commit(model, x, 0.0, cache, frame=frame, cameras=camera(rig))
        rig = rig.step(action)
    return denoise(model, frames[-1], 1.0, cache, frame=first + len(frames) - 1, cameras=camera(rig))


def camera(rig):
    return Cameras.of(torch.from_numpy(rig.viewmat)[None, None], TRAINING_INTRINSICS)


def test_a_sink_keeps_its_place_through_many_anchors(model):
    cache, inputs = new_cache(model, 1, window=4, sink=1), with_cameras(sequence(1, b=1))
    play(model, inputs, cache, 1)
    motion = motions(seed=3).double()
    motion[:3, :3] = torch.linalg.qr(motion[:3, :3]).Q
    for _ in range(1000):
        cache.rebase(motion)
        cache.rebase(rigid_inverse(motion))
    held = cache._positions._held[0].inverse.float()
    torch.testing.assert_close(held, inputs["cameras"].inverses[:, 0], atol=1e-6, rtol=0)


def test_one_cache_for_both_branches(model):
    with_camera, without = (KVCache(config, batch=1, num_frames=4, tokens_per_frame=4) for config in (CAMERA,
                                                                                                      TINY))
    assert with_camera._slots.shape == without._slots.shape


@pytest.mark.parametrize("rule", [RULES[1], RULES[2], RULES[5]], ids=str)
def test_a_new_branch_begins_without_effect(rule):
    """Weights without it, loaded into a transformer that has it: the same values."""
    plain, size = filled(TINY), rule.get("frames_per_chunk", 1)
    model = Transformer(CAMERA).requires_grad_(False)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing == [f"blocks.{i}.self_attn.prope_o.{name}" for i in range(2)
                                          for name in ("weight", "bias")]
    inputs = sequence(9)
    expected = plain(**inputs, **rule)
    assert torch.equal(model(**with_cameras(inputs), **rule), expected)
    assert torch.equal(model(**inputs, **rule), expected)
    cached = play(model, with_cameras(inputs), new_cache(model, 2, **rule), size)
    parts = [part for _, part in by_chunk(inputs, size)]
    cache = new_cache(plain, 2, **rule)
    for i, part in enumerate(parts):
        velocity = denoise(plain, part["noisy"], part["sigma"], cache, frame=i * size,
                           **base_conditions(part))
        torch.testing.assert_close(cached[:, i * size:(i + 1) * size], velocity, atol=1e-5, rtol=1e-5)
        commit(plain, part["clean"], part["clean_sigma"], cache, frame=i * size, **base_conditions(part))


def test_fused_equals_separate(model):
    inputs = with_cameras(sequence(6))
    expected = play(model, inputs, new_cache(model, 2, window=3), 1)
    fused = play(fuse_for_inference(model), inputs, new_cache(model, 2, window=3), 1)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


def test_adapters_learn_the_branch_and_merge(model):
    inputs = with_cameras(sequence(4))
    expected = model(**inputs)
    adapted = add_adapters(copy.deepcopy(model).requires_grad_(True), rank=2, generator=torch.Generator())
    torch.testing.assert_close(adapted(**inputs), expected)
    adapted(**inputs).square().sum().backward()
    up = adapted.blocks[1].self_attn.prope_o.up
    assert up.grad.abs().max() > 0
    up.data += 0.1
    model.load_state_dict(merged_weights(adapted.state_dict()))
    torch.testing.assert_close(model(**inputs), adapted(**inputs).detach())
    assert (model(**inputs) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["chunks", "flex"])
def test_shapes_without_values(attention):
    with torch.device("meta"):
        model = Transformer(CAMERA)
        inputs = {name: torch.empty_like(x, device="meta") for name, x in sequence(4).items()}
        cameras = Cameras.of(torch.empty(2, 4, 4, 4), torch.empty(2, 4, 2))
    velocity = model(**inputs, cameras=cameras, window=3, sink=1, sink_position="before_window",
                     attention=attention)
    assert velocity.shape == inputs["noisy"].shape
    velocity.sum().backward()
    assert model.blocks[0].self_attn.prope_o.weight.grad is not None


def test_bfloat16_weights_run_in_bfloat16(model):
    inputs = with_cameras(sequence(6))
    expected = model(**inputs, window=3)
    low = copy.deepcopy(model).bfloat16()
    cached = play(low, inputs, new_cache(low, 2, window=3, dtype=torch.bfloat16), 1)
    for velocity in (low(**inputs, window=3), cached):
        assert velocity.dtype == torch.bfloat16
        assert (velocity - expected).square().mean() < 2e-3 * expected.square().mean()


def test_what_does_not_fit_is_refused(model):
    inputs, cache = with_cameras(sequence(4)), new_cache(model, 2, window=3)
    with pytest.raises(ValueError, match="its has_camera is False"):
        filled(TINY)(**inputs)
    with pytest.raises(ValueError, match="cameras of 2 frames for 4 frames"):
        model(**inputs | {"cameras": cameras_at(inputs["cameras"], slice(2))})
    part = part_of(inputs, slice(1))
    commit(model, part["clean"], 0.0, cache, frame=0, **conditions_of(part))
    with pytest.raises(ValueError, match="for all frames of a cache, or for none"):
        denoise(model, part["clean"], 0.0, cache, frame=1, **base_conditions(part))
    with pytest.raises(ValueError, match="no world coordinates to change"):
        new_cache(filled(TINY), 1, window=3).rebase(motions())
    with pytest.raises(ValueError, match=r"viewmats \[4, 4\]"):
        Cameras.of(torch.eye(4), TRAINING_INTRINSICS)
    with pytest.raises(ValueError, match=r"focal lengths \[3, 3\]"):
        Cameras.of(motions(1, 1), torch.eye(3))
    with pytest.raises(ValueError, match="a head of 6 channels must be a multiple of 4"):
        TransformerConfig(dim=12, num_heads=2, has_camera=True)


def test_sizes_of_the_published_camera_model():
    with torch.device("meta"):
        sizes = dict(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_channels=16, out_channels=16,
                     text_dim=4096)
        model = Transformer(TransformerConfig(**sizes, has_camera=True))
    assert len(model.state_dict()) == 885 and sum(p.numel() for p in model.parameters()) == 1_489_821_760
