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
            ("sampling steps", str(info.get("steps", "-"))),
            ("device", f"{info.get('device', '-')}, {info.get('dtype', '-')}"),
            ("path", info.get("path", "-")),
            *_threads(info), ("frame", str(frame_number)), ("late frames", str(timing.num_late))]


def _threads(info):
    """The row of torch's threads; fewer than there could be while other programs use the cores."""
    number, most = info.get("threads"), info.get("max_threads")
    return [] if number is None else [("threads", f"{number} of {most}" if number < most else str(number))]
