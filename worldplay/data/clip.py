"""A recorded clip: an H.264 video and a JSON sidecar with every action; playback of it as a World."""
import base64
import json
import queue
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
from worldplay.data.clip_recovery import beside, check_target, finish_parts, lock, part
from worldplay.errors import WorldError

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

    def __init__(self, path, header, *, actions, first, prompts=None):
        """path without a suffix; header from `describe`.

        actions  every Action of the branch so far, of a rollout those to come too; actions[0] is the null action of
                 the start
        first    number on the branch of the first frame that `add` will get
        prompts  {step: text}, the texts given since the start, each with the first of those actions made under it

            Raises OSError when the folder cannot be written or a folder has the name of the clip.
        """
        self.path, self.error, self.num_frames = Path(path), None, 0
        _check_size(header["frame_size"])
        check_target(self.path)
        self._header = header
        self._lines = open(part(self.path, "jsonl"), "a", encoding="utf-8")  # closed by the thread
        if not lock(self._lines):
            raise OSError(f"another program is recording {self.path}.mp4; give it another name")
        self._lines.truncate(0)
        actions = [_action_to_json(action) for action in actions]
        self._write_line(header | {"first": first, "actions": actions, "prompts": list((prompts or {}).items())})
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="clip", daemon=True)
        self._thread.start()

    def add(self, frame, step, action, times, prompt=None):
        """Append what the player saw.

        frame   uint8 [H W 3] RGB, copied here
        step    index in the branch's actions of the action that caused it; `action` is that Action
        times   what is known of the frame (milliseconds of input, polled, ready, flipped; steps; path)
        prompt  the text given right before that step, if any was
        """
        line = {"step": step, "action": _action_to_json(action), **times}
        if prompt is not None:
            line["prompt"] = prompt
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
            num_frames, video = finish_parts(self.path)
        except (OSError, av.error.FFmpegError) as error:  # a full disk, most likely
            self.error = OSError(f"recording {self.path.name} stopped: {error}; what was written becomes a "
                                 f"clip when play next records into {self.path.parent}")
            return
        if num_frames < self.num_frames:
            kept = f"; the video alone is kept as {video}" if video else ""
            self.error = OSError(f"recording {self.path.name} is damaged: {num_frames} of its "
                                 f"{self.num_frames} frames were saved{kept}")

    def _encode(self):
        rate = Fraction(self._header["fps"]).limit_denominator(1001)
        height, width = self._header["frame_size"]
        # A fragment every quarter of a second and no delay in the encoder: so much is lost at most when the
        # process dies. Each packet goes to the operating system at once.
        with av.open(part(self.path, "mp4"), "w", format="mp4", options={
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


# Reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """A finished clip on disk.

    path      the .mp4 file
    sidecar   what its .json holds: header; `recorded`, the [first, stop) frame numbers of the video on the
              branch played; `actions`, all since the last reset, of a rollout all it was told; `prompts`, the texts
              given since then; `frames`, one record per video frame, whose `step` is the index of the action that
              caused it
    """
    path: Path
    sidecar: dict

    @property
    def action_space(self):
        return ActionSpace.from_json(self.sidecar["action_space"])

    @property
    def actions(self):
        """list of Action since the last reset, see `sidecar`; actions[0] is null, actions[i] was the i-th step's."""
        return [_action_from_json(fields) for fields in self.sidecar["actions"]]

    @property
    def latents_per_action(self):
        """Latents that share an action: several where a chunk-wise world was played step by step."""
        return 1 if self.sidecar.get("is_rollout") else int(self.sidecar["info"].get("frames_per_chunk", 1))

    @property
    def prompts(self):
        """{step: text} since the last reset, by the first step made under a text; the start's own is in `info`."""
        return {int(step): str(prompt) for step, prompt in self.sidecar.get("prompts", ())}

    @property
    def paths(self):
        """{step: path}: how the passes of a learned world ran from each of these steps on, as info["path"] says it."""
        found = [*self.sidecar.get("paths", ()),
                 *((record["step"], record["path"]) for record in self.sidecar["frames"] if record.get("path"))]
        steps = {}
        for step, path in found:
            if not steps or path != list(steps.values())[-1]:
                steps[int(step)] = str(path)
        return steps

    @property
    def start(self):
        """uint8 [n H W 3], the frames the branch began from, or None when it began from a scene."""
        return None if self.sidecar["start"] is None else _unpack(self.sidecar["start"])

    @property
    def num_frames(self):
        return len(range(*self.sidecar["recorded"]))

    def frames(self):
        """Yield the video's frames, uint8 [H W 3] RGB; lossy, so near what was seen and not equal to it.

            Raises WorldError("bad_scene") where the video breaks off, or is not the one of the sidecar.
        """
        num_shown, problem = 0, ""
        try:
            with av.open(self.path) as video:
                for packet in video.demux(video=0):
                    if packet.is_corrupt:
                        break
                    for frame in packet.decode():
                        yield frame.to_ndarray(format="rgb24")
                        num_shown += 1
        except IndexError:
            problem = " (it holds no pictures)"
        except av.error.FFmpegError as error:
            problem = f" ({error.strerror})"
        if problem or num_shown != self.num_frames:
            raise WorldError("bad_scene", f"clip {self.path}: its video is damaged{problem} after frame "
                             f"{num_shown} of {self.num_frames}; restore it from a copy")


def read_clip(path):
    """The Clip at `path` (its .mp4, its .json or the name without either).

        Raises WorldError("not_found" or "bad_scene") for a file that is missing, unreadable or too new.
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix in (".mp4", ".json") else path
    sidecar, video = beside(path, ".json"), beside(path, ".mp4")
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
    clip = Clip(video, fields)
    try:
        _check_sidecar(clip)
    except KeyError as error:
        problem = f"{error} is missing"
    except (TypeError, ValueError, AttributeError, zlib.error) as error:
        problem = error
    else:
        return clip
    raise WorldError("bad_scene",
                     f"clip {path}: {sidecar.name} is damaged ({problem}); restore it from a copy")


def _check_sidecar(clip):
    """Raise an error that says what a sidecar lacks of all that is read of it, or has in a wrong form."""
    sidecar = clip.sidecar
    for name in ("action_space", "start", "env", "world", "world_hash", "seed", "scene", "info"):
        if name not in sidecar:
            raise KeyError(name)
    dict(sidecar["info"]), clip.action_space, clip.start, clip.paths  # each reads its part to the end
    if not isinstance(sidecar["info"].get("prompt", ""), str):
        raise ValueError(f"info: prompt {sidecar['info']['prompt']!r:.40} is no text")
    if clip.latents_per_action < 1:
        raise ValueError("info: frames_per_chunk must be above 0")
    height, width = sidecar["frame_size"]
    if not min(height, width, sidecar["fps"]) > 0:
        raise ValueError("frame_size and fps must be above 0")
    steps = [record["step"] for record in sidecar["frames"]]
    if not 0 < len(steps) == clip.num_frames or min(steps) < 0 or max(steps) >= len(clip.actions):
        raise ValueError("its frames, their numbers and the actions do not belong together")
    if clip.prompts and not ("prompt" in sidecar["info"]
                             and 0 < min(clip.prompts) <= max(clip.prompts) < len(clip.actions)):
        raise ValueError("its texts and the actions do not belong together")


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
                     if name not in ("attention", "env", "frames_per_chunk", "note", "prompt", "seed", "steps", "world_hash")}
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
