"""Passes of a transformer by native code: its weights packed once, called in place of the written passes."""
import ctypes
from functools import cache
from numbers import Number

import torch
from einops import rearrange
from torch.nn import functional as F

from worldplay.models.conditioning import timestep_sinusoid

_PANEL = 64  # columns, as in product.h
_LANES = 16  # the most that the code has; sizes are multiples of it
_LARGEST_HEAD = 256
_GROUP = {torch.bfloat16: 2, torch.float32: 1}  # rows of a matrix that lie interleaved

_NUMBERS = ("layers", "dim", "heads", "ffn", "frames", "tokens", "channels", "height", "width", "patch_rows",
            "patch_cols", "capacity", "past", "slots", "threads", "commits")
_TENSORS = ("x", "velocity", "time", "block_modulation", "head_modulation", "rotary", "patch_weight",
            "time_weight", "head_weight", "patch_bias", "time_bias", "head_bias", "qkv_weight", "out_weight",
            "up_weight", "down_weight", "qkv_bias", "gain", "out_bias", "up_bias", "down_bias", "keys",
            "values", "cache", "modulation")


class _Pass(ctypes.Structure):
    """`Pass` of transformer.cpp."""
    _fields_ = [*((name, ctypes.c_int32) for name in _NUMBERS), ("eps", ctypes.c_float),
                *((name, ctypes.c_void_p) for name in _TENSORS)]


def fits(config):
    """Whether the code has what a TransformerConfig needs: no text, no camera, widths of whole vectors."""
    _, rows, cols = config.patch_size
    return (not config.text_dim and not config.has_camera and config.in_channels == config.out_channels
            and config.head_dim <= _LARGEST_HEAD and config.in_channels * rows * cols % 2 == 0
            and all(width % _LANES == 0 for width in (config.dim, config.head_dim, config.ffn_dim)))


class NativePasses:
    """`denoise` and `commit` of a Transformer, fused for inference, that `fits`; it stays as it is.

    What it does not take runs as written: batches, and noise levels that are tensors.
    """

    def __init__(self, library, transformer):
        """library: ctypes library of worldplay.engine.native.library for the dtype of the transformer."""
        self._library, self._transformer, self._dtype = library, transformer, transformer.dtype
        self._time = cache(self._time_of)
        self._weights = _packed(transformer)
        self._pass, self._work, self._past = None, {}, None

    def denoise(self, x, sigma, cache, chunk, text=None):
        """As Transformer.denoise, but that the velocity is float32."""
        if not _takes(x, sigma):
            return type(self._transformer).denoise(self._transformer, x, sigma, cache, chunk, text)
        velocity = torch.empty(x.shape)
        self._run(x, sigma, cache, chunk, velocity)
        return velocity

    def commit(self, x, sigma, cache, chunk, text=None):
        """As Transformer.commit."""
        if not _takes(x, sigma):
            return type(self._transformer).commit(self._transformer, x, sigma, cache, chunk, text)
        self._run(x, sigma, cache, chunk, None)
        self._past = None
        cache.commit(chunk.frame, chunk.positions)

    def _run(self, x, sigma, cache, chunk, velocity):
        cache.check(chunk.frame, x.shape[1])
        slots, past = cache.storage()
        time = self._time(float(sigma))
        time = time if chunk.actions is None else time + chunk.actions[0]
        inputs = {"x": x.float().contiguous(), "time": time.expand(x.shape[1], -1).float().contiguous(),
                  "rotary": chunk.rotary.contiguous(), "cache": slots}
        run = self._sized(x.shape, slots)
        for name, tensor in inputs.items():  # which live until the call is over
            setattr(run, name, tensor.data_ptr())
        run.velocity, run.commits = (0, 1) if velocity is None else (velocity.data_ptr(), 0)
        run.past, run.threads = past, torch.get_num_threads()
        if not (self._past and self._past[0] is chunk and self._past[1] is cache):
            self._library.transformer_past(ctypes.byref(run))
            self._past = chunk, cache
        self._library.transformer_pass(ctypes.byref(run))

    def _sized(self, shape, slots):
        """The _Pass for latents of a shape and a cache of a size, with what it works on."""
        (_, frames, channels, height, width), (layers, _, _, heads, length, d) = shape, slots.shape
        sizes = frames, height, width, length
        if self._pass is not None and self._pass[0] == sizes:
            return self._pass[1]
        config = self._transformer.config
        _, rows, cols = config.patch_size
        capacity, group = -(-length // _LANES) * _LANES, _GROUP[self._dtype]
        self._work = {"keys": torch.zeros(layers, heads, d // group, capacity, group, dtype=self._dtype),
                      "values": torch.zeros(layers, heads, capacity // group, d, group, dtype=self._dtype),
                      "modulation": torch.empty(frames, 6 * config.dim)}
        run = _Pass(layers=layers, dim=config.dim, heads=heads, ffn=config.ffn_dim, frames=frames,
                    tokens=config.num_tokens(height, width), channels=channels, height=height, width=width,
                    patch_rows=rows, patch_cols=cols, capacity=capacity, slots=length, eps=config.eps,
                    **{name: x.data_ptr() for name, x in (self._weights | self._work).items()})
        self._pass, self._past = (sizes, run), None
        return run

    def _time_of(self, sigma):
        """Time embedding [1 e] of a noise level: the few that play has are embedded once."""
        sigma, width = torch.tensor([sigma], dtype=torch.float32), self._transformer.config.freq_dim
        return self._transformer.time_embedding(timestep_sinusoid(sigma, width).to(self._dtype))


def _takes(x, sigma):
    return x.shape[0] == 1 and isinstance(sigma, Number)


def _packed(transformer):
    """name -> tensor of all weights as the code reads them, those of the blocks layer after layer."""
    blocks, dtype = transformer.blocks, transformer.dtype

    def layers(of):
        return torch.stack([of(block) for block in blocks]).contiguous()
    projection = transformer.time_projection[1]
    weights = {"patch": transformer.patch_embedding.weight.flatten(1), "head": transformer.head.head.weight,
               "time": projection.weight}
    biases = {"patch": transformer.patch_embedding.bias, "head": transformer.head.head.bias,
              "time": projection.bias}
    of_blocks = {"qkv": lambda block: block.self_attn.fused[:2],
                 "out": lambda block: (block.self_attn.o.weight, block.self_attn.o.bias),
                 "up": lambda block: (block.ffn[0].weight, block.ffn[0].bias),
                 "down": lambda block: (block.ffn[2].weight, block.ffn[2].bias)}
    return ({f"{name}_weight": _panels(x, dtype) for name, x in weights.items()}
            | {f"{name}_bias": _padded(x) for name, x in biases.items()}
            | {f"{name}_weight": layers(lambda block, of=of: _panels(of(block)[0], dtype))
               for name, of in of_blocks.items()}
            | {f"{name}_bias": layers(lambda block, of=of: _padded(of(block)[1]))
               for name, of in of_blocks.items()}
            | {"gain": layers(lambda block: block.self_attn.fused[2].float().flatten()),
               "block_modulation": layers(lambda block: block.modulation[0].float()),
               "head_modulation": transformer.head.modulation[0].float().contiguous()})


def _panels(weight, dtype):
    """Weight [n e] of a linear layer in panels of its columns, n padded with zeros."""
    weight = F.pad(weight.to(dtype), (0, 0, 0, -len(weight) % _PANEL))
    return rearrange(weight, "(panels n) (e g) -> (panels e n g)", n=_PANEL, g=_GROUP[dtype]).contiguous()


def _padded(bias):
    return F.pad(bias.float(), (0, -len(bias) % _PANEL))
