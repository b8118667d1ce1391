"""What playing a world takes: operations, bytes and memory, counted on its own code run without values."""
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from worldplay.engine.controls import controls_of
from worldplay.engine.memory import AllocatedMemory
from worldplay.engine.networks import META, codec_of, new_cache
from worldplay.models.codecs.image import to_uint8
from worldplay.models.codecs.wan_vae import WanVAE, WanVAEConfig
from worldplay.models.transformer import Transformer, fuse_for_inference

# of a pass: what multiplies; products by the matrices of cameras are among the first
PARTS = ("linear", "attention")
# In names of operators and kernels; of products of matrices: cuBLAS, CUTLASS, and code of torch's compiler.
_ATTENTION = ("attention", "flash", "fmha", "sdpa")
_PRODUCT = ("gemm", "gemv", "nvjet", "cutlass", "xmma", "splitk", "triton_tem")
# used when a prompt is set
_TEXT_ONLY = ("text_embedding.", "cross_attn.k.", "cross_attn.v.", "cross_attn.norm_k.")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a chunk of a world costs once its window is full; a multiplication and an addition count two.

    denoise, commit  part of PARTS -> operations of one pass
    decode           operations of decoding one latent
    latents, frames  of a chunk
    weight_bytes     of the weights that a pass reads; kv_bytes: of keys and values, the text's included
    """
    denoise: dict[str, int]
    commit: dict[str, int]
    decode: int
    latents: int
    frames: int
    weight_bytes: int
    kv_bytes: int

    def passes(self, steps):
        """part of PARTS -> operations of all passes of a chunk."""
        return {part: steps * self.denoise[part] + self.commit[part] for part in PARTS}

    def bound_fps(self, steps, *, matmul_tflops, attention_tflops, memory_gbs):
        """Frames a second that no implementation of these operations exceeds on a machine of these rates.

        memory_gbs  10^9 bytes read a second

        Linear layers are bound by arithmetic or by reading the weights once a pass, attention by arithmetic
        or by reading keys and values; decoding counts as matrix products, and everything else is taken to
        cost nothing.
        """
        done = self.passes(steps)
        linear = max(done["linear"] / matmul_tflops / 1e12,
                     (steps + 1) * self.weight_bytes / memory_gbs / 1e9)
        attention = max(done["attention"] / attention_tflops / 1e12,
                        (steps + 1) * self.kv_bytes / memory_gbs / 1e9)
        return self.frames / (linear + attention + self.latents * self.decode / matmul_tflops / 1e12)


def cost_of(config, dtype=torch.bfloat16):
    """The Cost of the world of a WorldConfig, its weights in dtype."""
    layers = config.transformer.num_layers
    one, two = (_pass_flops(config, number, dtype) for number in (1, 2))  # blocks are alike
    denoise, commit = ({part: a[part] + (layers - 1) * (b[part] - a[part]) for part in PARTS} for a,
                       b in zip(one, two))
    decode, _ = _decoding(codec_of(config, dtype), config)
    with flop_counter() as counter:
        frames = decode()[0]
    transformer = _transformer(config, dtype)
    return Cost(
        denoise=denoise, commit=commit, decode=counter.get_total_flops(), latents=config.frames_per_chunk,
        frames=config.frames_per_chunk * frames.shape[1],
        weight_bytes=_nbytes(p for name,
                             p in transformer.named_parameters() if not any(x in name for x in _TEXT_ONLY)),
        kv_bytes=new_cache(config, 1, dtype, META).nbytes + _nbytes(tree_leaves(_text(transformer))))


def memory_of(config, dtype=torch.bfloat16):
    """{"weights", "keys_values", "text", "decoder", "work"} -> bytes that playing a world holds on its
    device.

    decoder  what it remembers of the video
    work     the most that a pass or the decoding of a latent takes beside all that
    """
    transformer, codec = _transformer(config, dtype), codec_of(config, dtype)
    decode, state = _decoding(codec, config)
    with AllocatedMemory(META) as decoding:
        to_uint8(decode()[0])
    denoise, _ = _full_window(config, 1, dtype)
    with AllocatedMemory(META) as denoising, FusedAttention():
        denoise()
    return {"weights": _nbytes(x for module in (transformer, codec) for x in module.state_dict().values()),
            "keys_values": new_cache(config, 1, dtype, META).nbytes,
            "text": _nbytes(tree_leaves(_text(transformer))),
            "decoder": _nbytes(state), "work": max(decoding.most_alive, denoising.most_alive)}


@torch.inference_mode()
def encoding_memory_of(config, num_frames, dtype=torch.bfloat16):
    """Bytes that the full codec holds while it encodes a start of so many frames, its weights included."""
    with META:
        codec = WanVAE(WanVAEConfig()).to(dtype)
    with AllocatedMemory(META) as encoding:  # from the third latent on all are alike
        codec.encode(torch.empty(1, min(num_frames, 9), 3, *config.frame_size, device=META))
    return _nbytes(codec.state_dict().values()) + encoding.most_alive


def rendering_memory_of(config, dtype=torch.bfloat16):
    """Bytes that the full codec holds while it decodes a video latent by latent, its weights included."""
    with META:
        codec = WanVAE(WanVAEConfig()).to(dtype).eval().requires_grad_(False)
    decode, state = _decoding(codec, config)
    with AllocatedMemory(META) as decoding:
        decode()
    return _nbytes(codec.state_dict().values()) + _nbytes(state) + decoding.most_alive


def flop_counter():
    """PyTorch's counter of operations, which knows every attention but one: that of a processor."""
    return FlopCounterMode(display=False, custom_mapping={
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)})


def flop_parts(counter):
    """part of PARTS -> operations that a `flop_counter` has seen."""
    parts = dict.fromkeys(PARTS, 0)
    for operator, flops in counter.get_flop_counts().get("Global", {}).items():
        parts[part_of(str(operator))] += flops
    return parts


def part_of(name):
    """Which of PARTS an operator, "aten.NAME" or "aten::NAME", or a GPU's kernel belongs to, or "rest"."""
    operator, name = name.replace("::", ".").split(".", 1)[-1], name.lower()
    if any(word in name for word in _ATTENTION):
        return "attention"
    return "linear" if operator in ("addmm", "mm", "bmm",
                                    "baddbmm") or any(word in name for word in _PRODUCT) else "rest"


class FusedAttention(TorchFunctionMode):
    """Full attention by one fused kernel, as on hardware; the meta device would write it out."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args, **(kwargs or {}))[0]
        return function(*args, **(kwargs or {}))


def _pass_flops(config, num_layers, dtype):
    """(denoise, commit) of a transformer of so many blocks: part of PARTS -> operations."""
    counted = []
    for run in _full_window(config, num_layers, dtype):
        with flop_counter() as counter, FusedAttention():
            run()
        counted.append(flop_parts(counter))
    return counted


@torch.inference_mode()
def _full_window(config, num_layers, dtype):
    """(denoise, commit): functions of nothing that run a pass of so many blocks, the window full; commit runs
    once.
    """
    config = replace(config, transformer=replace(config.transformer, num_layers=num_layers))
    transformer, cache, size = _transformer(config, dtype), new_cache(config, 1, dtype,
                                                                      META), config.frames_per_chunk
    controls = controls_of(config, META)
    state, x = controls.start(1), torch.empty(1, size, *config.latent_shape, device=META)
    text = _text(transformer) or None
    for frame in range(0, config.window + size, size):
        conditions, state = controls.conditions(state, torch.zeros(1, size, 1,
                                                                 config.action_space.num_channels), frame)
        chunk = transformer.prepare(cache, x.shape, frame=frame, **conditions)
        passes = [torch.inference_mode()(partial(run, x, 0.5, cache, chunk, text))
                  for run in (transformer.denoise, transformer.commit)]
        if frame < config.window:
            passes[1]()
    return passes


@torch.inference_mode()
def _decoding(codec, config):
    """(a function of nothing that decodes a later latent, the state it starts from)."""
    latent = torch.empty(1, *config.latent_shape, device=META)
    state = codec.decode_next(latent)[1]
    return torch.inference_mode()(partial(codec.decode_next, latent, state)), state or ()


def _transformer(config, dtype):
    with META:
        transformer = Transformer(config.transformer)
    return fuse_for_inference(transformer.to(dtype).eval().requires_grad_(False))


@torch.inference_mode()
def _text(transformer):
    """Keys and values of a prompt; none for a transformer that reads no text."""
    sizes = transformer.config
    if not sizes.text_dim:
        return []
    return transformer.encode_text(torch.empty(1, sizes.text_len, sizes.text_dim, device=META))


def _nbytes(tensors):
    return sum(x.nbytes for x in tensors)
