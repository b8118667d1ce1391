"""Stage `causal_ode`: a few-step student that regresses to the ends of a teacher's stored trajectories."""
import copy
from dataclasses import dataclass

import torch

from worldplay.diffusion import WARPED_STEPS, euler_step, shifted_sigmas, warped_sigmas, x0_from_velocity
from worldplay.models.kv_cache import KVCache
from worldplay.models.transformer import Transformer, TransformerConfig
from worldplay.train.bidirectional import whole_sequence
from worldplay.train.losses import squared_errors
from worldplay.train.teacher_forcing import Context, ContextConfig, prediction_sheet
from worldplay.train.trainer import move_average

NODES = warped_sigmas(4)  # the noise levels at which a trajectory is stored, beside its end


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
    """Mean squared error of the clean estimate against a trajectory's end; arguments as for `squared_errors`."""
    return squared_errors(x0, target, weight, mask).mean()


@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # compiled blocks would be compiled anew for every layer of a cache
def causal_trajectories(teacher, batch, noise, context, num_timesteps=48, shift=5.0):
    """Trajectories of an AR teacher, every frame of a batch from its real past, on a KV cache.

    teacher        Transformer, AR
    batch          latents [b t c h w], actions [b t a], columns [b t]
    noise          [b t c h w], where they start
    context        ContextConfig: window and sink
    num_timesteps  Euler steps from noise to data; a multiple of 4, so that NODES lie on the way
    Returns        [b t 5 c h w]: the points at NODES, and the end
    """
    latents, t = batch["latents"], noise.shape[1]
    cache = KVCache(teacher.config, batch=len(latents), num_frames=context.window, sink=context.sink,
                    tokens_per_frame=teacher.config.num_tokens(*latents.shape[-2:]), dtype=teacher.dtype, device=latents.device)
    frames = []
    for i in range(t):
        conditions = {"actions": batch["actions"][:, i:i + 1] if i else None, "columns": batch["columns"][:, i:i + 1]}

        def velocity(x, sigma):
            return teacher.denoise(x.to(teacher.dtype), sigma, cache, frame=i, **conditions)
        frames.append(_walk(velocity, noise[:, i:i + 1], num_timesteps, shift))
        teacher.commit(latents[:, i:i + 1].to(teacher.dtype), 0.0, cache, frame=i, **conditions)
    return torch.cat(frames, dim=1)


@torch.no_grad()
def bidirectional_trajectories(teacher, batch, noise, num_timesteps=48, shift=5.0):
    """Trajectories of a bidirectional teacher, whole sequences at once: the initialisation of Self Forcing.

    Arguments and result as for `causal_trajectories`.
    """
    def call(role, *args, **kwargs):
        return teacher(*args, **kwargs)

    def velocity(x, sigma):
        sigmas = torch.full(x.shape[:2], sigma, device=x.device)
        return whole_sequence(call, "teacher", x.to(teacher.dtype), sigmas, batch)
    return _walk(velocity, noise, num_timesteps, shift)


def _walk(velocity, x, num_timesteps, shift):
    """[b t 5 c h w]: x at NODES and at the end of its way along velocity(x, sigma)."""
    levels, points = [*shifted_sigmas(num_timesteps, shift).tolist(), 0.0], []
    for i, (sigma, lower) in enumerate(zip(levels, levels[1:])):
        if i % (num_timesteps // len(NODES)) == 0:
            points.append(x)
        x = euler_step(x, velocity(x, sigma).float(), sigma, lower)
    return torch.stack([*points, x], dim=2)


@dataclass(frozen=True, kw_only=True)
class CausalODEConfig:
    """model, context: as in teacher_forcing.
    steps: of the student, 1, 2 or 4: the nodes it is trained at.
    teacher: "causal" regresses from real pasts; "bidirectional" is the baseline whose student sees its noisy past.
    ema: decay of the averaged student, which ships.
    """
    model: TransformerConfig
    context: ContextConfig = ContextConfig()
    steps: int = 4
    teacher: str = "causal"
    ema: float = 0.99


class CausalODEStage:
    """Trains `student` on batches that hold `trajectories` [b t 5 c h w]; `ema` is its running average."""
    name, trained, result = "causal_ode", {"student": 1.0}, "ema"

    def __init__(self, config, init, decode):
        """init: state dict to start from: of the teacher that made the trajectories."""
        if config.teacher not in ("causal", "bidirectional"):
            raise ValueError(f"teacher {config.teacher!r}: expected 'causal' or 'bidirectional'")
        self.config, self.decode = config, decode
        network = Transformer(config.model)
        network.load_state_dict(init)
        self.models = {"student": network, "ema": copy.deepcopy(network).requires_grad_(False)}
        self.nodes = torch.tensor([WARPED_STEPS[4].index(step) for step in WARPED_STEPS[config.steps]])

    def turn(self, step):
        return "student"

    def loss(self, role, batch, draws, call):
        latents = batch["latents"]
        drawn = self.nodes[draws.integers("node", len(self.nodes), latents.shape[1])]
        x, target = pick(batch["trajectories"].float(), drawn)
        sigma = NODES[drawn].to(latents.device)
        if self.config.teacher == "causal":
            velocity = Context(self.config.context, batch, draws).keep().predict(call, role, x, sigma)
        else:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            mask[:, 0] = False
            velocity = call(role, x, sigma, actions=batch["actions"], action_mask=mask, columns=batch["columns"],
                            window=self.config.context.window, sink=self.config.context.sink)
        x0 = x0_from_velocity(x, velocity.float(), sigma)
        return ode_loss(x0, target), {"data_error": (x0.detach() - latents).square().mean()}

    def after_step(self, step):
        move_average(self.models["ema"], self.models["student"], self.config.ema)

    def sheet(self, batch, draws):
        return prediction_sheet(self.models["ema"], self.config.context, batch, draws, self.decode)
