"""The frames of a LeRobot folder, episode by episode: of its videos, or of picture files in its tables."""
import math
from io import BytesIO

import numpy as np
from PIL import Image

from worldplay.data.lerobot_writer import INFO
from worldplay.data.video import DamagedVideo, read_frames


def camera_frames(layout, camera):
    """Yield, for every episode in order, an iterator of its frames, uint8 [H W 3]; take each to its end.

    layout  Layout of the folder
    camera  one of its cameras

        Raises ValueError naming the file, and the frame where one is missing, late, unreadable or of another
        size.
    """
    if camera not in layout.videos:
        for episode in layout.episodes:
            yield _stored_frames(layout, episode, camera)
        return
    path, reader = None, iter(())
    for episode in layout.episodes:
        video, begins = episode["videos"][camera]
        if video != path or reader.position > begins + 0.5 / layout.fps:
            _check_end(layout, path, reader)
            path, reader = video, _Reader(video, layout.remedy)
        yield _shown_frames(layout, reader, episode, camera)
    _check_end(layout, path, reader)


def _shown_frames(layout, reader, episode, camera):
    """The frames of an episode in a video whose Reader stands at or before them."""
    video, begins = episode["videos"][camera]
    where = f"{video}, episode {episode['episode_index']}"
    reader.skip_to(begins - 0.5 / layout.fps)
    for i in range(episode["length"]):
        seconds, frame = reader.take()
        expected = begins + i / layout.fps
        if frame is None:
            raise ValueError(f"{where}: frame {i} is missing; {layout.remedy}")
        _check_size(layout, camera, frame, f"{where}: frame {i}")
        if abs(seconds - expected) > 0.5 / layout.fps:
            raise ValueError(f"{where}: frame {i} is shown at {seconds:.3f} s, expected {expected:.3f} "
                             f"({layout.fps:g} a second); {layout.remedy}")
        yield frame


def _stored_frames(layout, episode, camera):
    """The frames of an episode whose rows hold picture files."""
    for where, file in layout.picture_files(episode, camera):
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


def _check_end(layout, path, reader):
    if path and layout.is_own and reader.take()[1] is not None:
        raise ValueError(f"{path}: more frames than its episodes have; {layout.remedy}")


class _Reader:
    """Reads the frames of a video one ahead, so that the time of the next one is known.

    position  seconds at which the next frame is shown; infinity at the end
    """

    def __init__(self, path, remedy):
        if not path.is_file():
            raise ValueError(f"{path}: missing; {remedy}")
        self._path, self._remedy, self._frames = path, remedy, read_frames(path)
        self._advance()

    @property
    def position(self):
        return self._next[0]

    def skip_to(self, seconds):
        """Drop the frames that are shown before that time."""
        while self._next[1] is not None and self.position < seconds:
            self._advance()

    def take(self):
        """(seconds, frame) of the next one; (inf, None) at the end."""
        taken = self._next
        self._advance()
        return taken

    def _advance(self):
        try:
            self._next = next(self._frames, (math.inf, None))
        except DamagedVideo as error:
            raise ValueError(f"{self._path}: unreadable ({error}); {self._remedy}") from error
