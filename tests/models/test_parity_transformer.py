"""The transformer against values of the published code: sequences, cached calls, sampling loops, cameras."""
import pytest
import torch
from einops import rearrange

from tests.models.passes import cameras_at, commit, denoise
from tests.parity import cases, close, every_case, fixtures, load_case, nearest_index, network
from worldplay.diffusion import sample_frame, shifted_sigmas, warp, x0_from_velocity
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.attention.prope import Cameras

BIDIRECTIONAL, CAUSAL = ("wan_bidirectional",), ("wan_causal_t2v", "wan_causal_camera")
DRIVEN = ("tf_", "df_", "kv_", "rolling_", "infer_")


def in_all(kinds, *prefixes):
    return [case for kind in kinds for case in every_case(kind, *prefixes)]


def cameras_of(case):
    """Cameras of all frames, None without; of the published Ks only the focal lengths, whatever their
    principal points.
    """
    if "in.viewmats" not in case:
        return None
    return Cameras.of(case["in.viewmats"], case["in.Ks"].diagonal(dim1=-2, dim2=-1)[..., :2])


def conditions(cameras, start, count):
    """Arguments of a cached pass over `count` frames."""
    return {} if cameras is None else {"cameras": cameras_at(cameras, slice(start, start + count))}


@pytest.mark.parametrize("fixture, name", in_all(BIDIRECTIONAL, "plain", "camera"))
@pytest.mark.parametrize("attention", ["chunks", "plain"])
def test_bidirectional(fixture, name, attention):
    case = load_case(fixture, name)
    x = case["in.x"]
    sigma = (case["in.t"].double() / 1000)[:, None].expand(x.shape[:2])
    model = network(fixture, "keys_camera" if name.startswith("camera") else "keys")
    flow = model(x, sigma, text=case["in.prompt_embeds"], is_causal=False, attention=attention,
                 cameras=cameras_of(case))
    check(case, flow, x)


@pytest.mark.parametrize("fixture, name", in_all(CAUSAL, "tf_", "df_"))
@pytest.mark.parametrize("attention", ["chunks", "plain"])
def test_sequence(fixture, name, attention):
    case = load_case(fixture, name)
    sigma, params = case["in.t"].double() / 1000, case["params"]
    options = {"frames_per_chunk": params["num_frame_per_block"], "cameras": cameras_of(case)}
    if "in.clean_x" in case:
        clean_t = case.get("in.aug_t", torch.zeros_like(case["in.t"]))
        options |= {"clean": case["in.clean_x"], "clean_sigma": clean_t.double() / 1000}
    elif params.get("local_attn_size", -1) != -1:
        options |= {"window": params["local_attn_size"]}
    flow = network(fixture)(case["in.x"], sigma, text=case["in.prompt_embeds"], attention=attention,
                            **options)
    check(case, flow, case["in.x"])


def check(case, flow, x):
    """Flow of noisy frames x, and the clean estimate by the nearest sigma of the published table."""
    close(flow, case["out.flow"], case)
    if "out.x0" in case:
        sigmas = shifted_sigmas(1000)
        sigma = sigmas[nearest_index(case["in.t"], sigmas)]
        close(x0_from_velocity(x, flow, sigma), case["out.x0"], case)


@pytest.mark.parametrize("fixture, name", in_all(CAUSAL, "kv_", "rolling_"))
def test_cached_calls(fixture, name):
    case, model = load_case(fixture, name), network(fixture)
    text, cameras = model.encode_text(case["in.prompt_embeds"]), cameras_of(case)
    starts = case["in.start_frame"].tolist()
    b, chunk = case["in.x"].shape[1:3]
    cache = new_cache(model, case, b, chunk)
    flows = []
    for x, t, start, following in zip(case["in.x"], case["in.t"], starts, [*starts[1:], None]):
        given = {"frame": start, "text": text, **conditions(cameras, start, chunk)}
        flows.append(denoise(model, x, t.double() / 1000, cache, **given))
        if following != start:
            commit(model, x, t.double() / 1000, cache, **given)
    check(case, torch.stack(flows), case["in.x"])


@pytest.mark.parametrize("fixture, name", in_all(CAUSAL, "intermediates"))
def test_intermediates(fixture, name):
    case, model = load_case(fixture, name), network(fixture)
    b, chunk = case["in.x"].shape[:2]
    case["params"] |= {"cache_frames": chunk, "sink_size": 0}
    seen = {}
    for name in ("time_embedding", "time_projection", "blocks.0", "blocks.1"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    start = case["params"]["start_frame"]
    flow = denoise(model, case["in.x"], case["in.t"].double() / 1000, new_cache(model, case, b, chunk),
                   frame=start,
                   text=model.encode_text(case["in.prompt_embeds"]),
                   **conditions(cameras_of(case), start, chunk))
    check(case, flow, case["in.x"])
    close(seen["time_embedding"].flatten(0, 1), case["dbg.time_e"], case)
    close(seen["time_projection"].flatten(0, 1), case["dbg.time_proj"], case)
    close(seen["blocks.0"].flatten(1, 2), case["dbg.block0_out"], case)
    close(seen["blocks.1"].flatten(1, 2), case["dbg.block1_out"], case)


@pytest.mark.parametrize("fixture, name", in_all(CAUSAL, "infer_"))
def test_sampling_loop(fixture, name):
    """From nothing or from given latents, in batches of any size, with any list of steps."""
    case, model = load_case(fixture, name), network(fixture)
    params, noise, renoise = case["params"], case["in.noise"], iter(case["in.renoise"])
    chunk, b = params["num_frame_per_block"], noise.shape[0]
    text, cameras = model.encode_text(case["in.prompt_embeds"]), cameras_of(case)
    cache = new_cache(model, case, b, chunk)
    sigmas = warp(params["denoising_step_list"])
    first_sigmas = warp(params.get("denoising_step_list_first_chunk", params["denoising_step_list"]))
    latents = []

    def given():
        return {"frame": cache.num_frames, "text": text, **conditions(cameras, cache.num_frames, chunk)}

    def put_away(x):
        commit(model, x, 0.0, cache, **given())
        latents.append(x)
    for start in case["in.initial_latent"].split(chunk, dim=1) if "in.initial_latent" in case else ():
        put_away(start)
    for i, start in enumerate(noise.split(chunk, dim=1)):
        def draw(step):
            return rearrange(next(renoise), "(b t) c h w -> b t c h w", b=b) if step else start

        def velocity(x, sigma):
            return denoise(model, x, sigma, cache, **given())
        put_away(sample_frame(velocity, draw, sigmas if i else first_sigmas))
    close(torch.cat(latents, dim=1), case["out.latents"], case)


def test_one_frame_and_then_chunks_is_refused():
    """Published loops can begin with a block of one frame; a cache has chunks of one size, and says so."""
    model = network("wan_causal_t2v")
    cache = KVCache(model.config, batch=1, num_frames=6, frames_per_chunk=3, tokens_per_frame=24)
    with pytest.raises(ValueError, match="a chunk of 1 frames for a cache made for 3 at once"):
        commit(model, torch.zeros(1, 1, 16, 8, 12), 0.0, cache, frame=0,
               text=model.encode_text(torch.zeros(1, 5, 48)))


def new_cache(model, case, batch, chunk):
    _, rows, cols = model.config.patch_size
    h, w = next(case[key] for key in ("in.x", "in.noise") if key in case).shape[-2:]
    return KVCache(model.config, batch=batch, num_frames=case["params"]["cache_frames"],
                   frames_per_chunk=chunk, sink=case["params"]["sink_size"],
                   tokens_per_frame=(h // rows) * (w // cols))


def test_every_case_is_run():
    for fixture in (each for kind in CAUSAL for each in fixtures(kind)):
        assert set(cases(fixture, "")) == set(cases(fixture, "intermediates", "prope_unit", *DRIVEN))
    for fixture in fixtures("wan_bidirectional"):
        assert set(cases(fixture, "")) == set(cases(fixture, "camera", "plain"))
    assert {name for _, name in in_all(CAUSAL, "infer_2step")} >= {"infer_2step", "infer_2step_image"}
    assert len(fixtures("wan_causal_t2v")) >= 2
