"""Published weights: checkpoints of every layout give the same file, wrong ones are refused in one line."""
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import ROOT
from tests.hub.published_files import TINY, first_values, tiny_weights, write_big_checkpoint
from worldplay.camera import TRAINING_INTRINSICS
from worldplay.errors import WorldError
from worldplay.hub.convert import (
    convert_part,
    convert_transformer,
    export_transformer,
    plain_name,
    read_index,
    transformer_shapes,
)
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer
from worldplay.worlds import catalog
from worldplay.worlds.config import WorldConfig

WAN = TransformerConfig(dim=1536, ffn_dim=8960, num_heads=12, num_layers=30, in_channels=16, out_channels=16,
                        text_dim=4096)
NESTINGS = {
    "none": lambda name: name,
    "model": lambda name: f"model.{name}",
    "fsdp": lambda name: f"model._fsdp_wrapped_module.{name}",
    "compiled": lambda name: f"_orig_mod.model.{name}",
    "deep": lambda name: "model." + name.replace("blocks.0.", "_orig_mod.blocks.0._fsdp_wrapped_module."
                                                 "_checkpoint_wrapped_module."),
}


def converted(source, tmp_path, has_camera=False, **options):
    """(key, weights) of a checkpoint that is converted to TINY."""
    sizes = replace(TINY, has_camera=has_camera)
    key = convert_transformer(source, tmp_path / "out.safetensors", sizes, **options)
    return key, load_file(tmp_path / "out.safetensors")


def saved(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def assert_is_bfloat16_of(weights, original):
    assert weights.keys() == original.keys()
    for name, x in weights.items():
        assert x.dtype == torch.bfloat16 and torch.equal(x, original[name].bfloat16()), name


# What is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_camera, tensors, params", [
    (False, 825, 1_418_996_800), (True, 885, 1_489_821_760)])
def test_names_are_those_of_the_published_networks(has_camera, tensors, params):
    shapes = transformer_shapes(replace(WAN, has_camera=has_camera))
    assert (len(shapes), sum(torch.Size(shape).numel() for shape in shapes.values())) == (tensors, params)


@pytest.mark.parametrize("world", catalog.WORLDS.values(), ids=catalog.WORLDS)
def test_every_card_describes_a_world_that_can_be_opened(world):
    config = WorldConfig.from_json(world.config, world.name)
    shapes = transformer_shapes(config.transformer)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == world.num_params
    assert config.name == world.name and set(config.parts.values()) <= {*world.parts, *world.more_parts}
    assert config.transformer.has_camera == ("camera" in world.conditioning) == bool(config.action_space.keys)


@pytest.mark.parametrize("name, frames_per_chunk, window, steps, prefer_ema, image_start", [
    ("wan-action", 4, 20, 4, True, False), ("causal-forcing-1step", 1, 21, 1, True, True),
    ("causal-forcing-2step", 1, 21, 2, True, True), ("causal-forcing-4step", 1, 21, 4, True, True),
    ("causal-forcing-chunkwise", 3, 21, 4, False, False)])
def test_worlds_are_played_as_their_publishers_do(
        name, frames_per_chunk, window, steps, prefer_ema, image_start):
    """Of their configurations and READMEs; the sink is ours, for what comes after the window."""
    world = catalog.WORLDS[name]
    config = WorldConfig.from_json(world.config, name)
    assert (config.frames_per_chunk, config.window, config.steps) == (frames_per_chunk, window, steps)
    assert (world.prefer_ema, world.image_start) == (prefer_ema, image_start)
    assert (config.first_steps, config.context_sigma, config.fps, config.frame_size) == (4, 0, 16, (480, 832))
    assert (config.sink, config.sink_position) == (frames_per_chunk, "before_window")
    assert config.intrinsics == (TRAINING_INTRINSICS if name == "wan-action" else None)


@pytest.mark.parametrize("has_camera", [False, True])
@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("key", ["generator_ema", "generator", "model", None])
def test_every_key_and_nesting_is_read(key, nesting, has_camera, tmp_path):
    weights = tiny_weights(has_camera)
    state = {NESTINGS[nesting](name): x for name, x in weights.items()}
    found, made = converted(saved(tmp_path, {key: state} if key else state), tmp_path, has_camera=has_camera)
    assert found == key
    assert_is_bfloat16_of(made, weights)
    Transformer(replace(TINY, has_camera=has_camera)).load_state_dict(made)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_every_floating_type_is_read(dtype, tmp_path):
    weights = {name: x.to(dtype) for name, x in tiny_weights().items()}
    assert_is_bfloat16_of(converted(saved(tmp_path, {"generator": weights}), tmp_path)[1], weights)


@pytest.mark.parametrize("prefer_ema, key", [(True, "generator_ema"), (False, "generator")])
def test_the_card_chooses_between_averaged_and_raw(prefer_ema, key, tmp_path):
    states = {"generator": tiny_weights(seed=1), "generator_ema": tiny_weights(seed=2),
              "critic": {"x": torch.ones(3)}}
    found, made = converted(saved(tmp_path, states), tmp_path, prefer_ema=prefer_ema)
    assert found == key
    assert_is_bfloat16_of(made, states[key])


def test_weights_that_lie_otherwise_in_memory_come_out_row_by_row(tmp_path):
    weights = tiny_weights()
    turned = {name: x.t().contiguous().t() if x.ndim == 2 else x for name, x in weights.items()}
    assert not turned["blocks.0.ffn.0.weight"].is_contiguous()
    assert_is_bfloat16_of(converted(saved(tmp_path, turned), tmp_path)[1], weights)


def test_views_of_one_storage_are_read_where_they_begin(tmp_path):
    whole = torch.arange(20.0)
    state = {"tail": whole[5:], "third": whole[5:15:3], "whole": whole}
    convert_part(saved(tmp_path, state), tmp_path / "part.safetensors")
    made = load_file(tmp_path / "part.safetensors")
    assert made["tail"].tolist() == list(range(5, 20)) and made["third"].tolist() == [5, 8, 11, 14]
    assert torch.equal(made["whole"], whole)


def test_base_weights_are_safetensors_already(tmp_path):
    weights = tiny_weights()
    save_file(weights, tmp_path / "model.safetensors")
    found, made = converted(tmp_path / "model.safetensors", tmp_path)
    assert found is None
    assert_is_bfloat16_of(made, weights)


def test_a_part_keeps_names_and_types(tmp_path):
    state = {"conv1.weight": torch.randn(2, 3), "model.x": torch.arange(5), "norm": torch.randn(3).half(),
             "deep": torch.tensor(True), "empty": torch.zeros(0, 4), "text": torch.randn(3, 5).bfloat16()}
    convert_part(saved(tmp_path, state), tmp_path / "part.safetensors", num_tensors=6,
                 num_params=6 + 5 + 3 + 1 + 15)
    made = load_file(tmp_path / "part.safetensors")
    assert made.keys() == state.keys()
    assert all(made[name].dtype == x.dtype and torch.equal(made[name], x) for name, x in state.items())


def test_what_we_export_is_read_back_and_by_others(tmp_path):
    model = Transformer(TINY)
    export_transformer(model.state_dict(), tmp_path / "model.pt")
    loaded = torch.load(tmp_path / "model.pt", weights_only=True)
    assert list(loaded) == ["generator_ema"]
    assert all(name.startswith("model.") for name in loaded["generator_ema"])
    found, made = converted(tmp_path / "model.pt", tmp_path)
    assert found == "generator_ema"
    assert_is_bfloat16_of(made, model.state_dict())


def test_a_name_loses_only_its_wrappers():
    assert plain_name("model._orig_mod.blocks.0._fsdp_wrapped_module.ffn.0.weight") == "blocks.0.ffn.0.weight"
    assert plain_name("remodel.model_dim.bias") == "remodel.model_dim.bias"


# What is refused --------------------------------------------------------------------------------------------


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def _bytes(content):
    return lambda path: path.write_bytes(content)


def _saved(change):
    return lambda path: torch.save({"generator": change(tiny_weights())}, path)


def _truncated(path):
    torch.save({"generator": tiny_weights()}, path)
    path.write_bytes(path.read_bytes()[:-2000])


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/holiday.txt", "sun")


def _packed_again(mode):
    def write(path):
        torch.save(tiny_weights(), path)
        with zipfile.ZipFile(path) as archive:
            records = [(name, archive.read(name)) for name in archive.namelist()]
        with zipfile.ZipFile(path, "w", mode) as archive:
            for name, content in records:
                archive.writestr(name, content)
    return write


BAD = {
    "missing": (lambda path: None, "is missing"),
    "empty": (_bytes(b""), "is no PyTorch checkpoint"),
    "web page": (_bytes(b"<!DOCTYPE html><html>Sign in</html>"), "is no PyTorch checkpoint.*<!DOCTYPE html"),
    "truncated": (_truncated, "only the beginning of one"),
    "other zip": (_zip, "a zip archive but no PyTorch checkpoint"),
    "compressed": (_packed_again(zipfile.ZIP_DEFLATED), "was packed again by another program"),
    "packed again": (_packed_again(zipfile.ZIP_STORED), "was packed again by another program"),
    "old format": (lambda path: torch.save(tiny_weights(), path, _use_new_zipfile_serialization=False),
                   "is no PyTorch checkpoint"),
    "code": (lambda path: torch.save({"generator": tiny_weights(), "x": Code()}, path),
             f"would run {os.mkdir.__module__}.mkdir; nothing of it was run"),
    "list": (lambda path: torch.save([torch.ones(2)], path), "holds a list; expected a state dict"),
    "no tensors": (lambda path: torch.save({"step": 3}, path), "holds step, of type int"),
    "missing key": (_saved(lambda x: {name: x[name] for name in x if name != "head.modulation"}),
                    "misses head.modulation;"),
    "extra key": (_saved(lambda x: x | {"blocks.9.modulation": torch.ones(1)}),
                  "has unknown blocks.9.modulation;"),
    "wrong shape": (_saved(lambda x: x | {"head.head.bias": torch.ones(5)}),
                    r"has wrong shapes: head.head.bias \(5,\) instead of \(16,\)"),
    "whole numbers": (_saved(lambda x: x | {"head.head.bias": torch.ones(16, dtype=torch.int64)}),
                      "holds head.head.bias as int64; expected floating point"),
    "sparse": (_saved(lambda x: x | {"head.head.bias": torch.ones(16).to_sparse()}), "sparse_coo"),
    "twice": (_saved(lambda x: x | {"model.head.head.bias": torch.ones(16)}), "holds head.head.bias twice"),
    "camera": (lambda path: torch.save(tiny_weights(has_camera=True), path),
               "has unknown blocks.0.self_attn.prope_o"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_one_line_and_leaves_nothing(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, words = BAD[case]
    write(tmp_path / "model.pt")
    with pytest.raises(WorldError, match=words) as caught:
        converted(tmp_path / "model.pt", tmp_path)
    assert caught.value.kind == "bad_checkpoint" and "\n" not in str(caught.value)
    assert str(tmp_path / "model.pt") in str(caught.value)
    assert {file.name for file in tmp_path.iterdir()} <= {"model.pt"}, "code was run, or half a file was left"


def test_a_camera_world_needs_its_camera_weights(tmp_path):
    with pytest.raises(WorldError, match="misses blocks.0.self_attn.prope_o.bias.* and 1 more"):
        converted(saved(tmp_path, tiny_weights()), tmp_path, has_camera=True)


def test_a_safetensors_file_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(tiny_weights(), path)
    whole = path.read_bytes()
    for end, words in ((-10, "ends within"), (200, "is no safetensors file"), (3, "is no safetensors file")):
        path.write_bytes(whole[:end])
        with pytest.raises(WorldError, match=words):
            converted(path, tmp_path)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_part_must_have_what_its_card_counts(tmp_path):
    path = saved(tmp_path, {"x": torch.ones(3), "y": torch.ones(2)})
    with pytest.raises(WorldError, match="holds 2 tensors instead of 3"):
        convert_part(path, tmp_path / "part.safetensors", num_tensors=3)
    with pytest.raises(WorldError, match="holds 5 parameters instead of 6"):
        convert_part(path, tmp_path / "part.safetensors", num_tensors=2, num_params=6)


# Memory -----------------------------------------------------------------------------------------------------

PROGRAM = """
import resource, sys
from worldplay.hub.convert import convert_transformer
from worldplay.models.configs import TransformerConfig
from worldplay.worlds import catalog
source, target, layers = sys.argv[1], sys.argv[2], int(sys.argv[3])
sizes = catalog.WORLDS["wan-action"].config["transformer"] | {"num_layers": layers}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
convert_transformer(source, target, TransformerConfig(**sizes))
print(before, peak())
"""


def convert_and_measure(folder, layers):
    """(peak bytes before, peak bytes after, bytes written) of a conversion in a process of its own."""
    source, target = folder / "model.pt", folder / "model.safetensors"
    shapes = transformer_shapes(replace(WAN, num_layers=layers, has_camera=True))
    try:
        write_big_checkpoint(source, shapes)
        result = subprocess.run([sys.executable, "-c", PROGRAM, source, target, str(layers)],
                                cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert_is_conversion(source, target, shapes)
        before, peak = map(int, result.stdout.split())
        return before, peak, target.stat().st_size
    finally:
        for file in folder.iterdir():  # up to 9 GB, which pytest would keep for a while
            file.unlink()


def assert_is_conversion(source, target, shapes):
    """Names and shapes, and the first numbers of every tensor."""
    _, stored = read_index(source)
    _, made = read_index(target)
    assert {name: x.shape for name, x in made.items()} == shapes
    for name, x in stored.items():
        values = first_values(target, made[plain_name(name)])
        assert values.std() > 0.5 or len(values) < 100, f"{name} is empty"
        assert torch.equal(values, first_values(source, x).bfloat16()), name


def test_a_conversion_takes_a_constant_of_memory(tmp_path):
    """Beside what the libraries take: one piece of 64 MiB, its cast, and the tables."""
    before, peak, written = convert_and_measure(tmp_path, layers=2)
    assert written > 200 * 2**20, "large enough to tell"
    assert peak - before < 160 * 2**20, f"{(peak - before) >> 20} MiB for a file of {written >> 20} MiB"


@pytest.mark.full_size
@pytest.mark.parametrize("name", ["wan-action"])
def test_a_whole_published_world_is_converted_within_the_bound(name, tmp_path):
    world = catalog.WORLDS[name]
    sizes = world.config["transformer"]
    before, peak, written = convert_and_measure(tmp_path, sizes["num_layers"])
    print(f"{name}: {written / 2**20:.0f} MiB written, {peak / 2**20:.0f} MiB at the peak, "
          f"{before / 2**20:.0f} MiB of it before the conversion")
    assert written > 2 * world.num_params
    assert peak < 1.3 * written and peak - before < 160 * 2**20
