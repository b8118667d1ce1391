"""Stage `causal_ode`: a few-step student that regresses to the ends of a teacher's stored trajectories."""
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from worldplay.diffusion import euler_walk, shifted_sigmas, warped_sigmas, x0_from_velocity
from worldplay.models.transformer import Transformer
from worldplay.train.optim import move_average
from worldplay.train.stages.averaged import AveragedStudent, new_transformer
from worldplay.train.stages.context import Context, chunk_conditions, guided, prediction_sheet, whole_sequence
from worldplay.train.stages.losses import squared_errors

# the noise levels at which a trajectory is stored, beside its end; those of 1 and 2 steps too
NODES = warped_sigmas(4)


def pick(trajectory, index):
    """(input, regression target) of stored trajectories, for the drawn node of each frame.

    trajectory  [b t s c h w]  points from noise to data; the last one is the target
    index       int [b t] or [b 1], below s - 1
    Returns     [b t c h w] each

    Source: the ODE regression of Causal Forcing, arXiv:2602.02214.
    """
    index = index.expand(trajectory.shape[:2])[..., None, None, None, None]
    point = trajectory.take_along_dim(index.to(trajectory.device), dim=2).squeeze(2)
    return point, trajectory[:, :, -1]


def ode_loss(x0, target, weight=None, mask=None):
    """Mean squared error of the clean estimate and a trajectory's end; arguments of `squared_errors`."""
    return squared_errors(x0, target, weight, mask).mean()


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # compiled blocks would be compiled anew for every layer of a cache
def causal_trajectories(teacher, batch, noise, context, num_timesteps=48, guidance=1.0):
    """Trajectories of an AR teacher, every chunk of a batch from its real past, on a KV cache.

    teacher        Transformer, AR
    batch          latents [b t c h w], actions [b t a], columns [b t]; text [b l text_dim] where there is
                   text
    noise          [b t c h w], where they start
    context        ContextConfig: window, sink and chunk
    num_timesteps  Euler steps from noise to data
    guidance       of the teacher, as for `guided`; another one than 1 keeps a second cache, of the
                   unconditional branch
    Returns        [b t 5 c h w]: the points at NODES, and the end

        Raises ValueError unless num_timesteps is a multiple of 4, so that NODES lie on the way.
    """
    latents, made = batch["latents"], []
    branches = (True,) if guidance == 1 else (True, False)
    conditional, *unconditional = (_CachedTeacher(teacher, batch, context, each) for each in branches)
    for chunk in context.chunks(noise.shape[1]):
        prepared = {each: each.prepare(chunk) for each in (conditional, *unconditional)}

        def velocity(x, sigma):
            return guided(lambda each: each.velocity(x, sigma, prepared[each]), conditional,
                          *unconditional or (None,), guidance)
        made.append(_walk(velocity, noise[:, chunk], num_timesteps))
        for each in prepared:
            each.commit(latents[:, chunk], prepared[each])
    return torch.cat(made, dim=1)


class _CachedTeacher:
    """A teacher with a KV cache of its own: the conditional branch of guidance, or the unconditional one."""

    def __init__(self, teacher, batch, context, is_conditional):
        self.teacher, self.batch = teacher, batch
        self.cache = context.new_cache(teacher, batch["latents"])
        name = "text" if is_conditional or "null_text" not in batch else "null_text"
        self.text = teacher.encode_text(batch[name]) if name in batch else None
        self.hides_actions = not is_conditional and "null_text" not in batch

    def prepare(self, chunk):
        """What `velocity` and `commit` need of a chunk, once for all its noise levels."""
        given, shape = chunk_conditions(self.batch, chunk), self.batch["latents"][:, chunk].shape
        if self.hides_actions:
            given["action_mask"] = torch.zeros(given["actions"].shape[:2], dtype=torch.bool,
                                               device=given["actions"].device)
        return self.teacher.prepare(self.cache, shape, frame=chunk.start, **given)

    def velocity(self, x, sigma, placed):
        return self.teacher.denoise(x.to(self.teacher.dtype), sigma, self.cache, placed, self.text)

    def commit(self, latents, placed):
        self.teacher.commit(latents.to(self.teacher.dtype), 0.0, self.cache, placed, self.text)


@torch.no_grad()
def bidirectional_trajectories(teacher, batch, noise, num_timesteps=48, guidance=1.0):
    """Trajectories of a bidirectional teacher, whole sequences at once: the initialisation of Self Forcing.

    Arguments and result as for `causal_trajectories`.
    """
    def call(role, function, *args, **kwargs):
        return function(teacher, *args, **kwargs)

    def velocity(x, sigma):
        sigmas = torch.full(x.shape[:2], sigma, device=x.device)
        return whole_sequence(call, "teacher", x.to(teacher.dtype), sigmas, batch, guidance=guidance,
                              is_causal=False)
    return _walk(velocity, noise, num_timesteps)


def _walk(velocity, x, num_timesteps):
    """[b t 5 c h w]: x at NODES and at the end of its way along velocity(x, sigma)."""
    if num_timesteps % len(NODES):
        raise ValueError(f"{num_timesteps} Euler steps do not pass the {len(NODES)} nodes: expected a "
                         "multiple of them")
    points = list(euler_walk(velocity, x, shifted_sigmas(num_timesteps)))
    return torch.stack(points[::num_timesteps // len(NODES)], dim=2)


@dataclass(frozen=True, kw_only=True)
class CausalODEConfig:
    """Hyperparameters of stage causal_ode: the teacher of the ODE trajectories, its solver, the average."""
    teacher: Literal["causal", "bidirectional"] = "causal"
    """causal: the AR teacher, from real pasts. bidirectional: the initialisation of Self Forcing, a baseline;
    its student sees its own noisy past."""
    num_timesteps: int = 48
    """Euler steps of a trajectory; a multiple of 4."""
    guidance: float = 1.0
    """Of the teacher that makes them, as in causal_cd; 1 is none."""
    ema: float = 0.99
    """Decay of the averaged student, which ships."""

    @property
    def teacher_network(self):
        """Name of the network that makes the trajectories and that the student starts from."""
        return "teacher" if self.teacher == "causal" else "bidirectional"


class CausalODEStage(AveragedStudent):
    """Trains `student` on batches that hold `trajectories` [b t 5 c h w]; `ema` is its running average."""
    name = "causal_ode"

    def __init__(self, config, model, context, init, decode):
        """init: state dict of the teacher that made the trajectories; others as in teacher_forcing."""
        self.config, self.context, self.decode = config, context, decode
        super().__init__(new_transformer(model, init))

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        drawn = self.context.per_chunk(partial(draws.integers, "node", len(NODES)), latents.shape[1])
        x, target = pick(batch["trajectories"].float(), drawn)
        sigma = NODES[drawn].to(latents.device)
        context = Context(self.context, batch, draws).add_noise()
        if self.config.teacher == "causal":
            velocity = context.predict(call, role, x, sigma)
        else:
            velocity = call(role, Transformer.forward, x, sigma, **context.conditions)
        x0 = x0_from_velocity(x, velocity.float(), sigma)
        return ode_loss(x0, target), {"data_error": (x0.detach() - latents).square().mean()}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], self.config.ema)

    def sheet(self, batch, draws, call):
        return prediction_sheet(call, "ema", self.context, batch, draws, self.decode)
