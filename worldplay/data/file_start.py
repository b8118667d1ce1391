"""A file of the player's own as the past that a world goes on from: a picture, a video, a recorded clip."""
from collections import Counter

import numpy as np

from worldplay.action import Action
from worldplay.data.clip import beside, read_clip
from worldplay.data.stills import VIDEOS, Stills
from worldplay.data.video import DamagedVideo, FrameSeeker
from worldplay.errors import WorldError
from worldplay.worlds.scene import Scene, fit, image_scene

SUFFIXES = (*VIDEOS, ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")  # that name a file


def file_scene(path, frame_size, space, *, at=None, num=1):
    """The Scene that a file is to a world with this frame_size (H, W) and ActionSpace.

    A picture, or the last frame of a video, alone. Of a recorded clip its last frames, `num` at most, with
    the actions that caused them, so that what moved moves on.

    at  number of the clip's frame that is the last one, of whose step all count; None: of the clip

        Raises WorldError("bad_scene") where it cannot be read, or was played with other keys than the world
        has.
    """
    if path.suffix.lower() not in VIDEOS:
        return image_scene(path, frame_size)
    if not path.is_file():
        raise WorldError("bad_scene", f"{path} does not exist")
    try:
        if is_clip(path):
            return _past(read_clip(path), frame_size, space, at, num)
        stills = Stills(path, frame_size)
        return Scene(name=path.stem, frames=stills.at(stills.seconds)[None], actions=[Action()], poses=None,
                     origin={})
    except (OSError, ValueError) as error:  # a damaged video is the latter
        raise WorldError("bad_scene", f"{path} cannot be begun from: {error}") from None


def is_clip(path):
    """Whether a file is a clip that was recorded here, with its actions beside it."""
    return path.suffix == ".mp4" and beside(path.with_suffix(""), ".json").is_file()


def other_controls(clip, space):
    """Why the actions of a Clip are none of a world with this ActionSpace, in a few words; "" where they
    are.
    """
    theirs = clip.action_space
    if {*theirs.keys} == {*space.keys} and theirs.look_axes == space.look_axes:
        return ""
    return f"it was played with {_controls(theirs)}, this world has {_controls(space)}"


def _controls(space):
    turns = ((), ("turns",), ("turns in two ways",))[space.look_axes]
    return ", ".join((*space.keys, *turns)) or "no keys"


def _past(clip, frame_size, space, at, num):
    if problem := other_controls(clip, space):
        raise WorldError("bad_scene", f"{clip.path.name} does not fit: {problem}; give a picture of it alone")
    steps = [record["step"] for record in clip.sidecar["frames"]]
    at = clip.step_end(clip.num_frames - 1 if at is None else min(at, clip.num_frames - 1))
    chosen, counts, actions = range(max(0, at - num + 1), at + 1), Counter(steps), clip.actions
    return Scene(name=clip.path.stem, frames=_frames(clip, chosen, frame_size), poses=None, origin={},
                 actions=[space.fit(actions[steps[i]].share(counts[steps[i]])) for i in chosen])


def _frames(clip, chosen, frame_size):
    """uint8 [n H W 3]: these frames of a clip, scaled to cover another frame_size and cropped."""
    from PIL import Image
    height, width = clip.sidecar["frame_size"]
    seeker = FrameSeeker(clip.path)
    try:
        frames = [seeker.frame(i)[:height, :width] for i in chosen]
    except DamagedVideo as error:
        raise WorldError("bad_scene", f"{clip.path.name} cannot be read there: {error}") from None
    finally:
        seeker.close()
    if (height, width) != tuple(frame_size):
        frames = [fit(Image.fromarray(frame), frame_size) for frame in frames]
    return np.ascontiguousarray(np.stack(frames))
