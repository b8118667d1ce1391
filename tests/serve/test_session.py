"""A session that is served: where it listens, and what is said."""
import socket
import sys

import pytest

from worldplay.client.desktop import SessionOptions
from worldplay.client.settings import Settings
from worldplay.errors import WorldError
from worldplay.serve import session


def opened(where):
    with session.served(where, Settings(), SessionOptions(title="fake")) as (front, exchange):
        assert front.events == exchange.take


def test_the_usual_port_makes_room_and_one_that_was_asked_for_does_not(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="name another address"):
            opened(where)
        monkeypatch.setattr(session, "DEFAULT", where)
        opened(where)
    printed = capsys.readouterr().out
    assert printed.startswith("http://127.0.0.1:") and where not in printed and printed.count("\n") == 1


def test_every_session_has_a_token_of_its_own(capsys):
    opened("127.0.0.1:0")
    opened("127.0.0.1:0")
    first, second = (line.split("/")[3] for line in capsys.readouterr().out.split())
    assert first != second and len(first) >= 32


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "worldplay.serve.server", raising=False)
    monkeypatch.setitem(sys.modules, "worldplay.serve.pages", None)
    with pytest.raises(WorldError, match=r'pip install "worldplay\[serve\]"'):
        opened("127.0.0.1:0")
