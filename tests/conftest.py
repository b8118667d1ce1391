"""What every test starts from: no log handler, no log level and no exception hook of an earlier command."""
import logging
import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger("worldplay"), "handlers", [])
    logging.getLogger("worldplay").setLevel(logging.NOTSET)
