"""A stretch of recording on disk while it lasts: a lossless video with times, and a line for every input."""
import json
from contextlib import suppress
from fractions import Fraction

import av

from worldplay.data.input_log import TAKE
from worldplay.data.video import DAMAGE, open_video

_TICKS = 1000  # of a second: the time stamps of frames


class TakeWriter:
    """Writes NAME.mp4 and NAME.jsonl, which `dataset import` reads, whole or torn.

    The video is in fragments of a quarter of a second, and every line goes to the system at once: so much is
    lost at most where the process dies.

    path        of the video
    num_frames  written so far
    """

    def __init__(self, path, frame_size, fps, header):
        """frame_size: (H, W); header: what the first line says besides.

            Raises OSError where they cannot be written.
        """
        self.path, self.num_frames, self._last = path, 0, -1
        self._lines = open(path.with_suffix(".jsonl"), "x", encoding="utf-8")
        self._write({"format": TAKE, "version": 1, "fps": fps, "frame_size": list(frame_size), **header})
        self._write({"t": 0.0, "dx": 0, "dy": 0})  # a take without any input is one too
        self._container = open_video(path, "w", format="mp4", options={
            "movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "250000",
            "flush_packets": "1"})
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream(
            "libx264rgb", rate=rate, width=frame_size[1], height=frame_size[0], pix_fmt="rgb24",
            options={"qp": "0", "preset": "ultrafast", "tune": "zerolatency", "g": str(max(1, round(rate)))})
        self._stream.codec_context.thread_count = 1  # the other cores belong to the game
        self._stream.codec_context.time_base = Fraction(1, _TICKS)

    def add(self, frame, seconds, events):
        """Append a frame, uint8 [H W 3], and what happened since the one before.

        seconds  since the take began
        events   [(seconds, {"key", "down"} or {"dx", "dy"})]
        """
        for when, event in events:
            self._write({"t": round(max(0.0, when), 4), **event})
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture.pts = self._last = max(self._last + 1, round(seconds * _TICKS))
        picture.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(picture))
        self.num_frames += 1

    def close(self):
        """Finish both files; after a failure what was written stays."""
        try:
            self._container.mux(self._stream.encode())
        finally:
            for file in (self._container, self._lines):
                with suppress(OSError, *DAMAGE):
                    file.close()

    def discard(self):
        """Leave nothing of it."""
        with suppress(OSError, *DAMAGE):
            self.close()
        for file in (self.path, self.path.with_suffix(".jsonl")):
            file.unlink(missing_ok=True)

    def _write(self, fields):
        self._lines.write(json.dumps(fields) + "\n")
        self._lines.flush()
