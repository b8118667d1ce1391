"""The video codecs against values of the published code: encoding, decoding by latents, inner values."""
from collections import defaultdict

import pytest
import torch
from einops import rearrange

from tests.parity import cases, close, description, load_case, video_codec


@pytest.mark.parametrize("name", cases("wan_vae", "encode_"))
def test_wan_encoding(name):
    case, vae = load_case("wan_vae", name), video_codec("wan_vae")
    close(vae.encode(rearrange(case["in.pixels"], "b c n H W -> b n c H W")), case["out.latent"], case)


@pytest.mark.parametrize("name", cases("wan_vae", "decode_3", "decode_first"))
def test_wan_decoding(name):
    case, vae = load_case("wan_vae", name), video_codec("wan_vae")
    close(vae.decode(case["in.latent"]), case["out.raw"], case)


@pytest.mark.parametrize("name", cases("wan_vae", "decode_stream"))
def test_wan_stream(name):
    case, vae, state = load_case("wan_vae", name), video_codec("wan_vae"), None
    assert set(case["params"]["chunk_latents"]) == {1}
    for i, latent in enumerate(case["in.latent"].unbind(dim=1)):
        frames, state = vae.decode_next(latent, state)
        close(frames, case[f"out.raw_chunk{i}"], case)


@pytest.mark.parametrize("name", cases("wan_vae", "decode_intermediates"))
def test_wan_intermediates(name):
    case, vae = load_case("wan_vae", name), video_codec("wan_vae")
    modules = {"conv2": "conv2", "decoder.conv1": "decoder_conv1",
               **{f"decoder.{part}.{i}": f"{part}{i}"
                  for part, indices in (("middle", (0, 1, 2)), ("upsamples", (3, 7, 11))) for i in indices}}
    seen = outputs(vae, modules)
    close(vae.decode(case["in.latent"]), case["out.raw"], case)
    checked = {"dbg.conv2"}
    close(torch.cat(seen.pop("conv2"), dim=2), case["dbg.conv2"], case)
    for module, values in seen.items():
        for i, value in enumerate(values):
            key = f"dbg.{modules[module]}_latent{i}"
            close(value, case[key], case)
            checked.add(key)
    assert checked == {key for key in case if key.startswith("dbg.")}


@pytest.mark.parametrize("name", cases("taehv", "decode_4"))
def test_tiny_decoding(name):
    case, tiny, state = load_case("taehv", name), video_codec("taehv"), None
    made = []
    for latent in case["in.latent"].unbind(dim=1):
        frames, state = tiny.decode_next(latent, state)
        made.append(frames)
    assert [frames.shape[1] for frames in made] == case["out.frames_per_latent"].tolist()
    shown = (torch.cat(made, dim=1) + 1) / 2
    close(shown, case["out.raw"][:, 3:], case)
    close(shown.clamp(0, 1), case["out.frames"], case)


@pytest.mark.parametrize("name", cases("taehv", "encode_16"))
def test_tiny_encoding_in_groups(name):
    case, tiny, state = load_case("taehv", name), video_codec("taehv"), None
    for group, expected in zip((2 * case["in.frames"] - 1).split(4, dim=1), case["out.latent"].unbind(dim=1)):
        latent, state = tiny.encode_next(group, state)
        close(latent, expected, case)


@pytest.mark.parametrize("name", cases("taehv", "encode_13"))
def test_tiny_encoding_of_a_whole_video(name):
    case, tiny = load_case("taehv", name), video_codec("taehv")
    close(tiny.encode(2 * case["in.frames"] - 1), case["out.latent"], case)


@pytest.mark.parametrize("name", cases("taehv", "decode_intermediates"))
def test_tiny_intermediates(name):
    case, tiny = load_case("taehv", name), video_codec("taehv")
    layers = case["params"]["layers"]
    seen = outputs(tiny, [f"decoder.{i}" for i in layers])
    tiny.decode(case["in.latent"])
    for i in layers:
        value = torch.cat(seen[f"decoder.{i}"], dim=2)
        close(rearrange(value, "b c t h w -> (b t) c h w"), case[f"dbg.layer{i}"], case)


def outputs(model, names):
    """Module name -> what it gives, [b c t h w], call by call from now on."""
    seen = defaultdict(list)
    for name in names:
        def keep(_, __, out, name=name):
            seen[name].append(rearrange(out, "b t h w c -> b c t h w"))
        model.get_submodule(name).register_forward_hook(keep)
    return seen


def test_every_case_is_run():
    claimed = {"wan_vae": ("encode_", "decode_3", "decode_first", "decode_stream", "decode_intermediates"),
               "taehv": ("decode_4", "encode_16", "encode_13", "decode_intermediates")}
    for fixture, prefixes in claimed.items():
        assert set(description(fixture)["cases"]) == set(cases(fixture, *prefixes))
