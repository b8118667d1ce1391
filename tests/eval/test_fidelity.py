"""Picture metrics against known values, and next frame and free play of a world that is known exactly."""
import math

import numpy as np
import pytest

from tests.eval.turning import TurningWorld, material, texture
from worldplay.eval import fidelity
from worldplay.eval.statistics import PSNR_CAP, psnr


def test_psnr_known_values():
    black = np.zeros((3, 8, 8, 3), np.uint8)
    grey = black + np.array([0, 1, 255], np.uint8).reshape(3, 1, 1, 1)
    assert psnr(black, grey) == pytest.approx([PSNR_CAP, 20 * math.log10(255), 0], abs=1e-6)


def test_ssim_is_the_published_one():
    from skimage.metrics import structural_similarity
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (2, 32, 40, 3), np.uint8)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    expected = [structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                      channel_axis=-1, data_range=255) for x, y in zip(a, b)]
    assert fidelity.ssim(a, b) == pytest.approx(expected, abs=1e-4)  # float32 against float64


@pytest.mark.parametrize("metric", [psnr, fidelity.ssim])
def test_identity_scores_best_and_noise_worst(metric):
    rng = np.random.default_rng(1)
    real = np.stack([texture(seed) for seed in range(4)])
    scores = [metric(np.clip(real + rng.normal(0, sigma, real.shape), 0, 255).astype(np.uint8), real).mean()
              for sigma in (0, 5, 20, 80)]
    scores.append(metric(rng.integers(0, 256, real.shape, np.uint8), real).mean())
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)
    assert metric(real, real) == pytest.approx(PSNR_CAP if metric is psnr else 1.0)


def test_an_obedient_world_beats_its_baselines_where_the_player_turns(streams):
    figures = fidelity.next_frame(material(streams, TurningWorld()), "explorer")
    every, moving = figures["next_frame"], figures["moving"]
    assert every["n"] == 6 * 16 and 0 < moving["n"] < every["n"]
    assert every["psnr"] == moving["psnr"] == pytest.approx(PSNR_CAP)
    assert every["ssim"] == pytest.approx(1)
    assert moving["repeat_last_psnr"] < 30 and moving["shuffled_actions_psnr"] < 30
    assert every["codec_psnr"] == pytest.approx(20 * math.log10(255))
    assert every["repeat_last_psnr"] > moving["repeat_last_psnr"], "frames of an idle player repeat"


def test_intervals_hold_what_they_are_of(streams):
    figures = fidelity.next_frame(material(streams, TurningWorld()), "explorer")
    for part in figures.values():
        for name in fidelity.BASELINES:
            low, high = part["interval"][f"over_{name}"]
            assert low < part["psnr"] - part[f"{name}_psnr"] < high
        assert len(part["by_stream"]["psnr"]) == 6 and sum(part["by_stream"]["n"]) == part["n"]


def test_a_deaf_world_is_no_better_than_its_baselines(streams):
    moving = fidelity.next_frame(material(streams, TurningWorld(is_deaf=True)), "explorer")["moving"]
    assert moving["psnr"] == pytest.approx(moving["repeat_last_psnr"])
    assert moving["psnr"] == pytest.approx(moving["shuffled_actions_psnr"])


def test_free_play_of_the_true_world_is_the_real_stream(streams):
    made = material(streams, TurningWorld())
    assert np.array_equal(made.dreams("tester"), streams["tester"].frames[:4])
    figures = fidelity.rollout_psnr(made, "tester")
    assert figures["rollout_n"] == 4
    for number in ("1", "4", "16"):
        assert figures["rollout_psnr"][number] == PSNR_CAP
        assert figures["rollout_psnr_interval"][number] == pytest.approx([PSNR_CAP] * 2)
    assert figures["rollout_repeat_psnr"]["16"] < 40


def test_shifting_the_last_frame_is_worse_than_knowing_what_comes_into_view(streams):
    """The round picture shows at its edge what a shift cannot know."""
    moving = fidelity.next_frame(material(streams, TurningWorld()), "explorer")["moving"]
    assert moving["repeat_last_psnr"] + 2 < moving["shifted_last_psnr"] < 40 < moving["psnr"]
