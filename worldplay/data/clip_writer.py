"""Writing a clip while it is played: a thread encodes the video and writes a line of JSON for every frame."""
import json
import logging
import os
import queue
import threading
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from worldplay import __version__
from worldplay.data.clip import FORMAT, VERSION, action_to_json, pack_frames
from worldplay.data.clip_recovery import Finished, check_target, finish_parts, part, why_lost
from worldplay.data.video import H264Writer, padded_size
from worldplay.files import lock

log = logging.getLogger(__name__)

CRF = 14  # x264's scale: pixel art and noise stay crisp at 160x120, about 1 Mbit/s
MAX_QUEUED_BYTES = 2**29  # of frames that wait for the encoder: then `add` waits for it


def describe(world, *, scene=None, start=None, start_actions=None):
    """The header of a clip of `world`: everything but its actions and frames that a replay needs.

    scene   the name it was reset to; None when it began from `start`
    start   uint8 [n H W 3], the context frames it began from instead of a scene; start_actions: the n Actions
            of these, None: standing still
    """
    video = {"codec": "h264", "pixels": "yuv420p", "crf": CRF, "lossy": True,
             "padded_size": list(padded_size(world.frame_size))}
    return {
        "format": FORMAT, "version": VERSION, "world": world.name, "env": world.info.get("env"),
        "world_hash": world.info.get("world_hash"), "seed": world.info.get("seed"), "scene": scene,
        "start": None if start is None else pack_frames(start), "info": dict(world.info),
        "start_actions": start_actions and [action_to_json(action) for action in start_actions],
        "action_space": world.action_space.to_json(), "frame_size": list(world.frame_size), "fps": world.fps,
        "video": video, "versions": {name: _version(name) for name in ("worldplay", "torch", "av", "numpy")},
    }


class ClipWriter:
    """Writes one clip while it is played.

    A thread encodes, so that `add` returns at once; it waits where MAX_QUEUED_BYTES of frames are queued, and
    no frame is dropped.

    Until it is finished the clip is PATH.part.mp4 (fragmented, readable up to its last quarter second at any
    time) and PATH.part.jsonl (locked while written); then it becomes PATH.mp4 and PATH.json.

    path        of the clip without a suffix; in the end another one where a clip of that name has appeared
    error       once the thread has ended: the OSError that says what is not saved and why, or None
    num_frames  how many frames `add` was given
    is_kept     whether it becomes a clip, see `discard`
    """

    def __init__(self, path, header, *, actions, first, prompts=None, overwrite=False):
        """path without a suffix; header from `describe`.

        actions    every Action since the last reset, of a rollout also those to come; actions[0] is null
        first      number of the first frame that `add` will get, counted from that reset
        prompts    {step: text}, the texts given since then, each with the first step made under it
        overwrite  whether a clip of that name is replaced; without it that is refused

            Raises OSError, and leaves nothing behind, when the folder cannot be written or the name is taken.
        """
        self.path, self.error, self.num_frames, self.is_kept = Path(path), None, 0, True
        check_target(self.path, overwrite=overwrite)
        self._header, self._overwrite = header, overwrite
        frame_bytes = 3 * header["frame_size"][0] * header["frame_size"][1]
        self._queue = queue.Queue(maxsize=max(8, MAX_QUEUED_BYTES // frame_bytes))
        self._lines = open(part(self.path, "jsonl"), "a", encoding="utf-8")  # closed by the thread
        try:
            is_free = lock(self._lines) and not os.fstat(self._lines.fileno()).st_size
        except OSError:
            self._lines.close()
            if not part(self.path, "jsonl").stat().st_size:
                part(self.path, "jsonl").unlink()
            raise
        if not is_free:
            self._lines.close()
            raise OSError(f"{part(self.path, 'jsonl')} belongs to a recording that is being written or was "
                          "cut off; give another name")
        try:
            actions = [action_to_json(action) for action in actions]
            self._write_line(header | {"first": first, "actions": actions,
                                       "prompts": list((prompts or {}).items())})
        except OSError as error:
            with suppress(OSError):  # which would write what is left in its buffer
                self._lines.close()
            raise OSError(why_lost(self.path, error)) from error
        self._thread = threading.Thread(target=self._run, name="clip", daemon=True)
        self._thread.start()

    def add(self, frame, step, action, times, prompt=None):
        """Append what the player saw.

        frame   uint8 [H W 3] RGB, copied here
        step    index in the branch's actions of the action that caused it; `action` is that Action
        times   what is known of the frame (milliseconds of input, polled, ready, flipped; steps; path)
        prompt  the text given right before that step, if any was
        """
        line = {"step": step, "action": action_to_json(action), **times}
        if prompt is not None:
            line["prompt"] = prompt
        self._put((frame.copy(), line))
        self.num_frames += 1

    def finish(self):
        """No more frames: the thread writes what is queued and makes it PATH.mp4 and PATH.json."""
        self._put(None)

    def discard(self):
        """No more frames, and no clip: the thread leaves nothing of it."""
        self.is_kept = False
        self._put(None)

    def wait(self):
        """Wait until it is finished; see `error`."""
        self._thread.join()

    @property
    def is_busy(self):
        """Whether the thread still has something to write."""
        return self._thread.is_alive()

    def _put(self, item):
        while self.is_busy:  # after a failure nobody takes what is queued
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue

    def _run(self):
        try:
            with self._lines:  # locked until all is in its place: no other process recovers it meanwhile
                self._encode()
                if not self.is_kept:
                    part(self.path, "mp4").unlink(missing_ok=True)
                    os.truncate(part(self.path, "jsonl"), 0)
                    finished = Finished(self.path, self.num_frames)
                else:
                    finished = finish_parts(self.path, is_torn=False, overwrite=self._overwrite)
            part(self.path, "jsonl").unlink(missing_ok=True)
        except Exception as error:  # whatever it is, the player must hear that the clip is not saved
            log.debug("recording failed", exc_info=error)
            self.error = OSError(why_lost(self.path, error))
            return
        self.path = finished.path
        if finished.num_frames < self.num_frames:
            self.error = OSError(f"recording {self.path.name} is damaged: {finished.num_frames} of its "
                                 f"{self.num_frames} frames were saved{finished.where_kept}")

    def _encode(self):
        # A fragment every quarter of a second and no delay in the encoder: so much is lost at most when the
        # process dies. Each packet goes to the operating system at once.
        with H264Writer(part(self.path, "mp4"), self._header["frame_size"], self._header["fps"], crf=str(CRF),
                        preset="veryfast", tune="zerolatency", bf="0", container={
                            "movflags": "frag_keyframe+empty_moov+default_base_moof",
                            "frag_duration": "250000",
                            "flush_packets": "1"}) as video:
            while (item := self._queue.get()) is not None:
                frame, line = item
                video.add(frame)
                self._write_line(line)

    def _write_line(self, fields):
        self._lines.write(json.dumps(fields) + "\n")
        self._lines.flush()


def _version(name):
    if name == "worldplay":
        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
