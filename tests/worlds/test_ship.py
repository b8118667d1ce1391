"""A world taken out of its run has nearly the same weights, in half the room, and nearly the same frames."""
import shutil

import numpy as np
import pytest
import torch

import worldplay
from tests import ROOT
from worldplay.action import Action
from worldplay.engine.loading import read_config
from worldplay.errors import WorldError
from worldplay.eval.statistics import psnr
from worldplay.files import lock
from worldplay.models.transformer import Transformer
from worldplay.worlds import weights
from worldplay.worlds.ship import ship
from worldplay.worlds.weights import load_into, load_weights

MAZE = ROOT / "checkpoints/doom-maze"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, with what only the run itself needs, and its weights in bfloat16, as runs save
    them.
    """
    folder = tmp_path_factory.mktemp("runs") / "maze"
    shutil.copytree(MAZE, folder)
    torch.manual_seed(0)
    for role, source in (("model", "model"), ("codec", "codec"), ("teacher", "model")):
        noisy = {name: x * (1 + 0.002 * torch.randn(x.shape)) if x.is_floating_point() else x
                 for name, x in load_weights(MAZE / f"{source}.safetensors").items()}
        weights.save_weights(folder / f"{role}.safetensors", noisy, torch.bfloat16)
    (folder / "run.json").write_text("{}")
    (folder / "latents.npy").write_bytes(b"large")
    return folder


@pytest.fixture(scope="module")
def shipped(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("worlds") / "maze"
    made = ship(run, out)
    assert made["mib"] == pytest.approx(sum(path.stat().st_size for path in out.rglob("*.*")) / 2**20)
    return out


def test_it_plays_nearly_as_before_and_leaves_the_run_behind(run, shipped):
    first, second = (played(folder) for folder in (run, shipped))
    assert psnr(first, second).min() > 35  # levels of a few pixels; other noise gives 25
    assert sorted(path.name for path in shipped.iterdir()) == [
        "card.md", "codec.safetensors", "config.json", "model.safetensors", "scenes", "teacher.safetensors"]


def played(folder):
    """uint8 [n H W 3]: three frames from the first scene on, with W held."""
    world = worldplay.load_world(folder, device="cpu")
    world.reset(world.scenes[0], seed=1)
    frames = [frame for _ in range(3) for frame in world.step(Action({"w"}))]
    world.close()
    return np.stack(frames)


def test_its_weights_take_half_the_room_and_are_off_by_half_a_step_of_a_row(run, shipped):
    for role in ("model", "codec", "teacher"):
        size, before = ((folder / f"{role}.safetensors").stat().st_size for folder in (shipped, run))
        assert size < 0.53 * before
        packed, exact = (load_weights(folder / f"{role}.safetensors") for folder in (shipped, run))
        assert packed.keys() == exact.keys()
        for name, x in exact.items():
            x = x.float()
            step = x.flatten(1).abs().amax(1) / 254 if x.dim() > 1 else 0 * x
            error = (packed[name].float() - x).abs()
            assert (error.flatten(1).amax(1) if x.dim() > 1 else error).le(step * 1.001).all(), name
    config = read_config(shipped)[1]
    load_into(Transformer(config.transformer), packed, shipped / "teacher.safetensors")


def test_a_teacher_stays_behind_where_that_is_asked_for(run, tmp_path):
    ship(run, tmp_path / "maze", with_teacher=False)
    assert not (tmp_path / "maze/teacher.safetensors").exists()


def test_weights_in_several_files_are_shipped_too(run, tmp_path, monkeypatch):
    sharded = shutil.copytree(run, tmp_path / "sharded")
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 4 * 2**20)
    for role in ("model", "teacher"):
        weights.save_weights(sharded / f"{role}.safetensors", load_weights(run / f"{role}.safetensors"))
        assert not (sharded / f"{role}.safetensors").exists()
    ship(sharded, tmp_path / "out")
    exact, shipped = (load_weights(folder / "model.safetensors") for folder in (run, tmp_path / "out"))
    assert shipped.keys() == exact.keys()
    assert load_weights(tmp_path / "out/teacher.safetensors").keys() == exact.keys()


def test_a_run_that_is_trained_is_not_shipped(run, tmp_path):
    with open(run / "run.lock", "a+b") as file:
        assert lock(file)
        with pytest.raises(ValueError, match="is being trained"):
            ship(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ship(run, tmp_path / "out")


def test_what_cannot_be_shipped_is_said_before_anything_is_written(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(ValueError, match="already holds something"):
        ship(run, tmp_path / "full")
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "codec.safetensors").unlink()
    with pytest.raises(WorldError, match="codec.safetensors is missing"):
        ship(broken, tmp_path / "out")
    assert not (tmp_path / "out.tmp").exists()
    (broken / "lock.json").write_text("{}")
    with pytest.raises(WorldError, match="published by others"):
        ship(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
