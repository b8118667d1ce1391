"""A scene on disk: real frames to start from, how the real game gets there, and a thumbnail."""
import json
import shutil
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from worldplay.action import Action, ActionSpace
from worldplay.errors import RESTORE, WorldError
from worldplay.files import replacing, visible, write_picture


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Frames that a world can start from, and the actions that led to them.

    frames   uint8 [n H W 3]
    actions  n Actions; actions[i] caused frames[i]
    poses    float32 [n 4] of the player, or None
    origin   {"environment", "seed"}: the real game shows frames[0] when it is reset with this seed and then
             given the Actions `before`, and the rest under `actions`; empty where that is not known
    """
    name: str
    frames: np.ndarray
    actions: list[Action]
    poses: np.ndarray | None
    origin: dict
    before: tuple[Action, ...] = ()

    @property
    def led(self):
        """The Actions from the reset of the real game to the last frame."""
        return [*self.before, *self.actions[1:]]


def save_scene(folder, scene, action_space):
    """Write folder/NAME.safetensors and folder/NAME.png (the last frame)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"frames": np.ascontiguousarray(scene.frames),
               "actions": np.stack([action_space.encode(action) for action in scene.actions])}
    if scene.before:
        tensors["before"] = np.stack([action_space.encode(action) for action in scene.before])
    if scene.poses is not None:
        tensors["poses"] = np.ascontiguousarray(scene.poses, np.float32)
    header = {"origin": json.dumps(scene.origin), "action_space": json.dumps(action_space.to_json())}
    with replacing(folder / f"{scene.name}.safetensors") as temporary:
        save_file(tensors, temporary, metadata=header)
    write_picture(folder / f"{scene.name}.png", scene.frames[-1])


def export_scenes(cache, folder, env, num=6, num_frames=4):
    """Write scenes into a new folder: starts of held-out episodes of a FrameCache, the most contrasted first.

    num         scenes, spread evenly over the held-out episodes
    num_frames  of each: enough to see how the player moves; a whole window would only make the folder larger

    Episodes without poses may be few: scenes of these begin at any frame. Those of recorded clips, which are
    lossy, cannot be replayed in the game.
    """
    is_replayable = cache.poses is not None or (env.startswith("gym:") and not cache.is_lossy)
    starts = cache.split("held_out")[:, [0, 0, 2]]  # row, first row of its episode, seed
    if cache.poses is None:
        starts = np.array([[i, start, seed] for start, length, seed in cache.split("held_out")
                           for i in range(start, start + length - num_frames + 1)])
    picks = starts[np.unique(np.linspace(0, len(starts) - 1, num).astype(int))].tolist()
    picks.sort(key=lambda pick: -np.asarray(cache.frames[pick[0]], np.float32).std())
    draft = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(draft, ignore_errors=True)  # the scenes of a run that was killed here
    for i, (row, start, seed) in enumerate(picks, 1):
        rows = slice(row, row + num_frames)
        actions, before = ([cache.action_space.decode(vector) for vector in cache.actions[part]]
                           for part in (rows, slice(start + 1, row + 1)))
        has_poses = cache.poses is not None
        save_scene(draft, Scene(
            name=f"start-{i}", frames=np.asarray(cache.frames[rows]), actions=actions,
            poses=np.asarray(cache.poses[rows]) if has_poses else None,
            origin={"environment": env, "seed": seed} if is_replayable else {},
            before=tuple(before) if is_replayable else ()), cache.action_space)
    draft.rename(folder)


def scene_names(folder):
    """Names of the scenes in a folder, sorted."""
    return tuple(path.stem for path in visible(folder, "*.safetensors"))


def load_scene(path, frame_size):
    """The Scene in NAME.safetensors; WorldError("bad_scene") when unreadable or of another frame size."""
    path = Path(path)
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        frames, vectors = tensors["frames"], tensors["actions"]
        space = ActionSpace.from_json(json.loads(header["action_space"]))
        actions = [space.decode(vector) for vector in vectors]
        before = tuple(space.decode(vector) for vector in tensors.get("before", ()))
        origin = json.loads(header["origin"])
    except FileNotFoundError:
        raise WorldError("bad_scene", f"scene {path} is missing; {RESTORE}") from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise WorldError("bad_scene", f"scene {path} cannot be read ({error}); {RESTORE}") from None
    if frames.dtype != np.uint8 or frames.shape[1:] != (*frame_size, 3):
        raise WorldError("bad_scene", f"scene {path} has frames {frames.dtype} {frames.shape[1:]}, "
                         f"this world shows uint8 {(*frame_size, 3)}")
    if not (isinstance(origin, dict) and isinstance(origin.get("environment", ""), str)
            and type(origin.get("seed", 0)) is int and origin.get("seed", 0) >= 0):
        raise WorldError("bad_scene", f"scene {path} has an origin that names no environment and seed; "
                         f"{RESTORE}")
    poses = tensors.get("poses")
    has_poses = poses is not None
    if len(frames) == 0 or len(frames) != len(vectors) or has_poses and poses.shape != (len(frames), 4):
        raise WorldError("bad_scene", f"scene {path} holds {len(frames)} frames, and not as many actions and "
                         f"poses; {RESTORE}")
    if not (np.isfinite(vectors).all() and (not has_poses or np.isfinite(poses).all())):
        raise WorldError("bad_scene",
                         f"scene {path} has actions or poses that are no finite numbers; {RESTORE}")
    return Scene(name=path.stem, frames=frames, actions=actions, poses=poses, origin=origin, before=before)


def image_scene(path, frame_size):
    """A Scene of one picture file, scaled to cover frame_size and cropped to its middle; its action is empty.

    The picture is as image viewers show it: turned by its EXIF orientation, transparent parts white.

        Raises WorldError("bad_scene").
    """
    frame = fit(_open_picture(path, frame_size), frame_size)
    return Scene(name=Path(path).stem, frames=frame[None], actions=[Action()], poses=None, origin={})


def _open_picture(path, frame_size):
    """The Pillow picture of a file, mode RGB; a large JPEG file is decoded at a fraction of its size."""
    from PIL import Image, ImageOps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and of sizes that it still reads
            # from an open file: by name Pillow maps a TIFF file into memory, and mixes up its rows where the
            # orientation swaps height and width
            with open(path, "rb") as file, Image.open(file) as picture:
                if picture.format == "JPEG":
                    picture.draft(None, (max(frame_size),) * 2)
                ImageOps.exif_transpose(picture, in_place=True)  # first: converting can drop the EXIF data
                return _rgb(picture)
    except FileNotFoundError:
        raise WorldError("bad_scene", f"image {path} does not exist") from None
    except Image.DecompressionBombError:
        raise WorldError("bad_scene", f"image {path} cannot be read: it has more than "
                         f"{2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels; scale it down") from None
    except (OSError, ValueError, SyntaxError, OverflowError, struct.error) as error:  # all that Pillow raises
        raise WorldError("bad_scene",
                         f"image {path} cannot be read ({error}); give a PNG or JPEG file") from None


def _rgb(picture):
    """The picture in 8 bits a channel, without transparency; ValueError where its white is unknown."""
    from PIL import Image
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values, white = np.asarray(picture, np.float64), 1 if picture.mode == "F" else 65535
        low, high = values.min(), values.max()
        is_known = picture.mode != "I" or picture.format in ("PNG", "PPM")  # others may use all 32 bits
        if not (is_known and 0 <= low <= high <= white):
            raise ValueError(f"its numbers go from {low:g} to {high:g}, which may mean any brightness; "
                             "save it with 8 or 16 bits a channel")
        return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def fit(picture, frame_size):
    """uint8 [H W 3] of a Pillow picture: scaled to cover frame_size (H, W) and cropped to its middle."""
    from PIL import Image, ImageOps
    height, width = frame_size
    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC), np.uint8)
