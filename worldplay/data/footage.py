"""Recorded pictures with their times, from any video that FFmpeg decodes, brought to a steady rate."""
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from worldplay.data.video import DAMAGE, open_video

TINY = (24, 160)  # (H, W) of the pictures by which motion is measured


class Picture:
    """A decoded frame of a video, upright; its pixels are converted when they are asked for."""

    def __init__(self, frame):
        """frame: an av.VideoFrame."""
        self._frame, self._turns = frame, frame.rotation // 90 % 4

    @property
    def size(self):
        """(H, W) pixels as they are shown."""
        size = self._frame.height, self._frame.width
        return size[::-1] if self._turns % 2 else size

    def rgb(self):
        """uint8 [H W 3]."""
        return np.ascontiguousarray(np.rot90(self._frame.to_ndarray(format="rgb24"), self._turns))

    def tiny(self):
        """float32 [h w], grey, of the size in which motion is measured."""
        height, width = TINY[::-1] if self._turns % 2 else TINY
        small = self._frame.reformat(width=width, height=height, format="gray").to_ndarray()
        return np.rot90(small, self._turns).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """A picture that is pixels already, uint8 [H W 3]; it answers as Picture does."""
    pixels: np.ndarray

    @property
    def size(self):
        return self.pixels.shape[:2]

    def rgb(self):
        return self.pixels

    def tiny(self):
        small = Image.fromarray(self.pixels).convert("L").resize(TINY[::-1], Image.Resampling.BOX)
        return np.asarray(small, np.float32)


@dataclass
class VideoFootage:
    """A video file.

    path     of it
    damage   once `pictures` has ended: why it broke off there, or None
    """
    path: object
    damage: str | None = field(default=None, init=False)

    def pictures(self):
        """Yield (seconds since the first picture, Picture) in the order in which they are shown.

            Raises ValueError where the file holds none that can be read.
        """
        first = last = None
        try:
            with open_video(self.path) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for number, frame in enumerate(container.decode(stream)):
                    rate = stream.average_rate or 25
                    time = number / float(rate) if frame.pts is None else float(frame.pts * frame.time_base)
                    first = time if first is None else first
                    if last is not None and time - first <= last:
                        continue  # shown for no time at all
                    last = time - first
                    yield last, Picture(frame)
        except DAMAGE as error:
            self.damage = getattr(error, "strerror", None) or type(error).__name__
        if first is None:
            raise ValueError(f"{self.path}: no video that can be read"
                             f"{f' ({self.damage})' if self.damage else ''}")


def steady(pictures, fps):
    """Yield (picture, whether it was yielded before) at 0, 1 / fps, 2 / fps ... seconds: the nearest in time.

    pictures  iterable of (seconds, picture), seconds ascending from 0
    """
    count, before, shown = 0, None, None
    for seconds, picture in pictures:
        while before and count / fps <= (before[0] + seconds) / 2:
            yield before[1], shown is before
            count, shown = count + 1, before
        before = seconds, picture
    while before and count / fps < before[0] + 0.5 / fps:
        yield before[1], shown is before
        count, shown = count + 1, before
