"""A recorded clip on disk, an H.264 video and a JSON sidecar with every action; playback of it as a World."""
import base64
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldplay.action import Action, ActionSpace
from worldplay.data.video import DamagedVideo, padded_size, read_frames
from worldplay.errors import WorldError

FORMAT, VERSION = "worldplay clip", 1
MAX_THREADS = 1024  # of a clip; a replay begins as many
MAX_START_BYTES = 2**28  # of the frames that a branch began from, unpacked


def beside(path, suffix):
    """The file of a clip PATH that ends in `suffix`."""
    return path.with_name(path.name + suffix)


@dataclass(frozen=True)
class Clip:
    """A finished clip on disk.

    path      the .mp4 file
    sidecar   what its .json holds: header; `recorded`, the [first, stop) numbers of the video's frames,
              counted from the last reset; `actions`, all since that reset, or all that a rollout was given;
              `prompts`, the texts given since then; `frames`, one record per video frame, whose `step` is the
              index of the action that caused it
    """
    path: Path
    sidecar: dict

    @property
    def action_space(self):
        return ActionSpace.from_json(self.sidecar["action_space"])

    @property
    def actions(self):
        """list of Action since the last reset, see `sidecar`: actions[0] is null, actions[i] of step i."""
        return [action_from_json(fields) for fields in self.sidecar["actions"]]

    @property
    def latents_per_action(self):
        """Latents that share an action: several where a chunk-wise world was played step by step."""
        return 1 if self.sidecar.get("is_rollout") else int(self.sidecar["info"].get("frames_per_chunk", 1))

    def step_end(self, index):
        """Number of the video's frame that ends the step of frame `index`; of a step within which the clip
        breaks off the one before it, where there is one.
        """
        steps = [record["step"] for record in self.sidecar["frames"]]
        ends = [i for i, (step, following) in enumerate(zip(steps, [*steps[1:], None])) if step != following]
        if len(ends) > 1 and ends[-1] - ends[-2] < max(b - a for a, b in zip([-1, *ends], ends)):
            ends.pop()
        return next((end for end in ends if end >= index), ends[-1])

    @property
    def prompts(self):
        """{first step made under a text: text} since the last reset; the text of the start is in `info`."""
        return {int(step): str(prompt) for step, prompt in self.sidecar.get("prompts", ())}

    @property
    def paths(self):
        """{step: path}: how a learned world's passes ran from that step on, in the words of info["path"]."""
        return self._changes("paths", "path", str)

    @property
    def threads(self):
        """{step: number of torch threads from that step on}; empty for a sidecar without this record."""
        return self._changes("threads", "threads", int)

    @property
    def steps(self):
        """{step: number}: sampling steps from that step on; empty where the sidecar does not say."""
        return self._changes("steps", "steps", int)

    @property
    def windows(self):
        """{step: number}: window from that step on; empty where the sidecar does not say."""
        return self._changes("windows", "window", int)

    def _changes(self, listed, name, kind):
        """{step: value} of a fact where it changed.

        listed  the sidecar's list of the changes before the clip began; name: of the fact in frame records
        """
        found = [*self.sidecar.get(listed, ()),
                 *((record["step"], record.get(name)) for record in self.sidecar["frames"])]
        steps = {}
        for step, value in found:
            if value and (not steps or value != list(steps.values())[-1]):
                steps[int(step)] = kind(value)
        return steps

    @property
    def start(self):
        """uint8 [n H W 3], the frames the branch began from, or None when it began from a scene."""
        return None if self.sidecar["start"] is None else unpack_frames(self.sidecar["start"])

    @property
    def start_actions(self):
        """tuple of the Actions that caused the frames of `start`; None: standing still."""
        return actions_from_json(self.sidecar.get("start_actions"))

    @property
    def num_frames(self):
        return len(range(*self.sidecar["recorded"]))

    def frames(self):
        """Yield the video's frames one by one, uint8 [H W 3] RGB; lossy, so only close to what was seen.

            Raises WorldError("bad_scene") where the video breaks off, or is not the one of the sidecar.
        """
        (height, width), num_frames, problem = self.sidecar["frame_size"], 0, ""
        try:
            for _, frame in read_frames(self.path):
                if frame.shape[:2] != padded_size((height, width)):
                    raise DamagedVideo(f"a frame has {frame.shape[0]} rows and {frame.shape[1]} columns, its "
                                       f".json says {height} and {width}")
                yield np.ascontiguousarray(frame[:height, :width])  # an odd size was padded
                num_frames += 1
        except (DamagedVideo, OSError) as error:
            problem = f" ({error})"
        if problem or num_frames != self.num_frames:
            raise WorldError("bad_scene", f"clip {self.path}: its video is damaged{problem} after frame "
                             f"{num_frames} of {self.num_frames}; restore it from a copy")


def read_clip(path):
    """The Clip at `path` (its .mp4, its .json or the name without either).

        Raises WorldError("not_found" or "bad_scene") for a file that is missing, unreadable or too new.
    """
    path = Path(path)
    path = path.with_name(path.stem) if path.suffix in (".mp4", ".json") else path
    sidecar, video = beside(path, ".json"), beside(path, ".mp4")
    for file in (sidecar, video):
        if not file.is_file():
            raise WorldError("not_found",
                             f"clip {path}: {file.name} is missing; a clip is a .mp4 with its .json")
    try:
        fields = json.loads(sidecar.read_text(encoding="utf-8"))
        is_clip = fields["format"] == FORMAT
        version = int(fields["version"])
    except OSError as error:
        raise WorldError("bad_scene", f"clip {path}: {sidecar.name} cannot be read ({error})") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        is_clip = False
    if not is_clip:
        raise WorldError("bad_scene", f"clip {path}: {sidecar.name} is not the sidecar of a worldplay clip")
    if version > VERSION:
        raise WorldError("bad_scene",
                         f"clip {path}: written by a newer worldplay (format {version}); update this one")
    problem = sidecar_problem(fields)
    if problem:
        raise WorldError("bad_scene",
                         f"clip {path}: {sidecar.name} is damaged ({problem}); restore it from a copy")
    return Clip(video, fields)


def sidecar_problem(sidecar):
    """The first field of a sidecar that is missing or wrong, in a few words; None where all can be read."""
    try:
        _check_sidecar(sidecar)
    except KeyError as error:
        return f"{error} is missing"
    except (TypeError, ValueError, AttributeError, OverflowError, zlib.error) as error:
        return str(error)
    return None


def _check_sidecar(sidecar):
    clip = Clip(None, sidecar)
    for name in ("action_space", "start", "env", "world", "world_hash", "seed", "scene", "info"):
        if name not in sidecar:
            raise KeyError(name)
    dict(sidecar["info"]), clip.action_space, clip.paths  # each reads its part to the end
    if not isinstance(sidecar["info"].get("prompt", ""), str):
        raise ValueError(f"info: prompt {sidecar['info']['prompt']!r:.40} is no text")
    if clip.latents_per_action < 1:
        raise ValueError("info: frames_per_chunk must be above 0")
    if not all(0 < number <= MAX_THREADS for number in clip.threads.values()):
        raise ValueError(f"threads must be from 1 to {MAX_THREADS}")
    if not set(clip.steps.values()) <= {1, 2, 4} or min(clip.windows.values(), default=1) < 1:
        raise ValueError("its sampling steps must be 1, 2 or 4, and its windows above 0")
    height, width = sidecar["frame_size"]
    if not (min(height, width, sidecar["fps"]) > 0 and math.isfinite(sidecar["fps"])):
        raise ValueError("frame_size and fps must be above 0")
    start = clip.start
    if start is not None and start.shape[1:] != (height, width, 3):
        raise ValueError(f"start: frames of {start.shape[1:]}, frame_size says {(height, width, 3)}")
    if clip.start_actions is not None and (start is None or len(clip.start_actions) != len(start)):
        raise ValueError("start_actions: not as many as frames of the start")
    steps = [record["step"] for record in sidecar["frames"]]
    if not all(type(number) is int for number in (height, width, *steps)):
        raise ValueError("frame_size and the steps of its frames must be whole numbers")
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
        # Without how the frames were made: a clip of this playback cannot be replayed by that world.
        self.info = {name: fact for name, fact in sidecar["info"].items()
                     if name not in ("attention", "env", "frames_per_chunk", "frames_per_latent", "graph",
                                     "max_steps", "max_threads", "max_window", "note", "prompt", "seed",
                                     "steps", "threads", "window", "world_hash")}
        self.info |= {"device": "playback", "path": "playback"}
        self._frames, self._ahead, self._is_mid_step = iter(()), None, False

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        """Go back to the first frame, uint8 [1 H W 3]; the seed is ignored.

            Raises WorldError("bad_scene") for frames or another scene.
        """
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
            raise WorldError("ended", f"the recording {self.name} is over; reset to play it again")
        self._is_mid_step = True
        step = self._ahead[0]
        while self._ahead is not None and self._ahead[0] == step:
            yield self._ahead[1]
            self._ahead = next(self._frames, None)
        self._is_mid_step = False

    def close(self):
        self._frames, self._ahead = iter(()), None


# JSON forms -------------------------------------------------------------------------------------------------


def action_to_json(action):
    """[keys in alphabetical order, yaw, pitch], the form of an Action in a sidecar."""
    return [sorted(action.keys), *action.look]


def action_from_json(fields):
    """The Action that `action_to_json` wrote."""
    keys, yaw, pitch = fields
    return Action(frozenset(keys), (yaw, pitch))


def actions_from_json(listed):
    """tuple of the Actions of a list of what `action_to_json` wrote; None of None."""
    return None if listed is None else tuple(map(action_from_json, listed))


def pack_frames(frames):
    """JSON fields of frames, uint8 [n H W 3]."""
    return {"shape": list(frames.shape), "zlib": base64.b64encode(zlib.compress(frames.tobytes())).decode()}


def unpack_frames(fields):
    """The frames that `pack_frames` packed.

        Raises ValueError where they are more than MAX_START_BYTES or not as many as their shape says.
    """
    num_bytes = math.prod(fields["shape"])
    if not 0 < num_bytes <= MAX_START_BYTES:
        raise ValueError(f"start: its frames take {num_bytes} bytes, at most {MAX_START_BYTES} are expected")
    # a few bytes can unpack to any number of them, so no more than expected is unpacked
    pixels = zlib.decompressobj().decompress(base64.b64decode(fields["zlib"]), num_bytes + 1)
    return np.frombuffer(pixels, np.uint8).reshape(fields["shape"])
