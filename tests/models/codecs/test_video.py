"""What both video codecs promise: a stream equals the whole, states are values, counts, batches, loading."""
import pytest
import torch

from tests.parity import video_codec, weights
from worldplay.errors import WorldError
from worldplay.models.codecs.image import to_float, to_uint8
from worldplay.models.codecs.taehv import TAEHV
from worldplay.models.codecs.wan_vae import WanVAE, WanVAEConfig
from worldplay.worlds.weights import load_into

CODECS = ["wan_vae", "taehv"]
SAME = {"atol": 1e-5, "rtol": 1e-5}  # float32, sums in another order; values are of order 1


@pytest.fixture(params=CODECS, scope="module")
def codec(request):
    return video_codec(request.param)


@pytest.fixture
def latents():
    return torch.randn(2, 5, 16, 2, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def frames():
    return torch.rand(2, 13, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def decoded(codec, latents, state=None):
    made = []
    for latent in latents.unbind(dim=1):
        frames, state = codec.decode_next(latent, state)
        made.append(frames)
    return made, state


def test_a_stream_equals_the_whole_bit_for_bit(codec, latents):
    made, _ = decoded(codec, latents)
    assert [frames.shape for frames in made] == [(2, n, 3, 16, 24) for n in (1, 4, 4, 4, 4)]
    assert torch.equal(torch.cat(made, dim=1), codec.decode(latents))


def test_a_stream_equals_all_latents_at_once(codec, latents):
    """Where nothing is remembered between latents because they run through the layers together."""
    first, state = codec._decode(latents[:, :1], None)
    others, _ = codec._decode(latents[:, 1:], state)
    torch.testing.assert_close(codec.decode(latents), torch.cat([first, others], dim=1), **SAME)
    if isinstance(codec, TAEHV):
        torch.testing.assert_close(codec.decode(latents), codec._decode(latents, None)[0], **SAME)


def test_encoding_equals_all_frames_at_once(codec, frames):
    given = torch.cat([frames, frames[:, -1:].expand(-1, codec.first_frames - 1, -1, -1, -1)], dim=1)
    first, state = codec._encode(given[:, :codec.first_frames], None)
    others, _ = codec._encode(given[:, codec.first_frames:], state)
    whole = codec.encode(frames)
    assert whole.shape == (2, 4, 16, 2, 3) and whole.dtype == torch.float32
    torch.testing.assert_close(whole, torch.cat([first, others], dim=1), **SAME)


def test_an_image_is_one_latent_and_a_beginning_does_not_know_what_follows(codec, frames):
    image = codec.encode(frames[:, :1])
    assert image.shape == (2, 1, 16, 2, 3)
    if isinstance(codec, WanVAE):  # the encoder of TAEHV looks ahead
        torch.testing.assert_close(codec.encode(frames)[:, :1], image, **SAME)
    else:
        still = frames[:, :1].expand(-1, 5, -1, -1, -1)
        torch.testing.assert_close(codec.encode(still)[:, :1], image, **SAME)


def test_frames_that_fill_no_group_are_refused(codec, frames):
    for n in (0, 2, 4, 8, 12):
        with pytest.raises(ValueError, match=f"^{n} frames to encode: expected 1, 5, 9"):
            codec.encode(frames[:, :n])
    with pytest.raises(ValueError, match="leave out the last 3"):
        codec.encode(frames[:, :8])
    with pytest.raises(ValueError, match="multiples of 8"):
        codec.encode(frames[..., :-1])
    _, state = codec.encode_next(frames[:, :codec.first_frames])
    with pytest.raises(ValueError, match="3 frames to encode: expected 4 here"):
        codec.encode_next(frames[:, :3], state)


def test_a_state_is_a_value(codec, latents, frames):
    _, state = decoded(codec, latents[:, :3])
    before = [x.clone() for x in state]
    once, after = codec.decode_next(latents[:, 3], state)
    codec.decode_next(latents[:, 4], after)
    again, _ = codec.decode_next(latents[:, 3], state)
    assert torch.equal(once, again)
    assert all(torch.equal(x, y) for x, y in zip(state, before))
    _, state = codec.encode_next(frames[:, :codec.first_frames])
    group = frames[:, 5:9]
    assert torch.equal(codec.encode_next(group, state)[0], codec.encode_next(group, state)[0])


def test_the_past_is_remembered_and_a_new_video_forgets_it(codec, latents):
    _, state = decoded(codec, latents[:, :3])
    other, _ = codec.decode_next(latents[:, 3], decoded(codec, latents[:, 2:])[1])
    assert (codec.decode_next(latents[:, 3], state)[0] - other).abs().max() > 1e-3
    assert torch.equal(codec.decode_next(latents[:, 0])[0], codec.decode(latents[:, :1]))


def test_sizes_of_the_state_never_change_and_its_first_axis_is_the_batch(codec, latents):
    sizes = [[x.shape for x in decoded(codec, latents[:, :t])[1]] for t in (1, 2, 5)]
    assert sizes[0] == sizes[1] == sizes[2]
    _, state = decoded(codec, latents)
    _, alone = decoded(codec, latents[1:])
    for x, y in zip(state, alone):
        torch.testing.assert_close(x[1:], y, **SAME)
        assert x.untyped_storage().nbytes() == x.nbytes  # and holds nothing else alive


def test_a_batch_equals_its_samples(codec, latents, frames):
    torch.testing.assert_close(codec.decode(latents)[1:], codec.decode(latents[1:]), **SAME)
    torch.testing.assert_close(codec.encode(frames)[1:], codec.encode(frames[1:]), **SAME)


@pytest.mark.parametrize("name", CODECS)
def test_bfloat16_is_finite_and_near_float32(name, latents, frames):
    exact, rounded = video_codec(name), video_codec(name).to(torch.bfloat16)
    made = rounded.decode(latents)
    assert made.dtype == torch.bfloat16 and made.isfinite().all()
    codes = rounded.encode(frames)
    assert codes.dtype == torch.float32 and codes.isfinite().all()
    for value, expected in ((made, exact.decode(latents)), (codes, exact.encode(frames))):
        assert (value.float() - expected).norm() < 0.05 * expected.norm()


def test_frames_become_uint8_and_back(codec, latents):
    made = codec.decode(latents)
    shown = to_uint8(made)
    assert shown.shape == (2, 17, 16, 24, 3) and shown.dtype == torch.uint8
    assert torch.equal(shown[1], to_uint8(made[1]))
    torch.testing.assert_close(to_float(shown), made.clamp(-1, 1), atol=0.5 / 127.5 + 1e-6, rtol=0)


def test_the_latents_statistics_are_not_rounded_with_the_weights():
    config = WanVAEConfig(width=8)
    statistics = WanVAE(config).to(torch.bfloat16).statistics
    assert torch.equal(statistics, torch.tensor([config.latent_mean, config.latent_std]))


@pytest.mark.parametrize("name", CODECS)
def test_other_weights_are_named(name):
    given = weights(name)
    codec, half = video_codec(name), {key: x for key, x in given.items() if not key.startswith("decoder.")}
    load_into(codec, given, "x.pth")
    with pytest.raises(WorldError, match=r"x.pth misses decoder\.(1|conv1)\."):
        load_into(codec, half, "x.pth")
    with pytest.raises(WorldError, match="x.pth has unknown blocks.0"):
        load_into(codec, given | {"blocks.0": torch.zeros(1)}, "x.pth")


def test_a_grow_for_more_frames_is_cut_to_its_last_ones():
    given, tiny = weights("taehv"), video_codec("taehv")
    own = given["decoder.7.conv.weight"]
    given["decoder.7.conv.weight"] = torch.cat([torch.zeros_like(own), own])
    with pytest.raises(WorldError, match="decoder.7.conv.weight"):
        load_into(tiny, given, "x.pth")
    load_into(tiny, tiny.fit(given), "x.pth")
    assert torch.equal(tiny.decoder[7].conv.weight, own)


def test_the_published_sizes():
    def count(module):
        return sum(p.numel() for p in module.parameters())
    with torch.device("meta"):
        vae, tiny = WanVAE(WanVAEConfig()), TAEHV()
        assert (len(vae.state_dict()), count(vae)) == (194, 126_892_531)
        assert (count(tiny.encoder), count(tiny.decoder)) == (1_470_928, 9_844_611)
        for codec, tensors, mib in ((vae, 32, 1801), (tiny, 9, 64)):
            _, state = codec.to(torch.float16).decode_next(torch.empty(1, 16, 60, 104))
            assert len(state) == tensors
            assert round(sum(x.nbytes for x in state) / 2**20) == mib
