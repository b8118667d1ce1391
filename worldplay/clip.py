"""A recorded clip: an H.264 video and a JSON sidecar with every action; playback of it as a World."""
import base64
import json
import os
import queue
import sys
import threading
import zlib
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path

import av
import numpy as np

from worldplay import __version__
from worldplay.action import Action, ActionSpace
from worldplay.world import WorldError

FORMAT, VERSION = "worldplay clip", 1
CRF = 14  # x264's scale: pixel art and noise stay crisp at 160x120, about 1 Mbit/s


# Writing ----------------------------------------------------------------------------------------------------


def describe(world, *, scene=None, start=None):
    """The header of a clip of `world`: everything but its actions and frames that a replay needs.

    scene   the name it was reset to; None when it began from `start`
    start   uint8 [n H W 3], the context frames it began from instead of a scene
    """
    return {
        "format": FORMAT, "version": VERSION, "world": world.name, "env": world.info.get("env"),
        "world_hash": world.info.get("world_hash"), "seed": world.info.get("seed"), "scene": scene,
        "start": None if start is None else _pack(start), "info": dict(world.info),
        "action_space": world.action_space.to_json(), "frame_size": list(world.frame_size), "fps": world.fps,
        "video": {"codec": "h264", "pixels": "yuv420p", "crf": CRF, "lossy": True},
        "versions": {name: _version(name) for name in ("worldplay", "torch", "av", "numpy")},
    }


class ClipWriter:
    """Writes one clip while it is played; its thread encodes, so `add` never waits and nothing is dropped.

    Until it is finished the clip is PATH.part.mp4 (fragmented, readable up to its last quarter second at any
    time) and PATH.part.jsonl (locked while written); then it becomes PATH.mp4 and PATH.json.
    """

    def __init__(self, path, header, *, actions, first):
        """path without a suffix; header from `describe`.

        actions  every Action of the branch so far; actions[0] is the null action of the start
        first    number on the branch of the first frame that `add` will get

            Raises OSError when the folder cannot be written.
        """
        self.path, self.error, self.num_frames = Path(path), None, 0
        _check_size(header["frame_size"])
        self._header = header
        self._lines = open(_part(self.path, "jsonl"), "a", encoding="utf-8")  # closed by the thread
        if not _lock(self._lines):
            raise OSError(f"another program is recording {self.path}.mp4; give it another name")
        self._lines.truncate(0)
        actions = [_action_to_json(action) for action in actions]
        self._write_line(header | {"first": first, "actions": actions})
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="clip", daemon=True)
        self._thread.start()

    def add(self, frame, step, action, times):
        """Append what the player saw.

        frame   uint8 [H W 3] RGB, copied here
        step    index in the branch's actions of the action that caused it; `action` is that Action
        times   what is known of the frame (milliseconds of input, polled, ready, flipped; steps; path)
        """
        line = {"step": step, "action": _action_to_json(action), **times}
        self._queue.put((frame.copy(), line))
        self.num_frames += 1

    def finish(self):
        """No more frames: the thread writes what is queued and makes it PATH.mp4 and PATH.json."""
        self._queue.put(None)

    def wait(self):
        """Wait until it is finished; `error` is then the OSError that stopped it, or None."""
        self._thread.join()

    @property
    def is_busy(self):
        """Whether the thread still has something to write."""
        return self._thread.is_alive()

    def _run(self):
        try:
            with self._lines:
                self._encode()
            if finish_parts(self.path) != self.num_frames:
                raise OSError(f"{self.path}.mp4 holds fewer frames than were recorded")
        except (OSError, av.error.FFmpegError) as error:  # a full disk, most likely
            self.error = OSError(f"recording {self.path.name} stopped: {error}; what was written is saved as "
                                 "a clip at the next start")

    def _encode(self):
        rate = Fraction(self._header["fps"]).limit_denominator(1001)
        height, width = self._header["frame_size"]
        # A fragment every quarter of a second and no delay in the encoder: so much is lost at most when the
        # process dies. Each packet goes to the operating system at once.
        with av.open(_part(self.path, "mp4"), "w", format="mp4", options={
                "movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "250000",
                "flush_packets": "1"}) as video:
            stream = video.add_stream(
                "libx264", rate=rate, width=width, height=height, pix_fmt="yuv420p",
                options={"crf": str(CRF), "preset": "veryfast", "tune": "zerolatency", "bf": "0"})
            stream.codec_context.gop_size = max(1, int(rate))
            stream.codec_context.thread_count = 1  # the cores belong to the model
            while (item := self._queue.get()) is not None:
                frame, line = item
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                video.mux(stream.encode(picture))
                self._write_line(line)
            video.mux(stream.encode())

    def _write_line(self, fields):
        self._lines.write(json.dumps(fields) + "\n")
        self._lines.flush()


def finish_parts(path):
    """Turn PATH.part.mp4 and PATH.part.jsonl, torn or not, into PATH.mp4 and PATH.json.

    Returns the number of frames saved; a clip without one whole frame is removed.
    """
    path = Path(path)
    lines = _read_lines(_part(path, "jsonl"))
    remuxed = _part(path, "final.mp4")
    num_frames = _remux(_part(path, "mp4"), remuxed, max(0, len(lines) - 1))
    if num_frames:
        _write_sidecar(path, lines, num_frames)
        os.replace(remuxed, _with(path, ".mp4"))
    for name in ("final.mp4", "mp4", "jsonl"):
        _part(path, name).unlink(missing_ok=True)
    return num_frames


def recover(folder):
    """Finish the clips in `folder` that a crash left unfinished; yields (path without suffix, frames saved).

    A clip that another process is still writing is left alone.
    """
    for lines in sorted(Path(folder).glob("*.part.jsonl")):
        with open(lines, encoding="utf-8") as file:
            is_ours = _lock(file)
        if not is_ours:
            continue
        path = lines.with_name(lines.name.removesuffix(".part.jsonl"))
        yield path, finish_parts(path)


def _write_sidecar(path, lines, num_frames):
    header, frames = lines[0], lines[1:1 + num_frames]
    first, actions = header.pop("first"), header.pop("actions")
    for line in frames:
        action = line.pop("action")
        if line["step"] == len(actions):
            actions.append(action)
    sidecar = header | {"recorded": [first, first + num_frames], "actions": actions, "frames": frames}
    temporary = _part(path, "json")
    temporary.write_text(json.dumps(sidecar), encoding="utf-8")
    os.replace(temporary, _with(path, ".json"))


def _remux(source, target, limit):
    """Copy the whole packets (frames), at most `limit`, of a video that may be torn; returns how many."""
    count, options = 0, {"movflags": "faststart"}
    try:
        with av.open(source) as torn, av.open(target, "w", format="mp4", options=options) as whole:
            stream = whole.add_stream_from_template(torn.streams.video[0])
            for packet in torn.demux(video=0):
                if packet.dts is None or packet.is_corrupt or count == limit:
                    break
                packet.stream = stream
                whole.mux(packet)
                count += 1
    except (av.error.InvalidDataError, av.error.EOFError, IndexError, FileNotFoundError):
        return count  # torn inside its very head, or within a fragment's table: what came before is whole
    return count


def _read_lines(path):
    """The objects of a JSON-lines file up to its last whole line, or to the first that is damaged."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


# Reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """A finished clip on disk.

    path      the .mp4 file
    sidecar   what its .json holds: header; `recorded`, the [first, stop) frame numbers of the video on the
              branch played; `actions`, all since the last reset; `frames`, one record per video frame, whose
              `step` is the index of the action that caused it
    """
    path: Path
    sidecar: dict

    @property
    def action_space(self):
        return ActionSpace.from_json(self.sidecar["action_space"])

    @property
    def actions(self):
        """list of Action since the last reset; actions[0] is null, actions[i] was the i-th step's."""
        return [_action_from_json(fields) for fields in self.sidecar["actions"]]

    @property
    def start(self):
        """uint8 [n H W 3], the frames the branch began from, or None when it began from a scene."""
        return None if self.sidecar["start"] is None else _unpack(self.sidecar["start"])

    @property
    def num_frames(self):
        first, stop = self.sidecar["recorded"]
        return stop - first

    def frames(self):
        """Yield the video's frames, uint8 [H W 3] RGB; lossy, so near what was seen and not equal to it."""
        with av.open(self.path) as video:
            for frame in video.decode(video=0):
                yield frame.to_ndarray(format="rgb24")


def read_clip(path):
    """The Clip at `path` (its .mp4, its .json or the name without either).

        Raises WorldError("not_found" or "bad_scene") for a file that is missing, unreadable or too new.
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".mp4", ".json") else path
    sidecar, video = _with(path, ".json"), _with(path, ".mp4")
    for file in (sidecar, video):
        if not file.is_file():
            raise WorldError("not_found",
                             f"clip {path}: {file.name} is missing; a clip is a .mp4 with its .json")
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8"))
        is_clip = fields["format"] == FORMAT
        version = int(fields["version"])
    except (ValueError, TypeError, KeyError):
        is_clip = False
    if not is_clip:
        raise WorldError("bad_scene", f"clip {path}: {sidecar.name} is not the sidecar of a worldplay clip")
    if version > VERSION:
        raise WorldError("bad_scene",
                         f"clip {path}: written by a newer worldplay (format {version}); update this one")
    return Clip(video, fields)


class ClipWorld:
    """A recording played back as a World: it shows the recorded frames, whatever the actions."""

    def __init__(self, path):
        self.clip = read_clip(path)
        sidecar = self.clip.sidecar
        self.name, self.action_space = self.clip.path.stem, self.clip.action_space
        self.frame_size, self.fps = tuple(sidecar["frame_size"]), sidecar["fps"]
        self.scenes = (sidecar["scene"] or "recording",)
        # Without what says how the frames were made: a clip of this one cannot be replayed by that world.
        self.info = {name: fact for name, fact in sidecar["info"].items()
                     if name not in ("env", "seed", "steps", "world_hash")}
        self.info |= {"device": "playback", "path": "playback"}
        self._frames, self._ahead, self._is_mid_step = iter(()), None, False

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """See World.reset: the recording's first frame, [1 H W 3]; a seed changes nothing in a recording."""
        if frames is not None or scene not in (None, *self.scenes):
            raise WorldError("bad_scene", f"recording {self.name} has one start, {self.scenes[0]!r}; leave "
                             "scene, image and frames out")
        self.close()
        steps = (record["step"] for record in self.clip.sidecar["frames"])
        self._frames, self._is_mid_step = zip(steps, self.clip.frames()), False
        _, first = next(self._frames)
        self._ahead = next(self._frames, None)
        return first[None]

    def step(self, action):
        """See World.step: the frames of the next recorded step; WorldError("ended") after the last one."""
        if self._is_mid_step:
            raise WorldError("unfinished_step", "the previous step's iterator was not run to its end")
        if self._ahead is None:
            raise WorldError("ended", f"the recording {self.name} is over; reset plays it again")
        self._is_mid_step = True
        step = self._ahead[0]
        while self._ahead is not None and self._ahead[0] == step:
            yield self._ahead[1]
            self._ahead = next(self._frames, None)
        self._is_mid_step = False

    def close(self):
        self._frames, self._ahead = iter(()), None


# Small things -----------------------------------------------------------------------------------------------


def _with(path, suffix):
    return path.with_name(path.name + suffix)


def _part(path, suffix):
    return _with(path, f".part.{suffix}")


def _check_size(frame_size):
    if any(length % 2 for length in frame_size):
        raise ValueError("a clip needs an even height and width (H.264 with halved colour), not "
                         f"{tuple(frame_size)}")


def _action_to_json(action):
    return [sorted(action.keys), *action.look]


def _action_from_json(fields):
    keys, yaw, pitch = fields
    return Action(frozenset(keys), (yaw, pitch))


def _pack(frames):
    return {"shape": list(frames.shape), "zlib": base64.b64encode(zlib.compress(frames.tobytes())).decode()}


def _unpack(fields):
    return np.frombuffer(zlib.decompress(base64.b64decode(fields["zlib"])), np.uint8).reshape(fields["shape"])


def _version(name):
    if name == "worldplay":
        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if sys.platform == "win32":
    import msvcrt

    def _lock(file):
        """Take the file for this process; False when another one has it. It falls with the process."""
        try:
            file.seek(2**30)  # far behind the text: a locked byte cannot be read by others
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        file.seek(0)
        return True
else:
    import fcntl

    def _lock(file):
        """Take the file for this process; False when another one has it. It falls with the process."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
