"""Weights on disk: shards equal the whole, readers never mix two saves, and what is no weight is refused."""
import os
import stat

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from worldplay.errors import WorldError
from worldplay.worlds import weights
from worldplay.worlds.weights import load_into, load_weights, save_weights


def tensors(value, num=5):
    return {f"w{i}": torch.full((100, 10), float(value)) for i in range(num)}


def values(path):
    """What all weights of a file are."""
    return {float(x) for tensor in load_weights(path).values() for x in tensor.unique()}


@pytest.fixture
def sharded(monkeypatch):
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 9_000)  # two of these tensors


def test_sharded_weights_equal_whole_ones(tmp_path, monkeypatch):
    saved = {f"w{i}": torch.randn(100, 10) for i in range(5)}
    save_weights(tmp_path / "model.safetensors", saved)
    whole = load_weights(tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "MAX_SHARD_BYTES", 9_000)
    save_weights(tmp_path / "model.safetensors", saved)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 3
    assert not (tmp_path / "model.safetensors").exists()
    sharded = load_weights(tmp_path / "model.safetensors")
    assert whole.keys() == sharded.keys() and all(torch.equal(whole[k], sharded[k]) for k in whole)


def test_no_shard_is_larger_than_it_may_be(tmp_path, sharded):
    save_weights(tmp_path / "model.safetensors", tensors(1, 7))
    shards = [load_weights(path) for path in tmp_path.glob("model-*.safetensors")]
    sizes = [sum(x.nbytes for x in shard.values()) for shard in shards]
    assert len(sizes) == 4 and max(sizes) <= 9_000


@pytest.mark.parametrize("before, after", [(5, 7), (7, 5), (5, 5), (1, 5), (5, 1)])
def test_a_save_that_breaks_off_anywhere_leaves_the_weights_of_before_or_the_new_ones(
        tmp_path, sharded, monkeypatch, before, after):
    path, found = tmp_path / "model.safetensors", []
    save_weights(path, tensors(1, before))
    renamed, removed = os.replace, type(path).unlink

    def replace(*files):
        found.append(values(path))
        renamed(*files)
        found.append(values(path))

    def unlink(file, **options):
        found.append(values(path))
        removed(file, **options)
        found.append(values(path))
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        patched.setattr(type(path), "unlink", unlink)
        save_weights(path, tensors(2, after))
    order = [seen.pop() for seen in found if len(seen) == 1]
    assert len(order) == len(found) > 2 and order == sorted(order) and order[0] == 1 and order[-1] == 2
    assert len(load_weights(path)) == after


@pytest.mark.parametrize("count", [1, 5])
def test_a_save_leaves_nothing_of_the_one_before(tmp_path, sharded, count):
    path = tmp_path / "model.safetensors"
    save_weights(tmp_path / "codec.safetensors", tensors(9))
    codec = set(tmp_path.iterdir())
    save_weights(path, tensors(1, 7))
    save_weights(path, tensors(2, count))
    assert len(set(tmp_path.iterdir()) - codec) == {1: 1, 5: 4}[count]
    assert values(tmp_path / "codec.safetensors") == {9}


def test_weights_that_are_replaced_while_they_are_read_are_read_again(tmp_path, sharded, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights(path, tensors(1))
    find = weights._files

    def find_and_replace(path):
        monkeypatch.setattr(weights, "_files", find)
        files = find(path)
        save_weights(path, tensors(2))
        return files
    monkeypatch.setattr(weights, "_files", find_and_replace)
    assert values(path) == {2}


def test_a_missing_shard_is_named(tmp_path, sharded):
    save_weights(tmp_path / "model.safetensors", tensors(1))
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(WorldError, match=f"{shard.name} is missing; restore it"):
        load_weights(tmp_path / "model.safetensors")


def test_others_may_read_a_world_that_is_shared(tmp_path, sharded):
    umask = os.umask(0o022)
    try:
        save_weights(tmp_path / "model.safetensors", tensors(1))
        save_weights(tmp_path / "codec.safetensors", tensors(1, 1))
    finally:
        os.umask(umask)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o644}


# What is no weight ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("assign", [True, False])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, dtype, value, assign):
    module = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
    state = {name: x.to(dtype) for name, x in module.state_dict().items()}
    state["1.weight"][7, 3] = value
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    with pytest.raises(WorldError, match="model.safetensors: 1.weight holds NaN or infinite") as error:
        load_into(module, load_weights(path), path, assign=assign)
    assert error.value.kind == "bad_checkpoint" and "\n" not in str(error.value)


def test_large_weights_are_no_infinite_ones(tmp_path):
    module = nn.Linear(40, 30).half()
    given = {"weight": torch.full((30, 40), 6e4, dtype=torch.half), "bias": torch.zeros(30).half()}
    load_into(module, given, tmp_path / "model.safetensors")
    assert (module.weight == torch.tensor(6e4).half()).all()


@pytest.mark.parametrize("name, dtype, words", [
    ("0.weight", torch.int32, "0.weight as int32, expected floating point"),
    ("0.bias", torch.bool, "0.bias as bool, expected floating point"),
    ("0.weight", torch.float8_e4m3fn, "0.weight as float8_e4m3fn, expected floating point"),
    ("1.num_batches_tracked", torch.float32, "1.num_batches_tracked as float32, expected whole numbers")])
def test_numbers_of_another_kind_are_refused_by_name(tmp_path, name, dtype, words):
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    state = module.state_dict()
    path = tmp_path / "model.safetensors"
    save_file(state | {name: state[name].to(dtype)}, path)
    with pytest.raises(WorldError, match=words):
        load_into(module, load_weights(path), path, assign=True)
