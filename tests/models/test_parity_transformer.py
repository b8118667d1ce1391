"""The transformer against values of the published code: whole sequences, cached calls, sampling loops."""
import pytest
import torch
from einops import rearrange

from tests.models.passes import commit, denoise
from tests.parity import cases, close, description, load_case, network
from worldplay.diffusion import nearest_index, sample_frame, shifted_sigmas, warp, x0_from_velocity
from worldplay.models.attention.kv_cache import KVCache

CAUSAL = "wan_causal_t2v"


@pytest.mark.parametrize("name", cases("wan_bidirectional", "plain"))
@pytest.mark.parametrize("attention", ["chunks", "plain"])
def test_bidirectional(name, attention):
    case = load_case("wan_bidirectional", name)
    x = case["in.x"]
    sigma = (case["in.t"].double() / 1000)[:, None].expand(x.shape[:2])
    model = network("wan_bidirectional")
    flow = model(x, sigma, text=case["in.prompt_embeds"], is_causal=False, attention=attention)
    check(case, flow, x)


@pytest.mark.parametrize("name", cases(CAUSAL, "tf_", "df_"))
@pytest.mark.parametrize("attention", ["chunks", "plain"])
def test_sequence(name, attention):
    case = load_case(CAUSAL, name)
    sigma, params = case["in.t"].double() / 1000, case["params"]
    options = {"frames_per_chunk": params["num_frame_per_block"]}
    if "in.clean_x" in case:
        clean_t = case.get("in.aug_t", torch.zeros_like(case["in.t"]))
        options |= {"clean": case["in.clean_x"], "clean_sigma": clean_t.double() / 1000}
    elif params.get("local_attn_size", -1) != -1:
        options |= {"window": params["local_attn_size"]}
    flow = network(CAUSAL)(case["in.x"], sigma, text=case["in.prompt_embeds"], attention=attention, **options)
    check(case, flow, case["in.x"])


def check(case, flow, x):
    """Flow of noisy frames x, and the clean estimate by the nearest sigma of the published table."""
    close(flow, case["out.flow"], case)
    if "out.x0" in case:
        sigmas = shifted_sigmas(1000)
        sigma = sigmas[nearest_index(case["in.t"], sigmas)]
        close(x0_from_velocity(x, flow, sigma), case["out.x0"], case)


@pytest.mark.parametrize("name", cases(CAUSAL, "kv_", "rolling_"))
def test_cached_calls(name):
    case, model = load_case(CAUSAL, name), network(CAUSAL)
    text = model.encode_text(case["in.prompt_embeds"])
    starts = case["in.start_frame"].tolist()
    b, chunk = case["in.x"].shape[1:3]
    cache = new_cache(model, case, b, chunk)
    flows = []
    for x, t, start, following in zip(case["in.x"], case["in.t"], starts, [*starts[1:], None]):
        flows.append(denoise(model, x, t.double() / 1000, cache, frame=start, text=text))
        if following != start:
            commit(model, x, t.double() / 1000, cache, frame=start, text=text)
    check(case, torch.stack(flows), case["in.x"])


@pytest.mark.parametrize("name", cases(CAUSAL, "intermediates"))
def test_intermediates(name):
    case, model = load_case(CAUSAL, name), network(CAUSAL)
    b, chunk = case["in.x"].shape[:2]
    case["params"] |= {"cache_frames": chunk, "sink_size": 0}
    seen = {}
    for name in ("time_embedding", "time_projection", "blocks.0", "blocks.1"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    flow = denoise(model, case["in.x"], case["in.t"].double() / 1000, new_cache(model, case, b, chunk),
                         frame=case["params"]["start_frame"],
                         text=model.encode_text(case["in.prompt_embeds"]))
    check(case, flow, case["in.x"])
    close(seen["time_embedding"].flatten(0, 1), case["dbg.time_e"], case)
    close(seen["time_projection"].flatten(0, 1), case["dbg.time_proj"], case)
    close(seen["blocks.0"].flatten(1, 2), case["dbg.block0_out"], case)
    close(seen["blocks.1"].flatten(1, 2), case["dbg.block1_out"], case)


@pytest.mark.parametrize("name", cases(CAUSAL, "infer_"))
def test_sampling_loop(name):
    case, model = load_case(CAUSAL, name), network(CAUSAL)
    params, noise, renoise = case["params"], case["in.noise"], iter(case["in.renoise"])
    chunk, b = params["num_frame_per_block"], noise.shape[0]
    text = model.encode_text(case["in.prompt_embeds"])
    cache = new_cache(model, case, b, chunk)
    sigmas = warp(params["denoising_step_list"])
    first_sigmas = warp(params.get("denoising_step_list_first_chunk", params["denoising_step_list"]))
    latents = []

    def put_away(x):
        commit(model, x, 0.0, cache, frame=cache.num_frames, text=text)
        latents.append(x)
    for given in case["in.initial_latent"].split(chunk, dim=1) if "in.initial_latent" in case else ():
        put_away(given)
    for i, start in enumerate(noise.split(chunk, dim=1)):
        def draw(step):
            return rearrange(next(renoise), "(b t) c h w -> b t c h w", b=b) if step else start

        def velocity(x, sigma):
            return denoise(model, x, sigma, cache, frame=cache.num_frames, text=text)
        put_away(sample_frame(velocity, draw, sigmas if i else first_sigmas))
    close(torch.cat(latents, dim=1), case["out.latents"], case)


def new_cache(model, case, batch, chunk):
    _, rows, cols = model.config.patch_size
    h, w = next(case[key] for key in ("in.x", "in.noise") if key in case).shape[-2:]
    return KVCache(model.config, batch=batch, num_frames=case["params"]["cache_frames"],
                   frames_per_chunk=chunk, sink=case["params"]["sink_size"],
                   tokens_per_frame=(h // rows) * (w // cols))


def test_every_case_is_run():
    claimed = set(cases(CAUSAL, "intermediates", "tf_", "df_", "kv_", "rolling_", "infer_"))
    assert set(description(CAUSAL)["cases"]) == claimed
