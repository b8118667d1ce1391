"""A clip made again with the full codec: the same world, other pictures, and a clip that replays so."""
import json

import numpy as np
import pytest
import torch

from tests.engine.test_dream_wan import CONFIG
from tests.engine.test_parts import folder  # noqa: F401  (a fixture)
from tests.parity import video_codec
from worldplay import runtime
from worldplay.action import parse_script
from worldplay.cli import play
from worldplay.cli.commands import main
from worldplay.data.clip import read_clip
from worldplay.engine.cost import rendering_memory_of
from worldplay.engine.loading import load_world, replace
from worldplay.engine.parts import Parts
from worldplay.errors import WorldError
from worldplay.eval.replay import run_replay
from worldplay.models.codecs.image import to_uint8


@pytest.fixture
def clip(folder, tmp_path):  # noqa: F811
    """Of a world whose full codec is not here yet."""
    rows, clip = tmp_path / "rows.safetensors", tmp_path / "clip.mp4"
    assert play.main([str(folder), "--headless", "--script", "w*2,l*1", "--prompt", str(rows), "--device",
                      "cpu", "--out",
                     str(clip)]) == 0
    return clip


@pytest.fixture
def full(tmp_path, monkeypatch):
    """The full codec is here, of few channels."""
    part = tmp_path / "cache" / "worldplay" / "parts" / "wan-vae"
    part.mkdir(parents=True)
    (part / "model.safetensors").touch()
    monkeypatch.setattr(Parts, "vae", lambda self, dtype: video_codec("wan_vae").to(dtype))


def test_only_the_pictures_are_others_and_they_replay(clip, full, folder, tmp_path, capsys):  # noqa: F811
    fine = tmp_path / "fine.mp4"
    assert main(["replay", str(clip), "--world", str(folder), "--device", "cpu", "--vae", "--out", str(fine),
                 "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["frames"] == read_clip(clip).num_frames == read_clip(fine).num_frames
    assert not figures["is_equal"]
    assert run_replay(fine, world=str(folder),
                      device="cpu")["is_equal"], "it knows by which codec it was made"
    assert run_replay(clip, world=str(folder), device="cpu")["is_equal"]


def test_it_is_the_decoding_of_the_latents_that_play_makes(full, folder, tmp_path, monkeypatch):  # noqa: F811
    world, latents = load_world(folder, device="cpu", prompt=str(tmp_path / "rows.safetensors")), []
    decode = type(world)._decode
    monkeypatch.setattr(type(world), "_decode", lambda self, latent, player:
                        latents.append(latent) or decode(self, latent, player))
    world.render_fully()
    start, walk = world.reset(), parse_script("w*2", world.action_space)
    frames = np.concatenate([start, *(np.stack(list(world.step(action))) for action in walk)])
    with torch.inference_mode():
        whole = video_codec("wan_vae").to(world.dtype).decode(torch.stack(latents)[None])
    assert np.array_equal(frames, to_uint8(whole)[0].numpy())


def test_what_it_lacks_is_one_line(clip, folder, monkeypatch):  # noqa: F811
    with pytest.raises(WorldError, match="python -m worldplay fetch wan-vae"):
        run_replay(clip, world=str(folder), device="cpu", vae=True)


def test_no_room_for_it_is_one_line(full, folder, tmp_path, monkeypatch):  # noqa: F811
    world = load_world(folder, device="cpu", prompt=str(tmp_path / "rows.safetensors"))
    monkeypatch.setattr(runtime, "memory", lambda device: (2**20, 2**34))
    with pytest.raises(WorldError, match="the full codec needs .* GiB of GPU memory"):
        world.render_fully()


def test_the_shipped_world_has_no_other_codec():
    with pytest.raises(WorldError, match="doom-maze has no other codec than its own"):
        load_world(device="cpu").render_fully()


def test_memory_is_counted_at_the_worlds_size():
    small = rendering_memory_of(CONFIG)
    assert small < rendering_memory_of(replace(CONFIG, frame_size=(480, 832))) < 20 * 2**30
