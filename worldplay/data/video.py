"""Video files through FFmpeg: H.264 written frame by frame, frames read up to the first damaged one."""
import os
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np

# What FFmpeg raises for damaged bytes; sizes read from them can also exceed memory, and a video can lack
# pictures.
DAMAGE = (av.error.FFmpegError, MemoryError, IndexError)


class DamagedVideo(ValueError):
    """A video file breaks off or cannot be decoded; `str()` says why in a few words."""


def open_video(path, mode="r", **options):
    """av.open of a file by any name."""
    # without the prefix FFmpeg takes `12:30.mp4` or `d:1/y.mp4` for a protocol
    return av.open(f"file:{os.path.abspath(path)}", mode, **options)


class H264Writer:
    """Writes frames into an MP4 file as H.264; `close` finishes the file.

    With halved colour (pix_fmt "yuv420p") an odd height or width is padded by repeating the last row or
    column: `padded_size` (H, W) is what the file holds.
    """

    def __init__(self, path, frame_size, fps, *, codec="libx264", pix_fmt="yuv420p", container=None,
                 **options):
        """frame_size  (H, W) pixels of every frame
        fps         frames per second
        container   options of the MP4 muxer; the remaining `options` are those of the encoder

            Raises OSError where the file cannot be written.
        """
        self.padded_size = padded_size(frame_size) if pix_fmt == "yuv420p" else tuple(frame_size)
        self._padding = [(0, padded - length) for padded, length in zip(self.padded_size, frame_size)]
        rate = Fraction(fps).limit_denominator(1001)
        self._container = open_video(path, "w", format="mp4", options=container or {})
        height, width = self.padded_size
        self._stream = self._container.add_stream(codec, rate=rate, width=width, height=height,
                                                  pix_fmt=pix_fmt,
                                                  options={"g": str(max(1, round(rate))), **options})
        # the other cores belong to the model, or to other writers
        self._stream.codec_context.thread_count = 1

    def add(self, frame, is_key=False):
        """Append a frame, uint8 [H W 3] RGB; is_key: as a key frame, decodable without those before it."""
        if any(after for _, after in self._padding):
            frame = np.pad(frame, [*self._padding, (0, 0)], mode="edge")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        if is_key:
            picture.pict_type = av.video.frame.PictureType.I
        self._container.mux(self._stream.encode(picture))

    def close(self):
        """Write what the encoder still holds and the end of the file."""
        try:
            self._container.mux(self._stream.encode())
        finally:
            self._container.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            return self.close()
        with suppress(av.error.FFmpegError):  # the first error says more
            self._container.close()


class FrameSeeker:
    """Frames of a video of ours by their number; one after the other cost one decoding each."""

    def __init__(self, path):
        """Raises DamagedVideo or OSError where it cannot be read."""
        try:
            self._container = open_video(path)
            self._stream = self._container.streams.video[0]
        except DAMAGE as error:
            raise DamagedVideo(getattr(error, "strerror", None) or type(error).__name__) from error
        self._next, self._frames = None, iter(())

    def frame(self, index):
        """uint8 [H W 3]; DamagedVideo where it cannot be decoded."""
        rate, base = self._stream.average_rate, self._stream.time_base
        try:
            if index != self._next:
                self._container.seek(round(index / rate / base), stream=self._stream)
                self._frames = self._container.decode(self._stream)
            for frame in self._frames:
                if round(frame.pts * base * rate) >= index:
                    self._next = index + 1
                    return frame.to_ndarray(format="rgb24")
        except DAMAGE as error:
            raise DamagedVideo(getattr(error, "strerror", None) or type(error).__name__) from error
        raise DamagedVideo(f"it has no frame {index}")

    def close(self):
        self._container.close()


def padded_size(frame_size):
    """(H, W) rounded up to even numbers, which halved colour needs."""
    return tuple(length + length % 2 for length in frame_size)


def read_frames(path, begin=0.0, on_all_cores=False):
    """Yield (seconds since the video's start, frame uint8 [H W 3] RGB) of every frame of a file.

    begin         seconds: the first one is a key frame at or before that time, where its index is right
    on_all_cores  whether several frames are decoded at once; some before a damaged one may then be lost

        Raises FileNotFoundError for a missing file, DamagedVideo after the last frame before damage.
    """
    try:
        with open_video(path) as container:
            stream = container.streams.video[0]
            if on_all_cores:
                stream.thread_type = "AUTO"
            if begin:
                container.seek(int(begin / stream.time_base), stream=stream)
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise DamagedVideo("a packet is damaged")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise DamagedVideo("a frame is damaged")
                    yield float((frame.pts or 0) * stream.time_base), frame.to_ndarray(format="rgb24")
    except FileNotFoundError:
        raise
    except IndexError:
        raise DamagedVideo("it holds no pictures") from None
    except DAMAGE as error:
        raise DamagedVideo(getattr(error, "strerror", None) or type(error).__name__) from error
