"""The cost of play: counts without values against published figures, real passes and a GPU's memory."""
import gc
from dataclasses import replace

import pytest
import torch

from tests.engine import test_dream, test_dream_wan
from worldplay import runtime
from worldplay.action import Action
from worldplay.engine.cost import Cost, cost_of, encoding_memory_of, memory_of, part_of
from worldplay.engine.loading import load_world
from worldplay.engine.memory import AllocatedMemory
from worldplay.engine.networks import META
from worldplay.engine.parts import Parts, check_room
from worldplay.errors import WorldError
from worldplay.eval import latency
from worldplay.files import write_json
from worldplay.models.codecs.wan_vae import WanVAE, WanVAEConfig
from worldplay.worlds import catalog, zoo
from worldplay.worlds.config import VideoWorldConfig, WorldConfig

GIB = 2**30
TOKENS, WIDTH, BLOCKS = 30 * 52, 1536, 30  # of the published model at 480 x 832


def published(name, **changes):
    return replace(WorldConfig.from_json(catalog.WORLDS[name].config, name), **changes)


def test_counts_are_the_published_ones_with_a_camera():
    """Compute budget of minWM: chunks of 4 latents, a window of 20, a second branch of attention."""
    cost = cost_of(published("wan-action"))
    assert cost.denoise["linear"] / (4 * TOKENS) == pytest.approx(2.642e9, rel=2e-3), "cameras turn keys too"
    text = 4 * TOKENS * 512 * WIDTH * BLOCKS
    assert cost.denoise["attention"] / 4 - text == pytest.approx(2 * 8.97e12, rel=1e-3)
    assert sum(cost.passes(4).values()) == pytest.approx(441e12, rel=5e-3)
    assert sum(cost.passes(2).values()) == pytest.approx(265e12, rel=5e-3)
    assert (cost.latents, cost.frames, round(cost.decode / 1e12, 2)) == (4, 16, 0.54)


def test_counts_are_the_published_ones_frame_by_frame():
    """They were estimated with the layer that only a camera has, without the text, and with all of a context
    pass.
    """
    cost, memory = cost_of(published("causal-forcing-2step")), memory_of(published("causal-forcing-2step"))
    for steps, tflop in ((4, 67.7), (2, 40.6), (1, 27.1)):
        assert 0.97 * tflop < sum(cost.passes(steps).values()) / 1e12 < tflop
    assert cost.denoise["linear"] == pytest.approx(4.12e12 - 2 * TOKENS * WIDTH**2 * BLOCKS, rel=1e-3)
    assert cost.denoise["attention"] - 4 * TOKENS * 512 * WIDTH * BLOCKS == pytest.approx(9.42e12, rel=1e-3)
    assert cost.commit["linear"] < cost.denoise["linear"], "of the last block only keys and values are made"
    frame = TOKENS * WIDTH * 2 * BLOCKS
    assert memory["keys_values"] == 21 * 2 * frame + frame, "21 latents, and the unrotated keys of the first"
    assert memory["weights"] == 2 * (1_418_996_800 + 11_315_539)
    text_only = (4096 + 1 + WIDTH + 1) * WIDTH + BLOCKS * WIDTH * (2 * WIDTH + 3)
    assert cost.weight_bytes == 2 * (1_418_996_800 - text_only)
    assert memory["decoder"] / 2**20 == pytest.approx(64, abs=0.5) and memory["text"] / 2**20 == 90
    assert 0.2 * GIB < memory["work"] < 2 * GIB


@pytest.mark.parametrize("make", [
    lambda: test_dream_wan.world_of(frames_per_chunk=2, window=6, steps=4), test_dream_wan.text_only,
    lambda: test_dream_wan.world_of(sink=1, sink_position="before_window"), test_dream.float32_world],
    ids=["chunks", "text", "sink", "actions"])
def test_counts_are_those_of_a_played_chunk(make):
    world, counted = make(), []
    is_video = isinstance(world.config, VideoWorldConfig)
    world.reset(**({} if is_video else dict(zip(("frames", "actions"), test_dream.context()))))
    for _ in range(world.config.window):
        list(world.step(Action()))
    with latency._counted(world.transformer, latency.PASSES, counted), \
            latency._counted(world.codec, ("decode_next",), counted):
        frames = list(world.step(Action()))
    cost, steps, latents = cost_of(world.config,
                                   torch.float32), world.config.steps, world.config.frames_per_chunk
    assert counted == [*[sum(cost.denoise.values())] * steps, *[cost.decode] * latents,
                       sum(cost.commit.values())]
    assert (cost.frames, cost.latents) == (len(frames), latents)
    held = [*world.transformer.state_dict().values(), *world.codec.state_dict().values()]
    memory = memory_of(world.config, torch.float32)
    assert memory["weights"] == sum(x.nbytes
                                    for x in held) and memory["keys_values"] == world.state.cache.nbytes
    assert memory["decoder"] == sum(x.nbytes for x in world.state.decoder or ())


def test_the_bound_is_arithmetic_or_memory():
    cost = Cost(denoise={"linear": 3e12, "attention": 2e12}, commit={"linear": 1e12, "attention": 1e12},
                decode=5e11, latents=2, frames=8, weight_bytes=10**9, kv_bytes=10**9)
    rates = {"matmul_tflops": 10.0, "attention_tflops": 5.0}
    assert cost.bound_fps(1, memory_gbs=1e9, **rates) == pytest.approx(8 / (0.4 + 0.6 + 0.1))
    assert cost.bound_fps(1, memory_gbs=4.0, **rates) == pytest.approx(8 / (0.5 + 0.6 + 0.1))
    assert cost.bound_fps(1, memory_gbs=2.0, **rates) == pytest.approx(8 / (1.0 + 1.0 + 0.1))


def test_memory_alive_at_one_moment():
    before = torch.empty(1000, device=META)
    with AllocatedMemory(META) as alive:
        x = before + 1
        y = x[:10].clone()
        del x
        before.add_(1)
        before.view(10, 100)
    assert (alive.alive, alive.most_alive) == (40, 4040) and y.shape == (10,)


@pytest.mark.parametrize("operator, part", [
    ("aten.addmm", "linear"), ("aten::mm", "linear"), ("aten::bmm", "linear"), ("aten::copy_", "rest"),
    ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
    ("aten::_efficient_attention_forward", "attention"),
    ("xformers_flash::flash_fwd", "attention"), ("aten::_scaled_dot_product_cudnn_attention", "attention"),
    ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_TNT", "linear"),
    ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "linear"),
    ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu>", "linear"),
    ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128> >", "attention"),
    ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80", "attention"),
    ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128", "attention"),
    ("triton_poi_fused_add_mul_3", "rest"), ("Memcpy DtoD (Device -> Device)", "rest")])
def test_operators_belong_to_a_part(operator, part):
    assert part_of(operator) == part


# A GPU that is too small ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A published world of which nothing but its config.json is there, on a machine with bfloat16."""
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.bfloat16, "test"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_json(tmp_path / "config.json", published("causal-forcing-2step").to_json())
    return tmp_path


@pytest.mark.parametrize("left, total, words", [(7, 8, "7.0 GiB of 8.0 GiB are free; this GPU is too small"),
                                                (7, 24,
                                                 "7.0 GiB of 24.0 GiB are free; close other programs")])
def test_a_world_without_room_on_the_gpu_is_refused_before_anything_is_read(folder, monkeypatch, left, total,
                                                                            words):
    monkeypatch.setattr(runtime, "memory", lambda device: (left * GIB, total * GIB))
    with pytest.raises(WorldError, match=words) as error:
        load_world(folder, device="cpu")
    said = str(error.value)
    assert error.value.kind == "device" and "\n" not in said and "--device cpu" in said
    assert ("causal-forcing-2step needs 9.5 GiB of GPU memory (weights 2.7 GiB, keys and values of 21 "
            "latents 5.8 GiB") in said


def test_a_world_with_room_is_opened(folder, monkeypatch):
    for memory in ((10 * GIB, 24 * GIB), None):
        monkeypatch.setattr(runtime, "memory", lambda device: memory)
        with pytest.raises(WorldError) as error:
            load_world(folder, device="cpu")
        assert error.value.kind == "not_found", "the text encoder is looked for next"


@pytest.mark.parametrize("num_frames, needed", [(1, "2.1"), (13, "4.9")])
def test_a_start_without_room_for_the_full_codec_is_encoded_by_the_small_one(
        num_frames, needed, folder, monkeypatch, caplog):
    part = zoo.user_cache() / "parts" / "wan-vae"
    part.mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"weights")
    parts = Parts(published("causal-forcing-2step"), torch.device("cpu"))
    monkeypatch.setattr(runtime, "memory", lambda device: (2 * GIB, 24 * GIB))
    with caplog.at_level("INFO", "worldplay"):
        assert parts.encoder(num_frames) is None
    assert caplog.records[-1].getMessage() == (
        f"the start is encoded by the small codec: the full codec needs {needed} GiB of GPU memory, and "
        "2.0 GiB of 24.0 GiB are free; close other programs that use the GPU")
    for memory in ((5 * GIB, 24 * GIB), None):
        monkeypatch.setattr(runtime, "memory", lambda device: memory)
        with pytest.raises(WorldError, match="wan-vae/model.safetensors cannot be read"):
            parts.encoder(num_frames)  # it is opened


def test_what_is_counted_does_not_hang_on_when_garbage_is_collected():
    config, threshold = published("causal-forcing-2step", frame_size=(64, 96)), gc.get_threshold()
    try:
        counts = {encoding_memory_of(config, 13) for gc_at in (threshold,
                                                               (20, 2, 2)) if not gc.set_threshold(*gc_at)}
    finally:
        gc.set_threshold(*threshold)
    assert len(counts) == 1 and gc.isenabled()


def test_the_room_that_encoding_takes_is_what_it_holds():
    """Of a real run on the CPU, the weights and all that is alive at one moment."""
    config, device = published("causal-forcing-2step", frame_size=(64, 96)), torch.device("cpu")
    codec = WanVAE(WanVAEConfig()).requires_grad_(False)
    with torch.inference_mode(), AllocatedMemory(device) as held:
        codec.encode(torch.zeros(1, 5, 3, 64, 96))
    weights = sum(x.nbytes for x in codec.state_dict().values())
    assert encoding_memory_of(config, 5, torch.float32) == pytest.approx(weights + held.most_alive, rel=0.05)


def test_what_is_there_already_needs_no_room(monkeypatch):
    monkeypatch.setattr(runtime, "pick_dtype", lambda device: (torch.bfloat16, "test"))
    monkeypatch.setattr(runtime, "memory", lambda device: (7 * GIB, 24 * GIB))
    check_room(published("causal-forcing-2step"), torch.device("cpu"), held=round(2.66 * GIB))


def test_a_world_with_its_own_codec_is_not_weighed(monkeypatch):
    monkeypatch.setattr(runtime, "memory", lambda device: (0, 1))
    check_room(test_dream.CONFIG, torch.device("cpu"))
