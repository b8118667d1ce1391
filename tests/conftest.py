"""What every test starts from: no log handler and no exception hook of a command that an earlier test ran."""
import logging
import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger("worldplay"), "handlers", [])
