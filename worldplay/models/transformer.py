"""The diffusion transformer in the Wan 2.1 layout, one class for the trainer and the player."""
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from worldplay.diffusion import as_level
from worldplay.models.attention.causal import causal_attention
from worldplay.models.attention.positions import ChunkPositions
from worldplay.models.attention.prope import Branches, causal_branches
from worldplay.models.attention.rope import frame_rotary
from worldplay.models.block import Block, Head
from worldplay.models.conditioning import action_vectors, timestep_sinusoid, two_layers
from worldplay.models.configs import FrameRule


class Chunk(NamedTuple):
    """What all passes over a chunk of frames share, by Transformer.prepare: positions and embedded actions.

    frame      time position of the first frame
    rotary     [b t p 1 d/2 2] of its tokens; None with a camera
    positions  ChunkPositions, for a transformer with a camera; None without
    actions    [b t e], what the actions add to the time embedding; None without actions
    """
    frame: int
    rotary: torch.Tensor | None
    positions: ChunkPositions | None
    actions: torch.Tensor | None


class Transformer(nn.Module):
    """Velocity of noised latent frames; parameters carry the names of the published Wan 2.1 weights.

    Not published are `action_embedding` and `null_action`, added to the time embedding of their frame.

    causal_attention        how `forward` attends, a name in CAUSAL_ATTENTION: all give the same, at different
                            speeds
    checkpoint_activations  whether `forward` computes the inside of its blocks again on the way back, to save
                            memory
    """

    def __init__(self, config):
        super().__init__()
        self.config, self.causal_attention, self.checkpoint_activations = config, "chunks", False
        self.branches = Branches()
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

    @property
    def hidden_weights(self):
        """Names of the matrices inside blocks; embeddings, the head, gains and biases are not among them."""
        return [f"blocks.{name}" for name, p in self.blocks.named_parameters()
                if p.ndim == 2 and name.endswith(".weight")]

    def forward(self, noisy, sigma, *, actions=None, action_mask=None, columns=None, text=None, clean=None,
                clean_sigma=None, is_clean_trained=True, frames_per_chunk=1, window=None, sink=0,
                sink_position="absolute", is_causal=True, attention=None, cameras=None):
        """Velocity of a whole sequence of frames, for training.

        noisy        [b t c h w]  frames at noise level sigma
        sigma        [b t]        (or a number); timestep = 1000 * sigma
        actions      [b t a]      actions[:, i] caused frame i; None: unknown
        action_mask  bool [b t]   False where an action is unknown and the null embedding stands for it
        text         [b l text_dim]  rows of the text encoder, l <= text_len
        clean        [b t c h w]  teacher forcing: the past that noisy frames attend to, at noise level
                     clean_sigma
                                  ([b t] or a number, default 0); None: they attend to the noisy past
        is_clean_trained  False: no gradient passes from the noisy frames into the clean ones that they attend
                          to
        columns      [b t]        added to the column positions of a frame's tokens
        attention    a name in CAUSAL_ATTENTION; None takes the transformer's own, `causal_attention`
        is_causal    False: every frame attends to every frame; then there is no clean, window or sink
        cameras      Cameras of the t frames, for a transformer that has_camera; None leaves that branch out
        frames_per_chunk, window, sink, sink_position: see FrameRule; window counts frames, the chunk included
        Returns      [b t c h w]  velocity of the noisy frames, in the dtype of the weights

            Raises ValueError for arguments that exclude each other.
        """
        causal = causal_attention(attention or self.causal_attention)
        if not is_causal and (clean is not None or window is not None or sink):
            raise ValueError("is_causal=False attends to all frames: no clean frames, window or sink")
        t, grid = noisy.shape[1], self._grid(noisy.shape)
        rule = FrameRule(frames_per_chunk=frames_per_chunk if is_causal else t, window=window, sink=sink,
                         sink_position=sink_position)
        self._check_cameras(cameras, t)
        rotary = frame_rotary(torch.arange(t, device=noisy.device), grid, self.config.head_dim, columns)
        actions = self._actions(noisy.shape[:2], actions, action_mask)
        time, x = self._time(noisy, sigma, actions), self._tokens(noisy)
        halves = 1
        if clean is not None:
            halves, rotary, cameras = 2, torch.cat([rotary, rotary], dim=1), cameras and cameras.twice()
            clean_time = self._time(clean, 0.0 if clean_sigma is None else clean_sigma, actions)
            time, x = torch.cat([clean_time, time], dim=1), torch.cat([self._tokens(clean), x], dim=1)

        by_rule = partial(causal, rule=rule, halves=halves)
        if self.config.has_camera:  # both branches start from queries and keys that are not rotated yet
            by_rule, rotary = causal_branches(causal, rule, halves, rotary, cameras), None

        def attend_by_rule(q, k, v):
            if halves == 2 and not is_clean_trained:
                k, v = (torch.cat([x[:, :t].detach(), x[:, t:]], dim=1) for x in (k, v))
            return by_rule(q, k, v)
        text = None if text is None else self.encode_text(text)
        x = self._blocks(x, time, rotary, lambda layer: attend_by_rule, text,
                         recompute=self.checkpoint_activations)
        return self._latents(self.head(x[:, -t:], time[:, -t:]), grid)

    def prepare(self, cache, shape, *, frame, actions=None, action_mask=None, columns=None, cameras=None):
        """The Chunk that all passes over the next frames of a cache take.

        shape    of their latents, (b, t, c, h, w)
        frame    int, time position of the first frame
        actions, action_mask, columns, cameras: as in `forward`, for these frames
        Returns  Chunk, valid until the next commit

            Raises ValueError for inputs that this transformer does not take.
        """
        b, t, *_ = shape
        device = self.head.head.weight.device
        self._check_cameras(cameras, t)
        times = torch.arange(frame, frame + t, device=device)
        rotary, positions = frame_rotary(times, self._grid(shape), self.config.head_dim, columns), None
        if self.config.has_camera:  # keys are rotated when they are read
            rotary, positions = None, cache.positions(rotary, cameras, self.branches)
        return Chunk(frame, rotary, positions, self._actions((b, t), actions, action_mask))

    def denoise(self, x, sigma, cache, chunk, text=None):
        """Velocity of the next chunk given the past in `cache`, which stays as it is.

        x        [b t c h w]  the chunk at noise level sigma ([b t] or a number)
        chunk    by `prepare`
        text     keys and values by `encode_text`, for a transformer with text
        Returns  [b t c h w]  in the dtype of the weights
        """
        cache.check(chunk.frame, x.shape[1])
        time = self._time(x, sigma, chunk.actions)
        tokens = self._blocks(self._tokens(x), time, chunk.rotary, self._cached_attention(cache, chunk), text)
        return self._latents(self.head(tokens, time), self._grid(x.shape))

    def commit(self, x, sigma, cache, chunk, text=None):
        """Write the keys and values of the finished chunk x, at noise level sigma, to `cache`; arguments as
        for `denoise`.
        """
        cache.check(chunk.frame, x.shape[1])
        time, last = self._time(x, sigma, chunk.actions), len(self.blocks) - 1
        tokens = self._blocks(self._tokens(x), time, chunk.rotary, self._cached_attention(cache, chunk),
                              text, last)
        cache.with_past(last, *self.blocks[last].keys_values(tokens, self._modulation(time), chunk.rotary))
        cache.commit(chunk.frame, chunk.positions)

    def encode_text(self, text):
        """Keys and values of every block for text [b l text_dim]: a list of (k, v), [b k text_len d] each.

        Rows are padded with zeros to text_len, then embedded; all are attended to, as in the published model.

            Raises ValueError when this transformer takes no text, or not that much.
        """
        if self.text_embedding is None:
            raise ValueError("this transformer takes no text: its text_dim is None")
        if text.shape[1] > self.config.text_len:
            raise ValueError(f"text has {text.shape[1]} rows, more than text_len {self.config.text_len}")
        padded = F.pad(text, (0, 0, 0, self.config.text_len - text.shape[1]))
        rows = self.text_embedding(padded.to(self.dtype))
        return [block.text_keys_values(rows) for block in self.blocks]

    @property
    def dtype(self):
        return self.head.head.weight.dtype

    def _cached_attention(self, cache, chunk):
        return lambda layer: partial(cache.attend, layer, positions=chunk.positions)

    def _blocks(self, x, time, rotary, attention, text, num_layers=None, recompute=False):
        """x [b t p e] after the first num_layers blocks (None: all); attention(layer)(q, k, v) -> out."""
        if (text is None) != (self.text_embedding is None):
            raise ValueError(f"this transformer {'needs' if text is None else 'takes no'} text")
        modulation = self._modulation(time)
        for layer, block in enumerate(self.blocks[:num_layers]):
            run = partial(checkpoint, block,
                          use_reentrant=False) if recompute and torch.is_grad_enabled() else block
            x = run(x, modulation, rotary, attention(layer), text and text[layer])
        return x

    def _check_cameras(self, cameras, num_frames):
        if cameras is not None and not self.config.has_camera:
            raise ValueError("this transformer takes no cameras: its has_camera is False")
        if cameras is not None and cameras.matrices.shape[1] != num_frames:
            raise ValueError(f"cameras of {cameras.matrices.shape[1]} frames for {num_frames} frames")

    def _modulation(self, time):
        return rearrange(self.time_projection(time), "b t (m e) -> b t m e", m=6)

    def _grid(self, shape):
        (_, rows, cols), (c, h, w) = self.config.patch_size, shape[2:]
        if h % rows or w % cols or c != self.config.in_channels:
            raise ValueError(f"latents [c h w] = {[c, h, w]} do not fit "
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

    def _time(self, latents, sigma, actions):
        """Time embedding [b t e] of frames at sigma, plus their embedded actions, [b t e] or None."""
        sigma = as_level(sigma, latents.device).expand(latents.shape[:2])
        time = self.time_embedding(timestep_sinusoid(sigma, self.config.freq_dim).to(self.dtype))
        return time if actions is None else time + actions

    def _actions(self, shape, actions, known):
        """What the actions of (b, t) frames add to their time embedding, [b t e]; None for a transformer
        without.
        """
        if self.action_embedding is not None:
            return action_vectors(self.action_embedding, self.null_action, actions, known, shape)
        if actions is not None:
            raise ValueError("this transformer takes no actions: its action_channels is 0")
        return None

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
        for layer in (self.head.head, *(block.self_attn.prope_o for block in self.blocks
                                        if self.config.has_camera)):
            nn.init.zeros_(layer.weight)


def fuse_for_inference(model):
    """The same transformer with q, k and v of self-attention in one matrix for good; it no longer trains."""
    for block in model.blocks:
        block.self_attn.fuse()
    return model
