"""What a clip knows its world by: all that decides its frames, and of a fetched world no word of its card."""
import hashlib
import json
from dataclasses import fields, replace

import pytest
from safetensors.torch import load_file, save_file

from tests.engine.test_dream_wan import CONFIG, MODEL
from tests.engine.test_parts import fetched, folder  # noqa: F401  (fixtures)
from worldplay.cli.play import main
from worldplay.engine.loading import load_world, read_config
from worldplay.errors import WorldError
from worldplay.eval.replay import run_replay
from worldplay.files import write_json
from worldplay.worlds import zoo
from worldplay.worlds.look import Look
from worldplay.worlds.weights import world_hash

OTHER = {  # field of a VideoWorldConfig -> another value than CONFIG's
    "name": "other", "env": "doom-maze", "fps": 8.0, "steps": 4, "prompt": "another hall",
    "lossy_codec": True, "look": Look(frames=9, sharpness=12.5, brightness=80.0, colours=(0.25,) * 96),
    "parts": CONFIG.parts | {"text": "another encoder"},
    "action_space": replace(CONFIG.action_space, look_limit=2.0), "frame_size": (64, 48),
    "transformer": replace(MODEL, eps=1e-5), "first_steps": 2, "window": 6,
    "sink": 1, "frames_per_chunk": 5, "sink_position": "before_window", "context_sigma": 0.1,
    "columns_per_degree": 0.5, "intrinsics": (0.5, 0.5)}
WORDS = {"name", "env", "fps", "steps", "prompt", "lossy_codec", "parts", "look"}


def hash_of(folder, config=None):
    codec = zoo.find_part("taew2_1") / "model.safetensors"
    return world_hash(folder, config or read_config(folder)[1], codec)


@pytest.mark.parametrize("name", [field.name for field in fields(CONFIG)])
def test_of_a_fetched_config_only_what_changes_frames_changes_the_hash(name, fetched):
    folder = fetched("wan-action")
    assert getattr(CONFIG, name) != OTHER[name]
    other = hash_of(folder, replace(CONFIG, **{name: OTHER[name]}))
    assert (other == hash_of(folder, CONFIG)) == (name in WORDS)


def test_a_field_that_is_left_out_has_its_default(fetched):
    """So a field that is added to the catalog later changes no hash of what was fetched before."""
    folder = fetched("wan-action")
    before, given = hash_of(folder), json.loads((folder / "config.json").read_text())
    for name in ("sink", "columns_per_degree", "first_steps"):
        del given[name]
    del given["transformer"]["eps"]
    write_json(folder / "config.json", given)
    assert read_config(folder)[1] == replace(CONFIG, name="wan-action") and hash_of(folder) == before


def test_descriptions_beside_the_weights_do_not_change_the_hash(fetched, tmp_path):
    folder = fetched("wan-action")
    before = hash_of(folder)
    lock = {"name": "wan-action", "licence": "another", "fetched": "later",
            "files": {"model.safetensors": {"size": 1}}}
    write_json(folder / "lock.json", lock)
    (folder / "card.md").write_text("A card.")
    parts = tmp_path / "cache" / "worldplay" / "parts"
    for name in ("umt5-xxl", "wan-vae"):  # play may go without either
        (parts / name).mkdir()
        (parts / name / "model.safetensors").write_bytes(b"weights")
    assert hash_of(folder) == before


@pytest.mark.parametrize("which", ["worlds/wan-action", "parts/taew2_1"])
def test_other_weights_or_another_codec_are_another_world(which, fetched, tmp_path):
    folder = fetched("wan-action")
    before, path = hash_of(folder), tmp_path / "cache" / "worldplay" / which / "model.safetensors"
    save_file({name: x + 1 for name, x in load_file(path).items()}, path)
    assert hash_of(folder) != before


def test_a_clip_replays_after_its_worlds_card_was_written_anew_and_not_in_other_weights(fetched, tmp_path):
    folder, clip, rows = fetched("wan-action"), tmp_path / "clip.mp4", str(tmp_path / "rows.safetensors")
    assert main(["wan-action", "--headless", "--script", "w*1,l*1", "--prompt", rows, "--device", "cpu",
                 "--out", str(clip)]) == 0
    write_json(folder / "config.json", replace(
        CONFIG, name="wan-action", prompt="a long new text", steps=1).to_json())
    write_json(folder / "lock.json", {"name": "wan-action", "licence": "at more length", "files": {}})
    assert run_replay(clip, device="cpu")["is_equal"]
    weights = load_file(folder / "model.safetensors")
    save_file({name: -x for name, x in weights.items()}, folder / "model.safetensors")
    with pytest.raises(WorldError, match="was played in wan-action"):
        run_replay(clip, device="cpu")


def test_a_world_with_a_codec_of_its_own_is_every_byte_of_its_files_as_ever():
    folder, config = read_config("doom-maze")
    digest = hashlib.sha256()
    for name in ("codec.safetensors", "config.json", "model.safetensors"):
        digest.update(name.encode() + hashlib.sha256((folder / name).read_bytes()).digest())
    assert world_hash(folder, config, folder / "codec.safetensors") == digest.hexdigest()[:16]


@pytest.mark.parametrize("which", ["toy-wan", "cache/worldplay/parts/taew2_1"])
def test_a_world_that_was_trained_on_a_shared_codec_is_its_files_and_that_codec(which, folder, tmp_path):
    assert not (folder / "lock.json").exists()
    before, path = hash_of(folder), tmp_path / which / "model.safetensors"
    world = load_world(folder, device="cpu", prompt=str(tmp_path / "rows.safetensors"))
    assert world.info["world_hash"] == before
    save_file({name: x + 1 for name, x in load_file(path).items()}, path)
    assert hash_of(folder) != before
