"""Compiled code of the toy world that tests of it share."""
import subprocess

import pytest

from tests.engine.test_dream import CONFIG, context
from worldplay.engine import code_choice
from worldplay.engine.compiled import Passes


def passes(config=CONFIG.transformer, **others):
    return Passes(**{"config": config, "num_frames": 1, "num_tokens": 2, "window": CONFIG.window,
                     "dtype": "float32",
                     "device": "cpu"} | others)


@pytest.fixture
def code_on_disk(code_cache, monkeypatch):
    """The code of the toy world is there, and nothing is compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(code_cache))
    monkeypatch.setattr(code_choice, "is_native", lambda *_: False)
    monkeypatch.setattr(subprocess, "Popen", lambda *args,
                        **kwargs: pytest.fail("what is there is compiled again"))


@pytest.fixture
def empty_code_cache(tmp_path, monkeypatch):
    """A user's cache folder without any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(code_choice, "is_native", lambda *_: False)


def begun(world):
    frames, actions = context()
    world.reset(frames=frames, actions=actions)
    return world
