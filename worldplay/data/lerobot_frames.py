"""Frames of a LeRobot folder, of its videos or of picture files in its tables: all, or stretches of some."""
import math
from contextlib import ExitStack, closing
from io import BytesIO
from itertools import islice

import numpy as np
from PIL import Image

from worldplay.data.hub_videos import video_file
from worldplay.data.lerobot_writer import INFO
from worldplay.data.video import DamagedVideo, read_frames

# So many frames ahead are skipped by a jump; it ends before the wanted one, which may be stored out of order.
_JUMP, _EARLIER = 100, 20


def camera_frames(layout, camera):
    """Yield, for every episode of a Layout in order, an iterator of its frames, as `stretches` does."""
    return stretches(layout, camera, [(episode, 0, episode["length"]) for episode in layout.episodes])


def stretches(layout, camera, wanted):
    """Yield, for every (episode, start, stop) in order, an iterator of those of its frames, uint8 [H W 3].

    Each iterator is to be taken to its end. camera: one of the Layout's

        Raises ValueError naming the file, and the frame where one is missing, late, unreadable or of another
        size.
    """
    if camera not in layout.videos:
        for episode, start, stop in wanted:
            yield _stored(layout, camera, episode, start, stop)
        return
    last = {episode["videos"][camera][0]: episode for episode in layout.episodes}
    path, reader = None, None
    try:
        for episode, start, stop in wanted:
            video, begins = episode["videos"][camera]
            begins += start / layout.fps
            if video != path or reader.position > begins + 0.5 / layout.fps:
                if reader:
                    reader.close()
                path, reader = video, _Reader(layout, video)
            yield _shown(layout, camera, reader, episode, start, stop)
            is_end = episode is last[video] and stop == episode["length"]
            if is_end and layout.is_own and reader.take()[1] is not None:
                raise ValueError(f"{path}: more frames than its episodes have; {layout.remedy}")
    finally:
        if reader:
            reader.close()


def _shown(layout, camera, reader, episode, start, stop):
    """Frames of an episode in a video whose Reader stands at or before them."""
    video, begins = episode["videos"][camera]
    where = f"{video}, episode {episode['episode_index']}"
    reader.skip_to(begins + (start - 0.5) / layout.fps)
    for i in range(start, stop):
        seconds, frame = reader.take()
        expected = begins + i / layout.fps
        if frame is None:
            raise ValueError(f"{where}: frame {i} is missing; {layout.remedy}")
        _check_size(layout, camera, frame, f"{where}: frame {i}")
        if abs(seconds - expected) > 0.5 / layout.fps:
            raise ValueError(f"{where}: frame {i} is shown at {seconds:.3f} s, expected {expected:.3f} "
                             f"({layout.fps:g} a second); {layout.remedy}")
        yield frame


def _stored(layout, camera, episode, start, stop):
    """Frames of an episode whose rows hold picture files."""
    for where, file in islice(layout.picture_files(episode, camera), start, stop):
        try:
            with Image.open(BytesIO(file)) as picture:
                frame = np.asarray(picture.convert("RGB"))
        # what Pillow raises for damaged files
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{where}: unreadable ({str(error).splitlines()[0]}); "
                             f"{layout.remedy}") from None
        _check_size(layout, camera, frame, where)
        yield frame


def _check_size(layout, camera, frame, where):
    size = layout.frame_size(camera)
    if frame.shape[:2] != size:
        raise ValueError(f"{where} has {frame.shape[0]} rows and {frame.shape[1]} columns, {INFO} says "
                         f"{size[0]} and {size[1]}; {layout.remedy}")


class _Reader:
    """Reads the frames of a video one ahead, so that the time of the next one is known.

    position  seconds at which the next frame is shown; infinity at the end
    """

    def __init__(self, layout, path):
        self._path, self._layout, self._held = path, layout, ExitStack()
        try:
            self._file = self._held.enter_context(video_file(layout.path, path))
            if not self._file.is_file():
                raise ValueError(f"{path}: missing; {layout.remedy}")
            self._decoding = self._held.enter_context(ExitStack())  # closed before the file goes
            self._begin(0.0)
        except BaseException:
            self.close()
            raise

    @property
    def position(self):
        return self._next[0]

    def skip_to(self, seconds):
        """Drop the frames that are shown before that time."""
        if seconds - self.position > _JUMP / self._layout.fps:
            self._begin(seconds - _EARLIER / self._layout.fps)
            if self.position > seconds:  # a video whose key frames are not where its index says
                self._begin(0.0)
        while self._next[1] is not None and self.position < seconds:
            self._advance()

    def take(self):
        """(seconds, frame) of the next one; (inf, None) at the end."""
        taken = self._next
        self._advance()
        return taken

    def close(self):
        """Let the file go."""
        self._held.close()

    def _begin(self, seconds):
        self._decoding.close()
        self._frames = self._decoding.enter_context(closing(read_frames(self._file, begin=seconds,
                                                                          on_all_cores=True)))
        self._advance()

    def _advance(self):
        try:
            self._next = next(self._frames, (math.inf, None))
        except DamagedVideo as error:
            raise ValueError(f"{self._path}: unreadable ({error}); {self._layout.remedy}") from error
