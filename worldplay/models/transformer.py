"""The diffusion transformer in the Wan 2.1 layout, one class for the trainer and the player."""
import math
from dataclasses import dataclass
from functools import partial

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from worldplay.models.attention import FrameRule, attend, causal_attention
from worldplay.models.conditioning import action_vectors, timestep_sinusoid, two_layers
from worldplay.models.position import frame_rotary, rotate


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of a Transformer; widths and channels count numbers."""
    dim: int = 256
    """Width of a token."""
    ffn_dim: int = 1024
    """Width inside a block's two-layer network."""
    num_heads: int = 4
    """Attention heads; they share the width."""
    num_layers: int = 8
    """Blocks."""
    in_channels: int = 8
    """Channels of a latent; a recipe with its own codec sets them, and the actions' too."""
    out_channels: int = 8
    """The same of what comes out."""
    patch_size: tuple[int, int, int] = (1, 2, 2)
    """(1, rows, columns) of latent that make one token."""
    freq_dim: int = 256
    """Width of the timestep's sinusoid."""
    text_dim: int | None = None
    """Width of the text encoder's rows; None: no text, no cross-attention."""
    text_len: int = 512
    """Rows that a prompt is padded to."""
    action_channels: int = 0
    """Length of an encoded action; 0: no actions."""
    eps: float = 1e-6
    """Added to a variance before the root in every norm."""

    def __post_init__(self):
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        if self.dim % self.num_heads or self.dim // self.num_heads % 2:
            raise ValueError(f"dim {self.dim} must be num_heads {self.num_heads} times an even number")
        if len(self.patch_size) != 3 or self.patch_size[0] != 1:
            raise ValueError(f"patch_size {self.patch_size} must be (1, rows, columns)")

    @property
    def head_dim(self):
        return self.dim // self.num_heads

    def num_tokens(self, h, w):
        """Tokens of one frame of h x w latents."""
        return (h // self.patch_size[1]) * (w // self.patch_size[2])


class SelfAttention(nn.Module):
    """Attention between tokens; queries and keys are normalised over the full width, turned by position."""

    def __init__(self, config):
        super().__init__()
        self.num_heads, self.width, self.eps = config.num_heads, config.dim, config.eps
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, eps=config.eps) for _ in range(2))
        self.fused = None

    def fuse(self):
        """Keep the joined weights of q, k and v instead of their parts."""
        weight, bias, gain = (nn.Parameter(x.detach(), requires_grad=False) for x in self.joined())
        self.fused = nn.ParameterList([weight, bias, gain])
        del self.q, self.k, self.v, self.norm_q, self.norm_k

    def joined(self):
        """Weight [3e e] and bias [3e] of q, k and v in one layer, and the gains [2 e] of both norms."""
        parts = (self.q, self.k, self.v)
        return (torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]),
                torch.stack([self.norm_q.weight, self.norm_k.weight]))

    def project(self, x, rotary):
        """Turned queries, turned keys and values, [b t p k d] each, of x [b t p e]."""
        weight, bias, gain = self.joined() if self.fused is None else self.fused
        q_k, v = F.linear(x, weight, bias).split([2 * self.width, self.width], dim=-1)
        q_k = rearrange(q_k, "b t p (two e) -> b t p two e", two=2)
        q_k = F.rms_norm(q_k, (self.width,), eps=self.eps) * gain
        q_k = rotate(rearrange(q_k, "b t p two (k d) -> b t p (two k) d", k=self.num_heads), rotary)
        return *q_k.chunk(2, dim=3), rearrange(v, "b t p (k d) -> b t p k d", k=self.num_heads)

    def forward(self, x, rotary, attention):
        out = attention(*self.project(x, rotary))
        return self.o(rearrange(out, "b t p k d -> b t p (k d)"))


class CrossAttention(nn.Module):
    """Attention of tokens to the rows of a text."""

    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, eps=config.eps) for _ in range(2))

    def keys_values(self, rows):
        """Keys and values, [b k l d] each, of embedded text rows [b l e]."""
        return tuple(rearrange(x, "b l (k d) -> b k l d", k=self.num_heads)
                     for x in (self.norm_k(self.k(rows)), self.v(rows)))

    def forward(self, x, keys, values):
        q = rearrange(self.norm_q(self.q(x)), "b t p (k d) -> b t p k d", k=self.num_heads)
        return self.o(rearrange(attend(q, keys, values), "b t p k d -> b t p (k d)"))


class Block(nn.Module):
    """Self-attention, cross-attention when there is text, and a two-layer network; modulated per frame."""

    def __init__(self, config):
        super().__init__()
        self.width, self.eps = (config.dim,), config.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / math.sqrt(config.dim))
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps) if config.text_dim else None
        self.cross_attn = CrossAttention(config) if config.text_dim else None
        self.ffn = nn.Sequential(nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"),
                                 nn.Linear(config.ffn_dim, config.dim))

    def forward(self, x, modulation, rotary, attention, text):
        """x [b t p e] tokens, modulation [b t 6 e], attention(q, k, v) -> out, text: keys and values."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.rows(modulation)
        x = torch.addcmul(x, gate_a, self.self_attn(self.modulated(x, shift_a, scale_a), rotary, attention))
        if self.cross_attn is not None:
            x = x + self.cross_attn(self.norm3(x), *text)
        return torch.addcmul(x, gate_f, self.ffn(self.modulated(x, shift_f, scale_f)))

    def keys_values(self, x, modulation, rotary):
        """Only the keys and values, [b t p k d] each, of the block's self-attention."""
        shift, scale = self.rows(modulation)[:2]
        return self.self_attn.project(self.modulated(x, shift, scale), rotary)[1:]

    def rows(self, modulation):
        """The six rows [b t 1 e] of the block's own plus the frames' modulation."""
        return (self.modulation + modulation)[..., None, :].unbind(dim=2)

    def modulated(self, x, shift, scale):
        return torch.addcmul(shift, F.layer_norm(x, self.width, eps=self.eps), 1 + scale)


class Head(nn.Module):
    """Tokens [b t p e] to the values of their patches, channel fastest."""

    def __init__(self, config):
        super().__init__()
        self.width, self.eps = (config.dim,), config.eps
        self.head = nn.Linear(config.dim, math.prod(config.patch_size) * config.out_channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / math.sqrt(config.dim))

    def forward(self, x, time):
        """time [b t e]: the time embedding before its projection."""
        shift, scale = (self.modulation + time[:, :, None])[..., None, :].unbind(dim=2)
        return self.head(torch.addcmul(shift, F.layer_norm(x, self.width, eps=self.eps), 1 + scale))


class Transformer(nn.Module):
    """Velocity of noised latent frames; parameters carry the names of the published Wan 2.1 weights.

    What is not published: `action_embedding` and `null_action`, added to the time embedding of their frame.

    causal_attention        how `forward` attends, a name in CAUSAL_ATTENTION: all give the same, at different speeds
    checkpoint_activations  whether `forward` computes the inside of its blocks again on the way back, to save memory
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.causal_attention, self.checkpoint_activations = config, "chunks", False
        self.patch_embedding = nn.Conv3d(config.in_channels, config.dim, config.patch_size, config.patch_size)
        self.text_embedding = None
        if config.text_dim:
            self.text_embedding = two_layers(config.text_dim, config.dim, nn.GELU(approximate="tanh"))
        self.time_embedding = two_layers(config.freq_dim, config.dim, nn.SiLU())
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.action_embedding = None
        if config.action_channels:
            self.action_embedding = two_layers(config.action_channels, config.dim, nn.SiLU())
            self.null_action = nn.Parameter(torch.zeros(config.dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)
        self._init_weights()

    def forward(self, noisy, sigma, *, actions=None, action_mask=None, columns=None, text=None, clean=None,
                clean_sigma=None, is_clean_trained=True, frames_per_chunk=1, window=None, sink=0,
                sink_position="absolute", is_causal=True, attention=None):
        """Velocity of a whole sequence of frames, for training.

        noisy        [b t c h w]  frames at noise level sigma
        sigma        [b t]        (or a number); timestep = 1000 * sigma
        actions      [b t a]      actions[:, i] caused frame i; None: unknown
        action_mask  bool [b t]   False where an action is unknown and the null embedding stands for it
        text         [b l text_dim]  rows of the text encoder, l <= text_len
        clean        [b t c h w]  teacher forcing: the past that noisy frames see, at noise level clean_sigma
                                  ([b t] or a number, default 0); None: they see the noisy past
        is_clean_trained  False: no gradient passes from the noisy frames into the clean ones they look at
        columns      [b t]        added to the column positions of a frame's tokens
        attention    a name in CAUSAL_ATTENTION; None takes the transformer's own, `causal_attention`
        is_causal    False: every frame sees every frame; then there is no clean, window or sink
        frames_per_chunk, window, sink, sink_position: see FrameRule; window counts frames, the chunk included
        Returns      [b t c h w]  velocity of the noisy frames, in the dtype of the weights

            Raises ValueError for arguments that exclude each other.
        """
        causal = causal_attention(attention or self.causal_attention)
        if not is_causal and (clean is not None or window is not None or sink):
            raise ValueError("is_causal=False sees every frame: it takes no clean frames, window or sink")
        t, grid = noisy.shape[1], self._grid(noisy)
        rule = FrameRule(frames_per_chunk=frames_per_chunk if is_causal else t, window=window, sink=sink,
                         sink_position=sink_position)
        rotary = frame_rotary(torch.arange(t, device=noisy.device), grid, self.config.head_dim, columns)
        time, x = self._time(noisy, sigma, actions, action_mask), self._tokens(noisy)
        halves = 1
        if clean is not None:
            halves, rotary = 2, torch.cat([rotary, rotary], dim=1)
            clean_time = self._time(clean, 0.0 if clean_sigma is None else clean_sigma, actions, action_mask)
            time, x = torch.cat([clean_time, time], dim=1), torch.cat([self._tokens(clean), x], dim=1)

        def attend_by_rule(q, k, v):
            if halves == 2 and not is_clean_trained:
                k, v = (torch.cat([x[:, :t].detach(), x[:, t:]], dim=1) for x in (k, v))
            return causal(q, k, v, rule, halves)
        text = None if text is None else self.encode_text(text)
        x = self._blocks(x, time, rotary, lambda layer: attend_by_rule, text, recompute=self.checkpoint_activations)
        return self._latents(self.head(x[:, -t:], time[:, -t:]), grid)

    def denoise(self, x, sigma, cache, *, frame, actions=None, action_mask=None, columns=None, text=None):
        """Velocity of the next chunk, seen from the past in `cache`, which is only read.

        x        [b t c h w]  the chunk at noise level sigma ([b t] or a number)
        frame    int, time position of its first frame
        text     keys and values by `encode_text`, for a transformer with text
        actions, action_mask, columns: as in `forward`, for the frames of the chunk
        Returns  [b t c h w]  in the dtype of the weights
        """
        cache.check(frame, x.shape[1])
        chunk = self._chunk(x, sigma, frame, actions, action_mask, columns)

        def attention(layer, q, k, v):
            return attend(q, *cache.extend(layer, k, v))
        tokens = self._blocks(*chunk, lambda layer: partial(attention, layer), text)
        return self._latents(self.head(tokens, chunk[1]), self._grid(x))

    def commit(self, x, sigma, cache, *, frame, actions=None, action_mask=None, columns=None, text=None):
        """Write the finished chunk x, at noise level sigma, into `cache`; arguments as for `denoise`."""
        cache.check(frame, x.shape[1])
        tokens, time, rotary = self._chunk(x, sigma, frame, actions, action_mask, columns)
        last = len(self.blocks) - 1

        def attention(layer, q, k, v):
            out = attend(q, *cache.extend(layer, k, v))
            cache.keep(layer)
            return out
        tokens = self._blocks(tokens, time, rotary, lambda layer: partial(attention, layer), text, last)
        cache.extend(last, *self.blocks[last].keys_values(tokens, self._modulation(time), rotary))
        cache.keep(last)
        cache.advance(frame)

    def commit_and_denoise(self, clean, clean_sigma, noisy, sigma, cache, *, frame, actions=None,
                           action_mask=None, columns=None, text=None):
        """`commit` of a chunk and the first `denoise` of the one after it, in one pass over both.

        clean, noisy  [b t c h w]   frame: time position of the first clean frame
        actions, action_mask, columns: for the frames of both chunks, [b 2t ...]
        Returns       [b t c h w]   velocity of the noisy chunk
        """
        t = clean.shape[1]
        cache.check(frame, t)
        sigmas = [torch.as_tensor(x, device=clean.device).expand(clean.shape[:2])
                  for x in (clean_sigma, sigma)]
        both, sigmas = torch.cat([clean, noisy], dim=1), torch.cat(sigmas, dim=1)
        chunk = self._chunk(both, sigmas, frame, actions, action_mask, columns)

        def attention(layer, q, k, v):
            first = attend(q[:, :t], *cache.extend(layer, k[:, :t], v[:, :t]))
            cache.keep(layer)
            second = attend(q[:, t:], *cache.extend(layer, k[:, t:], v[:, t:], chunks_ahead=1))
            return torch.cat([first, second], dim=1)
        tokens = self._blocks(*chunk, lambda layer: partial(attention, layer), text)
        cache.advance(frame)
        return self._latents(self.head(tokens[:, t:], chunk[1][:, t:]), self._grid(noisy))

    def encode_text(self, text):
        """Keys and values of every block for text [b l text_dim]: a list of (k, v), [b k text_len d] each.

        Rows are padded with zeros to text_len, then embedded, and all are seen, as in the published model.

            Raises ValueError when this transformer takes no text, or not that much.
        """
        if self.text_embedding is None:
            raise ValueError("this transformer takes no text: its text_dim is None")
        if text.shape[1] > self.config.text_len:
            raise ValueError(f"text has {text.shape[1]} rows, more than text_len {self.config.text_len}")
        padded = F.pad(text, (0, 0, 0, self.config.text_len - text.shape[1]))
        rows = self.text_embedding(padded.to(self.dtype))
        return [block.cross_attn.keys_values(rows) for block in self.blocks]

    @property
    def dtype(self):
        return self.head.head.weight.dtype

    def _chunk(self, x, sigma, frame, actions, known, columns):
        """(tokens, time embedding, rotary) of frames x [b t c h w] from time position `frame` on."""
        times = torch.arange(frame, frame + x.shape[1], device=x.device)
        rotary = frame_rotary(times, self._grid(x), self.config.head_dim, columns)
        return self._tokens(x), self._time(x, sigma, actions, known), rotary

    def _blocks(self, x, time, rotary, attention, text, num_layers=None, recompute=False):
        """x [b t p e] after the first num_layers blocks (None: all); attention(layer)(q, k, v) -> out."""
        if (text is None) != (self.text_embedding is None):
            raise ValueError(f"this transformer {'needs' if text is None else 'takes no'} text")
        modulation = self._modulation(time)
        for layer, block in enumerate(self.blocks[:num_layers]):
            run = partial(checkpoint, block, use_reentrant=False) if recompute and torch.is_grad_enabled() else block
            x = run(x, modulation, rotary, attention(layer), text and text[layer])
        return x

    def _modulation(self, time):
        return rearrange(self.time_projection(time), "b t (m e) -> b t m e", m=6)

    def _grid(self, latents):
        _, rows, cols = self.config.patch_size
        h, w = latents.shape[-2:]
        if h % rows or w % cols or latents.shape[2] != self.config.in_channels:
            raise ValueError(f"latents [c h w] = {list(latents.shape[2:])} do not fit "
                             f"{self.config.in_channels} channels and patches of {rows} x {cols}")
        return h // rows, w // cols

    def _tokens(self, latents):
        """[b t c h w] -> [b t p e]."""
        _, rows, cols = self.config.patch_size
        patches = rearrange(latents.to(self.dtype), "b t c (h m) (w n) -> b t (h w) (c m n)", m=rows, n=cols)
        weight = rearrange(self.patch_embedding.weight, "e c 1 m n -> e (c m n)")
        return F.linear(patches, weight, self.patch_embedding.bias)

    def _latents(self, patches, grid):
        """[b t p (rows cols c)] -> [b t c h w]."""
        _, rows, cols = self.config.patch_size
        return rearrange(patches, "b t (h w) (m n c) -> b t c (h m) (w n)", h=grid[0], m=rows, n=cols)

    def _time(self, latents, sigma, actions, known):
        """Time embedding [b t e] of frames at sigma, with their actions added."""
        shape = latents.shape[:2]
        sigma = torch.as_tensor(sigma, device=latents.device).expand(shape)
        time = self.time_embedding(timestep_sinusoid(sigma, self.config.freq_dim).to(self.dtype))
        if self.action_embedding is not None:
            return time + action_vectors(self.action_embedding, self.null_action, actions, known, shape)
        if actions is not None:
            raise ValueError("this transformer takes no actions: its action_channels is 0")
        return time

    def _init_weights(self):
        """Source: the published initialisation, with a small last layer for actions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        nn.init.zeros_(self.patch_embedding.bias)
        for embedding in (self.time_embedding, self.text_embedding, self.action_embedding):
            if embedding is not None:
                nn.init.normal_(embedding[0].weight, std=0.02)
                nn.init.normal_(embedding[2].weight, std=0.02)
        if self.action_embedding is not None:
            nn.init.xavier_uniform_(self.action_embedding[0].weight)
        nn.init.zeros_(self.head.head.weight)


def fuse_for_inference(model):
    """The same transformer with q, k and v of self-attention joined for good; it no longer trains."""
    for block in model.blocks:
        block.self_attn.fuse()
    return model
