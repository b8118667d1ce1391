"""Stage `dmd`: distribution matching distillation on the student's own rollouts from real frames."""
import copy
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from worldplay.diffusion import add_noise, sample_frame, shift_sigma, warped_sigmas, x0_from_velocity
from worldplay.models.transformer import Transformer
from worldplay.train.optim import move_average
from worldplay.train.stages.context import (
    chunk_conditions,
    context_sigma,
    first_two,
    sheet_of,
    whole_sequence,
)
from worldplay.train.stages.losses import flow_matching_loss, last_frames, masked_gradient, squared_errors


def kl_gradient(x, fake_x0, real_x0, normaliser="sample"):
    """Gradient of KL(student || real) with respect to the student's frames x, [b t c h w] each.

    fake_x0, real_x0  clean estimates from noised x, by the critic and by the teacher
    normaliser        mean distance of x from real_x0 over each "sample", over the whole "batch", or "none"
    Returns           [b t c h w]

    Source: DMD (arXiv:2311.18828), with the per-sample normaliser of Self Forcing. The published code also
    replaces what is not finite; here it reaches the loss, and the trainer stops.
    """
    gradient = fake_x0 - real_x0
    distance = (x - real_x0).abs()
    if normaliser == "sample":
        gradient = gradient / distance.mean(dim=tuple(range(1, x.ndim)), keepdim=True).clamp_min(1e-8)
    elif normaliser == "batch":
        gradient = gradient / distance.mean().clamp_min(1e-8)
    return gradient


def generator_loss(x, gradient, mask=None):
    """A loss whose gradient for x is `gradient` divided by the number of elements in the mean.

    mask  as for `squared_errors`
    """
    return 0.5 * squared_errors(x, (x - gradient).detach(), mask=mask).mean()


def exit_steps(draws, num_chunks, num_steps, first_steps, is_shared=True):
    """int list [num_chunks]: the sampling step at which each chunk stops; its x0 estimate is the frame.

    Drawn once for the whole batch, so that every process does the same work. is_shared: also once for all
    chunks but the first, whose number of steps, first_steps, may differ.
    """
    first = draws.shared_integer("first exit", first_steps)
    if is_shared:
        return [first] + [draws.shared_integer("exit", num_steps)] * (num_chunks - 1)
    return [first] + [draws.shared_integer(f"exit {i}", num_steps) for i in range(1, num_chunks)]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A student's rollout, with the inputs needed to recompute it with gradients.

    frames            [b t c h w] float32: real frames, then generated ones
    noisy, sigma      [b t c h w] and [b t]: input of the network for each frame at its exit step, and its
                      noise level; for real frames the frame itself and 0
    past, past_sigma  the same for the pass that wrote each frame to the KV cache
    """
    frames: torch.Tensor
    noisy: torch.Tensor
    sigma: torch.Tensor
    past: torch.Tensor
    past_sigma: torch.Tensor


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # compiled blocks would be compiled anew for every layer of a cache
def self_rollout(student, batch, draws, context, *, num_steps, first_steps=4, num_real=1, is_exit_shared=True,
                 sigma=None):
    """Roll the student out after `num_real` real frames as the engine does, each chunk up to its exit step.

    student      Transformer in its compute dtype
    batch        latents [b t c h w], of which the first num_real frames are used; actions [b t a], columns
                 [b t]; text [b l text_dim] for a transformer with text
    context      ContextConfig: window, sink and frames of a chunk, a divisor of num_real
    num_steps    sampling steps of a chunk; first_steps: of the first generated one
    is_exit_shared  see `exit_steps`
    sigma        [b t] noise levels at which the frames are written to the cache, None: 0
    Returns      a Rollout without autograd history

    Source: Self Forcing (arXiv:2506.08009).
    """
    latents = batch["latents"]
    t = latents.shape[1]
    cache = context.new_cache(student, latents)
    sigma = torch.zeros(latents.shape[:2], device=latents.device) if sigma is None else sigma
    noise_of_past = draws.normal("context noise", *latents.shape[1:]).to(latents.device)
    generated = context.chunks(t)[num_real // context.frames_per_chunk:]
    exits = exit_steps(draws, len(generated), num_steps, first_steps, is_exit_shared)
    text = student.encode_text(batch["text"]) if "text" in batch else None
    frames, past, noisy, levels = [], [], latents.float().clone(), torch.zeros_like(sigma)
    for chunk in context.chunks(t):
        placed = student.prepare(cache, latents[:, chunk].shape, frame=chunk.start,
                                 **chunk_conditions(batch, chunk))
        if chunk.start < num_real:
            frames.append(latents[:, chunk])
        else:
            steps = first_steps if chunk.start == num_real else num_steps
            sigmas = warped_sigmas(steps)[:exits[generated.index(chunk)] + 1]

            def velocity(x, level):
                noisy[:, chunk], levels[:, chunk] = x, level
                return student.denoise(x.to(student.dtype), level, cache, placed, text)

            def noise(step):
                return torch.cat([draws.normal(f"rollout {i} {step}", 1, *latents.shape[2:])
                                  for i in range(chunk.start, chunk.stop)], dim=1).to(latents.device)
            frames.append(sample_frame(velocity, noise, sigmas))
        past.append(add_noise(frames[-1], noise_of_past[:, chunk], sigma[:, chunk]))
        student.commit(past[-1].to(student.dtype), sigma[:, chunk], cache, placed, text)
    return Rollout(frames=torch.cat(frames, dim=1), noisy=noisy, sigma=levels, past=torch.cat(past, dim=1),
                   past_sigma=sigma)


def recompute(student, rollout, batch, context, *, num_trained=None, trains_past=False):
    """Recompute a rollout with gradients: frames [b t c h w], the exit steps of all chunks in one pass.

    num_trained  gradients flow through the exit steps of so many last frames, None: of all generated ones;
                 never through earlier sampling steps
    trains_past  whether they also flow through attention into the passes that wrote past frames to the cache

    One teacher-forced pass over the rollout gives the same numbers as the KV cache did, up to the order of
    sums, and allows activation checkpointing. Passes over the cache do not: by the backward pass its contents
    have been overwritten.

    Source: the two passes of Self Gradient Forcing (arXiv:2607.20368). The published trainer of Self Forcing
    means to cut the past from the graph and does not.
    """
    t = rollout.frames.shape[1]
    velocity = student(rollout.noisy, rollout.sigma, clean=rollout.past, clean_sigma=rollout.past_sigma,
                       is_clean_trained=trains_past, text=batch.get("text"), **asdict(context.rule),
                       **chunk_conditions(batch, slice(0, t)))
    # at sigma 0 a real frame stays what it is
    x = x0_from_velocity(rollout.noisy, velocity.float(), rollout.sigma)
    return masked_gradient(x, last_frames(t, t if num_trained is None else num_trained))


@dataclass(frozen=True, kw_only=True)
class DMDConfig:
    """Hyperparameters of stage dmd: student rollout, critic, guidance."""
    first_steps: int = 4
    """Sampling steps of the first generated frame or chunk."""
    num_real: int = 1
    """Real frames that a rollout starts from, whole chunks; 0 starts from a text alone, as published worlds
    can."""
    num_trained: int | None = None
    """Last frames of a rollout that get a gradient; None is all generated ones."""
    trains_past: bool = False
    """Whether gradients also flow from later frames into the cache entries of earlier ones (Self Gradient
    Forcing)."""
    is_exit_shared: bool = True
    """Whether all chunks of a rollout but the first stop at the same sampling step."""
    guidance: float = 1.0
    """Classifier-free guidance scale of the teacher, on the text where there is one, else on actions; 1 is
    none and saves a forward pass."""
    normaliser: Literal["sample", "batch", "none"] = "sample"
    """Over what the mean distance to the teacher's estimate is taken that divides the gradient; see
    `kl_gradient`."""
    critic_turns: int = 5
    """Critic updates per student update."""
    critic_lr: float = 0.2
    """The critic's step size, as a share of the student's."""
    sigma_range: tuple[float, float] = (0.02, 0.98)
    """Range of the noise levels at which critic and teacher are compared."""
    ema: float = 0.99
    """Decay of the running average of the student, which is the result."""


class DMDStage:
    """Trains `student` by the score difference of the frozen `teacher` and the `critic`, which is trained on
    the student's rollouts.
    """
    name, result = "dmd", "ema"

    def __init__(self, config, model, context, student, teacher, decode, num_steps):
        """student: state dict of a few-step student or AR teacher; teacher: of the bidirectional network;
        num_steps: sampling steps of the student; others as in teacher_forcing.
        """
        self.config, self.context, self.decode, self.num_steps = config, context, decode, num_steps
        self.trained = {"student": 1.0, "critic": config.critic_lr}
        causal, bidirectional = Transformer(model), Transformer(model)
        causal.load_state_dict(student)
        bidirectional.load_state_dict(teacher)
        self.models = {"student": causal, "ema": copy.deepcopy(causal).requires_grad_(False),
                       "critic": bidirectional, "teacher": copy.deepcopy(bidirectional).requires_grad_(False)}

    def turn(self, step):
        return "student" if step % (self.config.critic_turns + 1) == 0 else "critic"

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        rollout = self._rollout(call, "student", batch, draws)
        x = rollout.frames if role == "critic" else self._recompute(call, rollout, batch)
        sigma = shift_sigma(draws.uniform("sigma")).clamp(*self.config.sigma_range)
        sigma = sigma.to(latents.device)[:, None].expand(latents.shape[:2])
        noise = draws.normal("noise", *latents.shape[1:]).to(latents.device)
        noisy = add_noise(x.detach(), noise, sigma)
        if role == "critic":
            return flow_matching_loss(self._score(call, "critic", noisy, sigma, batch), x, noise), {}
        with torch.no_grad():
            fake = x0_from_velocity(noisy, self._score(call, "critic", noisy, sigma, batch), sigma)
            velocity = self._score(call, "teacher", noisy, sigma, batch, self.config.guidance)
            real = x0_from_velocity(noisy, velocity, sigma)
            gradient = kl_gradient(x, fake, real, self.config.normaliser)
        t = latents.shape[1]
        is_generated = last_frames(t, t - self.config.num_real).to(latents.device).expand(latents.shape[:2])
        return generator_loss(x, gradient, is_generated), {
            "data_error": squared_errors(x.detach(), latents, mask=is_generated).mean()}

    def after_step(self, step):
        if self.turn(step) == "student":
            move_average(self.models["ema"], self.models["student"], self.config.ema)

    def sheet(self, batch, draws, call, num=8):
        """Contact sheet of two sequences: real frames above rollouts of the average by the same actions."""
        part, draws = first_two(batch, draws)
        made = self._rollout(call, "ema", part, draws).frames
        return sheet_of(part["latents"][:, :num], made[:, :num], self.decode)

    def _rollout(self, call, role, batch, draws):
        config, latents = self.config, batch["latents"]
        sigma = context_sigma(self.context, draws, latents.shape[1]).to(latents.device)
        return call(role, self_rollout, batch, draws, self.context, num_steps=self.num_steps,
                    first_steps=config.first_steps, num_real=config.num_real,
                    is_exit_shared=config.is_exit_shared, sigma=sigma)

    def _recompute(self, call, rollout, batch):
        return call("student", recompute, rollout, batch, self.context, num_trained=self.config.num_trained,
                    trains_past=self.config.trains_past)

    def _score(self, call, role, noisy, sigma, batch, guidance=1.0):
        return whole_sequence(call, role, noisy, sigma, batch, guidance=guidance, is_causal=False).float()
