"""Progress on stderr: shown at a fitting rate, and never in the way of the work."""
import io
import sys

import pytest

from worldplay.log import redraw_seconds, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream, seconds", [
    (None, 10), (closed(), 10), (io.StringIO(), 10), (Terminal(), 0.2)])
def test_the_work_is_done_whatever_stderr_is(monkeypatch, stream, seconds):
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(track(range(5), desc="work")) == [0, 1, 2, 3, 4]
    with track(total=3) as bar:
        bar.update(3)
    assert redraw_seconds() == seconds
    if stream is not None and not stream.closed:
        assert "work" in stream.getvalue() and "5/5" in stream.getvalue()
