"""What a network is conditioned on when it predicts frames of a sequence: past, actions, camera and text."""
from dataclasses import asdict, dataclass

import torch

from worldplay.diffusion import add_noise, x0_from_velocity
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.conditioning import frame_conditions
from worldplay.models.configs import FrameRule
from worldplay.models.transformer import Transformer
from worldplay.train.metrics import contact_sheet
from worldplay.train.stages.losses import guide


@dataclass(frozen=True, kw_only=True)
class ContextConfig:
    """Context augmentation: the past in play is the network's own output, so training corrupts the past."""
    window: int = 8
    """Frames attended to: sink + past + those being made; as in play."""
    sink: int = 0
    """First frames of a sequence that stay in view, counted in the window."""
    frames_per_chunk: int = 1
    """Frames made together, in one go of the sampler; 1 is frame-wise, more is chunk-wise."""
    sink_position: str = "before_window"
    """Where their keys are once the window rolls: before_window moves them along, absolute leaves them."""
    max_sigma: float = 0.5
    """Each context frame is noised with its own sigma in [0, max_sigma], which its time embedding says."""
    own_frames: float = 0.5
    """Share of context frames that are the network's own one-step predictions, in own_steps of the steps."""
    own_steps: float = 0.4
    """Share of the training steps with own frames; each costs another forward pass."""
    null_actions: float = 0.05
    """Share of frames whose action is hidden; the first of a sequence always is."""

    @property
    def rule(self):
        """The FrameRule of play."""
        return FrameRule(frames_per_chunk=self.frames_per_chunk, window=self.window, sink=self.sink,
                         sink_position=self.sink_position)

    def chunks(self, num_frames):
        """The slices that num_frames frames are made in, one after another."""
        return [slice(i, i + self.frames_per_chunk) for i in range(0, num_frames, self.frames_per_chunk)]

    def per_chunk(self, draw, num_frames):
        """[b t] of draw(number of chunks), which gives [b chunks]: one draw for all frames of a chunk."""
        return draw(num_frames // self.frames_per_chunk).repeat_interleave(self.frames_per_chunk, dim=1)

    def new_cache(self, network, latents):
        """An empty KVCache for a Transformer in its compute dtype and a batch like latents [b t c h w]."""
        return KVCache(network.config, batch=len(latents), num_frames=self.window, sink=self.sink,
                       frames_per_chunk=self.frames_per_chunk, sink_position=self.sink_position,
                       dtype=network.dtype, device=latents.device,
                       tokens_per_frame=network.config.num_tokens(*latents.shape[-2:]))


class Context:
    """The clean half of a batch and everything that conditions on it; the same for every causal stage."""

    def __init__(self, config, batch, draws):
        latents = batch["latents"]
        b, t = latents.shape[:2]
        device = latents.device
        self.config, self.latents = config, latents
        self.sigma = context_sigma(config, draws, t).to(device)
        self.noise = draws.normal("context noise", *latents.shape[1:]).to(device)
        self.is_own = draws.uniform("own frames", t).to(device) < config.own_frames
        known = draws.uniform("null actions", t) >= config.null_actions
        self.conditions = {**frame_conditions(batch, known=known.to(device)), "text": batch.get("text"),
                           **asdict(config.rule)}
        without, is_known = _without_condition(batch, known.to(device))
        self.unconditional = {**frame_conditions(without, known=is_known), "text": without.get("text"),
                              **asdict(config.rule)}
        self.keep()

    def keep(self):
        """Leave the past as it is, real and without noise."""
        self.clean, self.clean_sigma = self.latents, torch.zeros_like(self.sigma)
        return self

    def add_noise(self):
        """Noise the real past."""
        self.clean, self.clean_sigma = add_noise(self.latents, self.noise, self.sigma), self.sigma
        return self

    def augment(self, call, role, draws):
        """Context augmentation: noise the past, part of which network `role` predicts itself, in one step
        from noise.
        """
        self.add_noise()
        if draws.shared_uniform("own step") < self.config.own_steps:
            with torch.no_grad():
                start = draws.normal("own frames start", *self.latents.shape[1:]).to(self.latents.device)
                ones = torch.ones_like(self.sigma)
                own = x0_from_velocity(start, self.predict(call, role, start, ones).float(), ones)
            frames = torch.where(self.is_own[:, :, None, None, None], own, self.latents)
            self.clean = add_noise(frames, self.noise, self.sigma)
        return self

    def predict(self, call, role, noisy, sigma, guidance=1.0):
        """Velocity [b t c h w] of network `role` at sigma [b t] given this context; guidance as for
        `guided`.
        """
        def velocity(conditions):
            return call(role, Transformer.forward, noisy, sigma, clean=self.clean,
                        clean_sigma=self.clean_sigma, **conditions)
        return guided(velocity, self.conditions, self.unconditional, guidance)


def context_sigma(config, draws, num_frames):
    """Noise levels [b t] of the past, each frame its own, low ones more often."""
    return config.max_sigma * draws.uniform("context sigma", num_frames).square()


def _without_condition(batch, known):
    """(batch, known) of the unconditional branch of guidance: `null_text` where there is one, no actions
    otherwise.
    """
    if "null_text" in batch:
        return {**batch, "text": batch["null_text"]}, known
    return batch, torch.zeros_like(known)


def guided(velocity, conditions, unconditional, guidance):
    """Classifier-free guidance over two calls of `velocity`, as `guide`; a guidance of 1 is none, and one
    call.
    """
    if guidance == 1:
        return velocity(conditions)
    return guide(velocity(unconditional).float(), velocity(conditions).float(), guidance)


def chunk_conditions(batch, chunk):
    """Conditions of Transformer.denoise for the slice `chunk` of a batch that begins with frame 0."""
    part = {name: batch[name][:, chunk] for name in ("actions", "columns", "viewmats", "focal")
            if name in batch}
    return frame_conditions(part, frame=chunk.start)


def whole_sequence(call, role, x, sigma, batch, known=None, guidance=1.0, **options):
    """Velocity [b t c h w] of network `role` for a sequence without a clean half.

    sigma     [b t]
    known     bool [b], False for sequences whose actions are hidden; None: none is. That before the first
              frame always is
    guidance  as for `guided`
    options   of Transformer.forward; is_causal=False lets every frame see every other
    """
    known = torch.ones(len(x), dtype=torch.bool) if known is None else known
    known = known[:, None].repeat(1, x.shape[1])

    def velocity(given):
        batch, known = given
        return call(role, Transformer.forward, x, sigma, text=batch.get("text"),
                    **frame_conditions(batch, known=known), **options)
    given = batch, known.to(x.device)
    return guided(velocity, given, _without_condition(*given), guidance)


def prediction_sheet(call, role, config, batch, draws, decode, num=8):
    """Real frames above the one-step predictions of a network from real context, two sequences; uint8 [H W
    3].
    """
    part, draws = first_two(batch, draws)
    context = Context(config, part, draws)
    noise = draws.normal("noise", *part["latents"].shape[1:]).to(part["latents"].device)
    ones = torch.ones_like(context.sigma)
    velocity = context.predict(call, role, noise, ones)
    made = x0_from_velocity(noise, velocity.float(), ones)
    return sheet_of(part["latents"][:, -num:], made[:, -num:], decode)


def first_two(batch, draws):
    """The first two samples of a batch, and their draws."""
    return {name: x[:2] for name, x in batch.items()}, type(draws)(draws.seed, draws.step, draws.indices[:2])


def sheet_of(real, made, decode):
    """Real latents [b t c h w] above made ones, each sequence in turn, as a picture uint8 [H W 3]."""
    return contact_sheet([decode(frames).cpu() for pair in zip(real, made) for frames in pair])
