"""Play of a published world that is not here: it is fetched, unless something would be missing after it."""
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save

from tests.hub.test_fetch import cache, hub  # noqa: F401  (fixtures)
from worldplay.cli.play import PlayConfig, load
from worldplay.errors import WorldError
from worldplay.hub import download
from worldplay.worlds import catalog, zoo

HERE = SimpleNamespace(device=torch.device("cpu"), fps=16.0,  # what load_world is taken to open
                       config=SimpleNamespace(transformer=SimpleNamespace(
                           text_dim=4096, patch_size=(1, 2, 2))),
                       threads=SimpleNamespace(adapt=lambda: None), graphs=SimpleNamespace(want=lambda: None),
                       quality=SimpleNamespace(govern=lambda target_fps: None))


def test_play_fetches_a_published_world_on_first_use_and_says_how_far_it_is(hub, cache, monkeypatch):
    opened, lines = [], []
    monkeypatch.setattr("worldplay.engine.loading.load_world",
                        lambda name, **_: opened.append(zoo.find(name)) or HERE)
    load(PlayConfig(world="first"), lines.append)
    assert opened == [cache / "worlds/first"] and lines[-1] == ""
    assert any(line.startswith("encoder.pth, 100%") for line in lines), lines
    assert any(line.startswith("convert first.pt, ") for line in lines), lines
    asked = len(hub.requests)
    load(PlayConfig(world="first"), lines.append)
    assert len(opened) == 2 and len(hub.requests) == asked and download.Bar.listener is None


def test_play_by_a_file_of_text_rows_fetches_no_text_encoder(hub, cache, monkeypatch):
    Path("rows.safetensors").write_bytes(save({"prompt_embeds": torch.ones(4, 12)}))
    monkeypatch.setattr("worldplay.engine.loading.load_world", lambda name, **_: HERE)
    load(PlayConfig(world="first", prompt="rows.safetensors"))
    assert zoo.is_here("first") and zoo.find_part("codec")
    assert not [path for _, path, _ in hub.requests if "encoder" in path or "tokenizer" in path]


def test_play_fetches_nothing_to_train_from(hub, monkeypatch):
    monkeypatch.setitem(catalog.WORLDS, "first", replace(catalog.WORLDS["first"], few_steps=False))
    with pytest.raises(WorldError, match="first has not learnt .* it is published to train from"):
        load(PlayConfig(world="first"))
    assert not hub.requests


def test_play_opens_a_folder_of_a_published_name_and_fetches_nothing(hub, tmp_path, monkeypatch):
    folder, opened = tmp_path / "first", []
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(catalog.WORLDS["first"].config))
    monkeypatch.setattr("worldplay.engine.loading.load_world",
                        lambda name, **_: opened.append(zoo.find(name)) or HERE)
    load(PlayConfig(world="first"))
    assert opened == [Path("first")] and not hub.requests


@pytest.mark.parametrize("flags, words", [
    ({"image": Path("gone.png")}, "image gone.png does not exist"),
    ({"device": "cuda"}, "sees no CUDA device"),
    ({"prompt": "gone.safetensors"}, "prompt file gone.safetensors does not exist"),
    ({"prompt": "narrow.safetensors"}, r"\[4, 11\]: expected floating point \[1 to 5, 12\]"),
    ({}, "a prompt needs ftfy, which is not installed")])
def test_what_play_lacks_is_said_before_anything_is_fetched(flags, words, hub, monkeypatch):
    Path("narrow.safetensors").write_bytes(save({"prompt_embeds": torch.ones(4, 11)}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ftfy" else real(name))
    with pytest.raises((WorldError, ValueError), match=words):
        load(PlayConfig(world="first", **flags))
    assert not hub.requests
