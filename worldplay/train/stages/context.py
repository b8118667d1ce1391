"""Conditions of a causal network in training: clean or corrupted past frames, actions, camera and text."""
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
    """Context augmentation: in play past frames are the network's own output, so training corrupts them."""
    window: int = 8
    """Frames that attention spans, as in play: sink, past, and the chunk being generated."""
    sink: int = 0
    """First frames of a sequence that are always attended to; they count in the window."""
    frames_per_chunk: int = 1
    """Frames denoised together; 1 is frame-wise, more is chunk-wise."""
    sink_position: str = "before_window"
    """RoPE positions of the sink once the window rolls: before_window moves them with it, absolute keeps the
    frames' own."""
    max_sigma: float = 0.5
    """Each context frame gets noise at its own sigma in [0, max_sigma], which its time embedding encodes."""
    own_frames: float = 0.5
    """Probability that a context frame is replaced by the network's own one-step prediction, in the training
    steps that own_steps selects."""
    own_steps: float = 0.4
    """Fraction of training steps that do so; each costs another forward pass for every round."""
    own_rounds: int = 1
    """Such a step predicts 1 to own_rounds times, each time from the frames of the time before, because in
    play a frame's past was itself made from a made past."""
    null_actions: float = 0.05
    """Probability that a frame's action is masked; that of the first frame of a sequence always is."""

    @property
    def rule(self):
        """The FrameRule of play."""
        return FrameRule(frames_per_chunk=self.frames_per_chunk, window=self.window, sink=self.sink,
                         sink_position=self.sink_position)

    def chunks(self, num_frames):
        """Slices of num_frames frames, one for each chunk in order."""
        return [slice(i, i + self.frames_per_chunk) for i in range(0, num_frames, self.frames_per_chunk)]

    def per_chunk(self, draw, num_frames):
        """Random values [b t] that are equal within a chunk; draw(n) gives [b n] for n chunks."""
        return draw(num_frames // self.frames_per_chunk).repeat_interleave(self.frames_per_chunk, dim=1)

    def new_cache(self, network, latents):
        """An empty KVCache in a Transformer's compute dtype, for latents of the shape [b t c h w] given."""
        return KVCache(network.config, batch=len(latents), num_frames=self.window, sink=self.sink,
                       frames_per_chunk=self.frames_per_chunk, sink_position=self.sink_position,
                       dtype=network.dtype, device=latents.device,
                       tokens_per_frame=network.config.num_tokens(*latents.shape[-2:]))


class Context:
    """The clean half of a [clean ; noisy] batch, with actions, camera and text; shared by all causal stages.

    clean, clean_sigma   [b t c h w] and [b t]: past frames as the network sees them, and their noise levels
    conditions           keyword arguments of Transformer.forward
    unconditional        the same for the unconditional branch of classifier-free guidance
    """

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
        """Condition on real frames without noise."""
        self.clean, self.clean_sigma = self.latents, torch.zeros_like(self.sigma)
        return self

    def add_noise(self):
        """Condition on real frames with noise at `sigma`."""
        self.clean, self.clean_sigma = add_noise(self.latents, self.noise, self.sigma), self.sigma
        return self

    def augment(self, call, role, draws):
        """Condition on noised frames, some of them one-step predictions of network `role` from pure noise."""
        self.add_noise()
        if draws.shared_uniform("own step") >= self.config.own_steps:
            return self
        most, ones = self.config.own_rounds, torch.ones_like(self.sigma)
        for number in range(1 + draws.shared_integer("own rounds", most) if most > 1 else 1):
            start = draws.normal(f"own frames start {number}", *self.latents.shape[1:]).to(ones.device)
            with torch.no_grad():
                own = x0_from_velocity(start, self.predict(call, role, start, ones).float(), ones)
            frames = torch.where(self.is_own[:, :, None, None, None], own, self.latents)
            self.clean = add_noise(frames, self.noise, self.sigma)
        return self

    def predict(self, call, role, noisy, sigma, guidance=1.0):
        """Velocity [b t c h w] that network `role` predicts for noisy frames at sigma [b t] in this context.

        call      runs a function on the network of a role, as Stage.loss is given it
        guidance  as for `guided`
        """
        def velocity(conditions):
            return call(role, Transformer.forward, noisy, sigma, clean=self.clean,
                        clean_sigma=self.clean_sigma, **conditions)
        return guided(velocity, self.conditions, self.unconditional, guidance)


def context_sigma(config, draws, num_frames):
    """Noise levels [b t] of context frames: max_sigma times the square of a uniform number for each frame."""
    return config.max_sigma * draws.uniform("context sigma", num_frames).square()


def _without_condition(batch, known):
    """(batch, mask of known actions) of the unconditional branch of guidance: the negative prompt where the
    batch has one (`null_text`), otherwise all actions masked.
    """
    if "null_text" in batch:
        return {**batch, "text": batch["null_text"]}, known
    return batch, torch.zeros_like(known)


def guided(velocity, conditions, unconditional, guidance):
    """Classifier-free guidance: velocity(conditions) and velocity(unconditional), combined by `guide`.

    With guidance 1 only velocity(conditions) is computed.
    """
    if guidance == 1:
        return velocity(conditions)
    return guide(velocity(unconditional).float(), velocity(conditions).float(), guidance)


def chunk_conditions(batch, chunk):
    """Action and camera arguments of Transformer.prepare for the frames `chunk`, a slice, of a batch."""
    part = {name: batch[name][:, chunk] for name in ("actions", "columns", "viewmats", "focal")
            if name in batch}
    return frame_conditions(part, frame=chunk.start)


def whole_sequence(call, role, x, sigma, batch, known=None, guidance=1.0, **options):
    """Velocity [b t c h w] that network `role` predicts for noisy frames x without a clean half.

    sigma     [b t]
    known     bool [b], False for sequences whose actions are all masked; None: True for all. The action
              before the first frame is masked in any case
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
    """Contact sheet uint8 [H W 3] of two sequences: real frames above one-step predictions from real past."""
    part, draws = first_two(batch, draws)
    context = Context(config, part, draws)
    noise = draws.normal("noise", *part["latents"].shape[1:]).to(part["latents"].device)
    ones = torch.ones_like(context.sigma)
    velocity = context.predict(call, role, noise, ones)
    made = x0_from_velocity(noise, velocity.float(), ones)
    return sheet_of(part["latents"][:, -num:], made[:, -num:], decode)


def first_two(batch, draws):
    """The first two samples of a batch, and the Draws of their random numbers."""
    return {name: x[:2] for name, x in batch.items()}, type(draws)(draws.seed, draws.step, draws.indices[:2])


def sheet_of(real, made, decode):
    """Contact sheet uint8 [H W 3]: of each sequence real latents [b t c h w] above generated ones."""
    return contact_sheet([decode(frames).cpu() for pair in zip(real, made) for frames in pair])
