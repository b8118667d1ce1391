"""Single frames of a picture or a video, as a world would begin from them."""
from contextlib import contextmanager

import av

from worldplay.data.video import DAMAGE
from worldplay.errors import WorldError
from worldplay.worlds.scene import fit, image_scene

VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".avi")


class Stills:
    """seconds  length of the video, 0.0 of a picture;  period  seconds of one frame"""

    def __init__(self, path, frame_size):
        """frame_size: (H, W) of the world.

            This and `at` raise WorldError("bad_scene") for a file that is missing or damaged.
        """
        self._path, self._size = path, frame_size
        self.seconds = self.period = 0.0
        if path.suffix.lower() in VIDEOS:
            with _readable(path), av.open(path) as video:
                stream = video.streams.video[0] if video.streams.video else None
                if stream is None:
                    raise ValueError("it has no picture")
                self.period = 1 / float(stream.average_rate or 25)
                self.seconds = max(0.0, (video.duration or 0) / av.time_base - self.period)

    def at(self, seconds):
        """uint8 [H W 3]: what is shown then, scaled to cover the world's frame and cropped to its middle."""
        if not self.period:
            return image_scene(self._path, self._size).frames[0]
        with _readable(self._path), av.open(self._path) as video:
            stream, found = video.streams.video[0], None
            begin = stream.start_time or 0
            video.seek(begin + round(seconds / stream.time_base), stream=stream)
            for found in video.decode(stream):
                if found.pts is None or (found.pts - begin) * stream.time_base > seconds - self.period / 2:
                    break
            if found is None:
                raise WorldError("bad_scene", f"{self._path}: no frame at {seconds:.2f} s")
            return fit(found.to_image(), self._size)


@contextmanager
def _readable(path):
    """What FFmpeg raises for a damaged file, which may be any of several kinds, as one."""
    try:
        yield
    except (*DAMAGE, OSError, ValueError) as error:
        raise WorldError("bad_scene", f"{path} cannot be begun from: {error}") from None
