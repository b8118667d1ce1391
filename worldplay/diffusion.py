"""Flow matching on tensors: the path, its targets, the schedules, the noise, and the samplers."""
import torch

WARPED_STEPS = {4: (1000, 750, 500, 250), 2: (1000, 500), 1: (1000,)}


def _per_frame(sigma, like):
    """sigma, a number or [b t] (or any leading shape of `like`), in float32, ready to multiply `like`."""
    sigma = as_level(sigma, like.device).float()
    return sigma.reshape(*sigma.shape, *[1] * (like.ndim - sigma.ndim)) if sigma.ndim else sigma


def as_level(sigma, device):
    """A noise level, a number or a tensor, as a tensor on the device; a number is filled in there, without a
    copy.
    """
    if isinstance(sigma, torch.Tensor):
        return sigma.to(device)
    return torch.full((), sigma, dtype=torch.float32, device=device)


def add_noise(x0, noise, sigma):
    """The point of the path at sigma: (1 - sigma) * x0 + sigma * noise.

    x0, noise  [b t c h w]
    sigma      [b t] or a number: 1 noise, 0 data
    """
    sigma = _per_frame(sigma, x0)
    return (1 - sigma) * x0 + sigma * noise


def velocity_target(x0, noise):
    """What the network learns, [b t c h w]: the direction from data to noise."""
    return noise - x0


def x0_from_velocity(x, velocity, sigma):
    """The clean estimate [b t c h w] of x at sigma ([b t] or a number)."""
    return x - _per_frame(sigma, x) * velocity


def euler_step(x, velocity, sigma, lower):
    """x moved along velocity from noise level sigma to `lower`, each [b t] or a number."""
    return x + (_per_frame(lower, x) - _per_frame(sigma, x)) * velocity


def shift_sigma(u, shift=5.0):
    """Noise levels that dwell near noise: shift * u / (1 + (shift - 1) * u) of u in [0, 1], a tensor."""
    return shift * u / (1 + (shift - 1) * u)


def shifted_sigmas(num_steps, shift=5.0):
    """float32 [num_steps], from 1 downwards, without the final 0."""
    return shift_sigma(torch.linspace(1.0, 0.0, num_steps + 1)[:-1], shift)


def warped_sigmas(num_steps, shift=5.0):
    """Noise levels of the few-step sampler, float32 [num_steps]; timesteps 1000, 937.5, 833.33, 625 for 4.

        Raises ValueError unless num_steps is 1, 2 or 4.
    """
    if num_steps not in WARPED_STEPS:
        raise ValueError(f"{num_steps} sampling steps: expected 1, 2 or 4")
    return warp(WARPED_STEPS[num_steps], shift)


def warp(steps, shift=5.0, num_steps=1000):
    """Noise levels, float32, of nominal steps (1000 noise, 0 data) looked up in the shifted schedule."""
    table = torch.cat([shifted_sigmas(num_steps, shift), torch.zeros(1)])
    return table[[num_steps - step for step in steps]]


def training_weights(sigmas):
    """How much each noise level of a schedule [s] counts: a bell around timestep 500 with mean 1, least 0.

    Source: FlowMatchScheduler of the published Wan trainers.
    """
    bell = torch.exp(-2 * ((1000 * sigmas - 500) / 1000) ** 2)
    return (bell - bell.min()) * len(sigmas) / (bell - bell.min()).sum()


def frame_noise(seed, frame, step, shape):
    """Standard normal noise, float32 on the CPU, by (seed, frame index, sampling step) alone."""
    generator = torch.Generator().manual_seed(_mix(seed, frame, step))
    return torch.randn(shape, generator=generator)


def _mix(*numbers):
    """64 bits that depend on every number and its place. Source: the finaliser of splitmix64."""
    bits, mask = 0, (1 << 64) - 1
    for number in numbers:
        bits = (bits + number + 0x9E3779B97F4A7C15) & mask
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & mask
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
        bits ^= bits >> 31
    return bits


def sample_frame(velocity, noise, sigmas):
    """Few-step sampling: estimate the clean frame, noise it again to the next level, estimate again.

    velocity  function (x [b t c h w] float32, sigma float) -> [b t c h w]
    noise     function (sampling step) -> [b t c h w] float32, fresh for each step
    sigmas    descending noise levels; the first is 1
    Returns   [b t c h w] float32, the last clean estimate

    Source: the stochastic consistency sampler of Causal Forcing (arXiv:2605.15141).
    """
    first, *rest = map(float, sigmas)
    x = noise(0)
    x0 = x0_from_velocity(x, velocity(x, first).float(), first)
    for step, sigma in enumerate(rest, 1):
        x = add_noise(x0, noise(step), sigma)
        x0 = x0_from_velocity(x, velocity(x, sigma).float(), sigma)
    return x0


def euler_walk(velocity, noise, sigmas):
    """Many-step sampling along the flow from noise [b t c h w] at the first of `sigmas`; velocity as in
    sample_frame.

    Yields x at every level, noise itself first, and at 0 at last: len(sigmas) + 1 points [b t c h w]
    """
    x, levels = noise, [*map(float, sigmas), 0.0]
    for sigma, lower in zip(levels, levels[1:]):
        yield x
        x = euler_step(x, velocity(x, sigma).float(), sigma, lower)
    yield x
