"""Flow matching: ends of the path, inversions, schedules, noise by name, and samplers in closed form."""
import itertools

import pytest
import torch

from worldplay.diffusion import (
    add_noise,
    euler_step,
    euler_walk,
    frame_noise,
    sample_frame,
    shift_sigma,
    shifted_sigmas,
    velocity_target,
    warped_sigmas,
    x0_from_velocity,
)

SHAPE = (2, 3, 4, 5, 6)


@pytest.fixture
def pair():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, *SHAPE, generator=rng)


def test_ends_of_the_path(pair):
    x0, noise = pair
    assert torch.equal(add_noise(x0, noise, 0.0), x0)
    assert torch.equal(add_noise(x0, noise, 1.0), noise)


def test_conversions_invert(pair):
    x0, noise = pair
    sigma = torch.rand(2, 3, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.1
    x, velocity = add_noise(x0, noise, sigma), velocity_target(x0, noise)
    torch.testing.assert_close(x0_from_velocity(x, velocity, sigma), x0, atol=1e-6, rtol=0)
    halfway = euler_step(x, velocity, sigma, sigma / 2)
    torch.testing.assert_close(halfway, add_noise(x0, noise, sigma / 2), atol=1e-6, rtol=0)


def test_each_frame_has_its_own_noise_level(pair):
    x0, noise = pair
    sigma = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.25]])
    x = add_noise(x0, noise, sigma)
    for b in range(2):
        for t in range(3):
            torch.testing.assert_close(x[b, t], add_noise(x0[b, t], noise[b, t], sigma[b, t].item()))


@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_schedules_fall_from_one(shift):
    sigmas = shifted_sigmas(48, shift)
    assert sigmas.dtype == torch.float32 and sigmas[0] == 1 and sigmas[-1] > 0 and (sigmas.diff() < 0).all()
    u = torch.linspace(0, 1, 11)
    assert (shift_sigma(u, shift) >= u).all() and shift_sigma(u, 1.0).equal(u)


def test_few_step_levels():
    assert (1000 * warped_sigmas(4)).tolist() == pytest.approx([1000, 937.5, 833.3333, 625])
    assert (1000 * warped_sigmas(2)).tolist() == pytest.approx([1000, 833.3333])
    assert warped_sigmas(1).tolist() == [1.0]
    with pytest.raises(ValueError, match="3 sampling steps"):
        warped_sigmas(3)


def test_noise_is_a_function_of_seed_frame_and_step():
    first = frame_noise(3, 7, 1, SHAPE)
    torch.randn(5)
    assert torch.equal(first, frame_noise(3, 7, 1, SHAPE)) and first.dtype == torch.float32
    names = list(itertools.product((0, 1, 3), (0, 1, 7, 100_000), (0, 1, 1000)))
    draws = torch.stack([frame_noise(*name, (64,)) for name in names])
    correlation = torch.corrcoef(draws) - torch.eye(len(names))
    assert correlation.abs().max() < 0.7  # 64 numbers: 1 if two names shared a seed, about 0.5 by chance
    many = torch.stack([frame_noise(0, frame, 0, (256,)) for frame in range(200)])
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


def test_few_step_sampler_renoises_with_fresh_noise():
    """A network that always points to `goal` is exact, and each step sees the point of the path."""
    goal, sigmas, seen = torch.full(SHAPE, 3.0), warped_sigmas(4), []

    def noise(step):
        return frame_noise(0, 0, step, SHAPE)

    def velocity(x, sigma):
        seen.append((x, sigma))
        return (x - goal) / sigma
    torch.testing.assert_close(sample_frame(velocity, noise, sigmas), goal, atol=1e-5, rtol=0)
    assert [sigma for _, sigma in seen] == sigmas.tolist()
    for step, (x, sigma) in enumerate(seen):
        torch.testing.assert_close(x, add_noise(goal, noise(step), sigma), atol=1e-5, rtol=0)


def test_euler_sampler_follows_a_known_flow():
    """For Gaussian data of deviation s the flow scales noise by s; Euler comes nearer with more steps."""
    s, noise = 0.5, frame_noise(0, 0, 0, SHAPE)

    def velocity(x, sigma):
        variance = (1 - sigma) ** 2 * s ** 2 + sigma ** 2
        return (sigma - (1 - sigma) * s ** 2) / variance * x
    ends = [list(euler_walk(velocity, noise, shifted_sigmas(n)))[-1] for n in (10, 40, 160)]
    errors = [(end - s * noise).abs().max().item() for end in ends]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.05
