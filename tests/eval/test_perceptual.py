"""LPIPS and FVD by networks that are stand-ins: what they are given, what is said where they are missing."""
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from tests.eval.turning import TurningWorld, material
from worldplay.eval import perceptual, report
from worldplay.eval.verdict import markdown, table

WEIGHTS = "alexnet-stand-in.pth"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that weights are looked for in, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.fixture
def packages(folder, monkeypatch):
    """torchmetrics and torchvision of which the distance is the mean difference; None while unopened."""
    opened = []

    def metric(**how):
        assert how == {"net_type": "alex", "normalize": True}
        assert (folder / WEIGHTS).is_file(), "the real one would download them"
        if not (folder / WEIGHTS).stat().st_size:
            raise RuntimeError("no such archive\nat some place in C++")
        opened.append(how)
        return lambda a, b: (a - b).abs().mean()
    made = {"torchmetrics": {}, "torchmetrics.image": {}, "torchvision": {},
            "torchmetrics.image.lpip": {"LearnedPerceptualImagePatchSimilarity": metric},
            "torchvision.models": {"AlexNet_Weights": SimpleNamespace(
                DEFAULT=SimpleNamespace(url=f"somewhere/{WEIGHTS}"))}}
    for name, members in made.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return opened


class StandIn(torch.nn.Module):
    """In place of I3D: of a clip the mean of each colour in each quarter of its time."""

    def forward(self, x: torch.Tensor, rescale: bool = False, resize: bool = False,
                return_features: bool = False) -> torch.Tensor:
        if not (rescale and resize and return_features):
            raise ValueError("features of pixels of 0 to 255, resized")
        return torch.nn.functional.adaptive_avg_pool3d(x, (4, 1, 1)).flatten(1)


@pytest.fixture
def i3d(folder):
    torch.jit.script(StandIn()).save(folder / perceptual.I3D)


def test_lpips_stands_beside_psnr_at_every_horizon(streams, packages, folder):
    (folder / WEIGHTS).write_bytes(b"weights")
    figures = report.evaluate(material(streams, TurningWorld(blur=1)))
    for part in (figures, figures["tester"]):
        assert list(part["lpips"]) == list(part["rollout_psnr"]) == ["1", "4", "16"]
        assert part["lpips"]["16"] > part["lpips"]["1"] > 0, "it melts"
        low, high = part["lpips_interval"]["4"]
        assert low < part["lpips"]["4"] < high and part["lpips_repeat"]["1"] > 0
    assert len(packages) == 1, "opened once for both players"
    rows = dict(table(figures)[1])
    assert rows["lpips 16"][0].startswith(f"{figures['lpips']['16']:.3f} [")
    assert not any(text.startswith("lpips") for text in figures["left_out"])


def test_a_dream_that_is_real_is_at_no_distance(streams, packages, folder):
    (folder / WEIGHTS).write_bytes(b"weights")
    figures = perceptual.lpips(material(streams, TurningWorld()), "explorer")
    assert set(figures["lpips"].values()) == {0.0} and figures["lpips_repeat"]["16"] > 0


@pytest.mark.parametrize("content, words", [
    (None, "lpips, which needs alexnet-stand-in.pth .torchvision's AlexNet. in .*checkpoints"),
    (b"", "lpips, whose weights .*alexnet-stand-in.pth cannot be read: no such archive$")])
def test_weights_that_are_missing_are_named_and_never_fetched(streams, packages, folder, content, words):
    if content is not None:
        (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(perceptual.Missing, match=words):
        perceptual.lpips(material(streams, TurningWorld()), "explorer")
    assert not packages


def test_the_home_folder_is_not_told(streams, packages, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    with pytest.raises(perceptual.Missing) as missing:
        perceptual.lpips(material(streams, TurningWorld()), "explorer")
    assert "in ~/checkpoints, where" in str(missing.value) and str(folder.parent) not in str(missing.value)


@pytest.mark.parametrize("module", [None, "made for another torch"])
def test_packages_that_are_missing_or_broken_are_named(streams, folder, monkeypatch, module):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")
    for name in ("torchmetrics", "torchmetrics.image", "torchmetrics.image.lpip"):
        monkeypatch.setitem(sys.modules, name, module and Broken(name))
    with pytest.raises(perceptual.Missing, match="pip install torchmetrics torchvision"):
        perceptual.lpips(material(streams, TurningWorld()), "explorer")


def test_an_evaluation_without_any_of_them_says_so_and_goes_on(streams, folder):
    figures = report.evaluate(material(streams, TurningWorld()))
    assert not {"lpips", "fvd"} & set(figures) and "drift" in figures
    said = markdown(figures | {"device_name": "", "context_sigma": 0.1})
    assert "Left out: lpips, which needs" in said
    assert f"Left out: fvd, which needs {perceptual.I3D} (I3D as TorchScript) in {folder}, where" in said


def test_fvd_has_a_floor_and_a_melting_world_is_far_above_it(streams, i3d, monkeypatch):
    monkeypatch.setattr(perceptual, "FEWEST", 4)
    exact, melting = (perceptual.fvd(material(streams, TurningWorld(blur=blur), num_dreams=6),
                                     "tester")["fvd"] for blur in (0, 3))
    assert exact["n"] == 6 and exact["halves"]["n"] == 3
    assert exact["dream"] == pytest.approx(0, abs=1e-6), "the same frames"
    assert exact["halves"]["dream"] == pytest.approx(exact["halves"]["real"]), "as far as real from real"
    assert exact["halves"]["real"] > 1, "few clips are far from each other"
    assert melting["dream"] > 0.01


def test_halves_are_of_different_episodes(streams, i3d, monkeypatch):
    monkeypatch.setattr(perceptual, "FEWEST", 4)
    one = {player: replace(each, episodes=np.zeros(6, int)) for player, each in streams.items()}
    figures = perceptual.fvd(material(one, TurningWorld(), num_dreams=6), "tester")["fvd"]
    assert "halves" not in figures and figures["n"] == 6


def test_of_few_clips_fvd_is_left_out(streams, i3d):
    with pytest.raises(perceptual.Missing, match="fewer than 48 clips of 16 frames, here 4,"):
        perceptual.fvd(material(streams, TurningWorld()), "tester")


def test_a_network_that_is_another_or_damaged_is_named(streams, folder, monkeypatch):
    monkeypatch.setattr(perceptual, "FEWEST", 4)
    (folder / perceptual.I3D).write_bytes(b"not a network")
    with pytest.raises(perceptual.Missing, match="fvd, whose network .* cannot be read: "):
        perceptual.fvd(material(streams, TurningWorld()), "tester")
    torch.jit.script(torch.nn.Identity()).save(folder / perceptual.I3D)
    with pytest.raises(perceptual.Missing, match="fvd, whose network fails .*expected at most"):
        perceptual.fvd(material(streams, TurningWorld()), "tester")


def _samples(rng, num, mean, spread):
    """float [num d] of exactly this mean and diagonal covariance (spread squared)."""
    white = rng.normal(size=(num, len(mean)))
    white, _ = np.linalg.qr(white - white.mean(0))
    return mean + (white - white.mean(0)) * np.sqrt(num - 1) * spread


def test_frechet_distance_of_gaussians_in_closed_form():
    rng = np.random.default_rng(0)
    means, spreads = rng.normal(size=(2, 5)), rng.uniform(0.5, 2, size=(2, 5))
    a, b = (_samples(rng, num, mean, spread) for num, mean, spread in zip((40, 60), means, spreads))
    expected = np.square(means[0] - means[1]).sum() + np.square(spreads[0] - spreads[1]).sum()
    assert perceptual.frechet(a, b) == pytest.approx(expected)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert perceptual.frechet(a @ turn, b @ turn) == pytest.approx(expected)


def test_frechet_distance_of_covariances_that_do_not_commute():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(20, 3))
    root = np.linalg.cholesky(np.cov(b.T))
    shared = np.sqrt(np.linalg.eigvalsh(root.T @ np.cov(a.T) @ root)).sum()
    expected = (np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T))
                - 2 * shared)
    assert perceptual.frechet(a, b) == pytest.approx(expected)


def test_fewer_samples_than_dimensions_keep_the_distance_exact():
    samples = np.random.default_rng(2).normal(size=(6, 400))
    assert perceptual.frechet(samples, samples) == pytest.approx(0, abs=1e-9)
    assert perceptual.frechet(samples, samples + 0.5) == pytest.approx(400 * 0.25)
    assert perceptual.frechet(samples[:1], samples[:1] + 1) == pytest.approx(400)


def test_the_real_packages_measure_with_weights_on_disk(streams, folder):
    """Runs where torchmetrics and torchvision are; random weights under the right name stand in."""
    pytest.importorskip("torchmetrics")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    torch.save(models.alexnet().state_dict(), folder / models.AlexNet_Weights.DEFAULT.url.rpartition("/")[2])
    exact, melting = (perceptual.lpips(material(streams, TurningWorld(blur=blur)), "explorer")
                      for blur in (0, 2))
    assert exact["lpips"]["16"] == pytest.approx(0, abs=1e-6)
    assert 0 < melting["lpips"]["1"] < melting["lpips"]["16"] < melting["lpips_repeat"]["16"] * 2
