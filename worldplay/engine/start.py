"""What a world starts from: a scene of its folder or given frames, brought to whole chunks of latents."""
import numpy as np

from worldplay.action import Action
from worldplay.errors import RESTORE, WorldError
from worldplay.worlds.scene import Scene, load_scene, scene_names

TEXT = "text"  # the scene of a world that begins from its prompt alone


def start_names(config, folder):
    """Names that `reset` takes as scene, the default first; folder: of the world, None where it has random
    weights.
    """
    names = scene_names(folder / "scenes") if folder else ()
    return names + ((TEXT,) if config.transformer.text_dim else ()) or ("random",)


def scene_of(config, folder, names, name, seed):
    """The Scene called `name` among the start_names; of a world without a folder a frame of noise by `seed`.

        Raises WorldError("bad_scene") where there is none of that name, or its file cannot be read.
    """
    if folder is None:
        rng = np.random.default_rng(seed)
        return Scene(name="random", frames=rng.integers(0, 256, (1, *config.frame_size, 3), np.uint8),
                     actions=[Action()], poses=None, origin={})
    scenes = folder / "scenes"
    if TEXT not in names and not scene_names(scenes):
        raise WorldError("bad_scene", f"{config.name} has no scenes: {scenes} is missing or empty; "
                         f"{RESTORE}, or begin from a picture with --image")
    if name not in names:
        raise WorldError("bad_scene", f"{config.name} has no scene {name!r}; it has {', '.join(names)}")
    return load_scene(scenes / f"{name}.safetensors", config.frame_size)


def checked_frames(frames, actions, frame_size):
    """The frames of a start, contiguous; WorldError("bad_scene") unless they are uint8 [n H W 3] with n
    actions.
    """
    frames = np.ascontiguousarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*frame_size,
                                                                            3) or not len(frames):
        raise WorldError("bad_scene", f"context frames are {frames.dtype} {frames.shape}, expected uint8 "
                         f"[n {frame_size[0]} {frame_size[1]} 3]")
    if actions is None or len(actions) != len(frames):
        raise WorldError("bad_scene", f"{len(frames)} context frames need as many actions")
    return frames


def whole_chunks(frames, actions, *, frames_per_chunk, frames_per_latent):
    """A start of whole chunks: it loses its oldest frames, or begins with copies of its first frame, standing
    still.

    frames             uint8 [n H W 3], with n actions; actions[0] is ignored
    frames_per_latent  1, or how many frames every latent but the first has
    Returns            (frames, lists of the actions of the frames of each latent)
    """
    latents = 1 + (len(frames) - 1) // frames_per_latent
    wanted = 1 + frames_per_latent * (max(frames_per_chunk, latents - latents % frames_per_chunk) - 1)
    missing = max(0, wanted - len(frames))
    frames = np.concatenate([frames[:1].repeat(missing, axis=0), frames])[-wanted:]
    actions = ([Action()] * (missing + 1) + list(actions[1:]))[-wanted:][1:]
    later = [actions[i:i + frames_per_latent] for i in range(0, len(actions), frames_per_latent)]
    return frames, [[Action()] * frames_per_latent, *later]
