"""What tests of jobs share: the training command in this process."""
import pytest

import train_world
from worldplay import runtime


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Run a recipe by its name in tmp_path/run, without compilation: (exit status, what it said)."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runtime, "pick_compile", lambda device: (False, "this is a test"))

    def run(recipe, *args):
        status = train_world.main([recipe, "--out", str(tmp_path / "run"), *args])
        return status, capsys.readouterr().err
    return run
