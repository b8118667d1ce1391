"""The figures of a session as lines to read."""
from itertools import islice

from worldplay.client.timing import summary_ms

RECENT = 300  # frames the figures look back on: 17 s at 17.5 frames per second


def figures(timing, info, frame_number, now):
    """(label, value) lines of the F3 panel."""
    def pair(seconds):
        summary = summary_ms(list(islice(reversed(seconds), RECENT)), (50, 95))
        return f"{summary['p50']:.1f} / {summary['p95']:.1f} ms" if summary else "-"
    return [("frame rate", f"{timing.fps(now):.1f} fps"), ("a frame, p50 / p95", pair(timing.work)),
            ("key to screen, p50 / p95", pair(timing.key_flip)),
            ("sampling steps", _of(info.get("steps", "-"), info.get("max_steps"))), *_window(info),
            ("device", f"{info.get('device', '-')}, {info.get('dtype', '-')}"),
            ("path", info.get("path", "-") + (" as a graph" if info.get("graph") else "")),
            *_threads(info), ("frame", str(frame_number)), ("late frames", str(timing.num_late))]


def _threads(info):
    """The row of torch's threads; fewer than there could be while other programs use the cores."""
    number, most = info.get("threads"), info.get("max_threads")
    return [] if number is None else [("threads", _of(number, most))]


def _window(info):
    """The row of frames that one is made from."""
    number = info.get("window")
    return [] if number is None else [("window", f"{_of(number, info.get('max_window'))} frames")]


def _of(number, most):
    """A number, with the one that it was lowered from."""
    return str(number) if most in (None, number) else f"{number} of {most}"
