"""What the player does, as a transformer is told it: the conditions of every chunk, and what they add up to."""
import numpy as np
import torch

from worldplay import runtime
from worldplay.camera import CameraRig, is_trained
from worldplay.models.attention.prope import Cameras

# Actions come from Python and so does what they add up to: both stay on the CPU, and nothing here waits for a GPU.


def controls_of(config, dtype, device):
    """The controls that the world of a WorldConfig has; dtype and device: of its transformer."""
    if config.transformer.has_camera:
        return CameraControls(config.action_space, config.intrinsics, device)
    if config.transformer.action_channels:
        return ActionControls(config.action_space, config.columns_per_degree, dtype, device)
    return NoControls()


class ActionControls:
    """Keys and turns as vectors beside the timestep; the state is the camera's heading in token columns, [b 1]."""

    def __init__(self, space, columns_per_degree, dtype, device):
        self.space, self.columns_per_degree, self.dtype, self.device = space, columns_per_degree, dtype, device

    def start(self, batch):
        """The state before the first frame."""
        return torch.zeros(batch, 1, dtype=torch.float64)

    def conditions(self, columns, vectors, frame):
        """(keyword arguments of Transformer.denoise for the chunk at `frame`, the state after it).

        vectors  float32 [b t a] on the CPU, encoded actions; the one that led to frame 0 is not told
        """
        moved = self._moved(columns, vectors)
        told = {"actions": vectors.to(self.dtype), "columns": moved}
        if frame == 0:
            told["action_mask"] = (torch.arange(vectors.shape[1]) > 0).expand(vectors.shape[:2])
        return {name: runtime.upload(x, self.device) for name, x in told.items()}, moved[:, -1:]

    def settle(self, columns, cache):
        """The state to go on with after the chunk was written to the cache."""
        return columns

    def note(self, action):
        """What the player should know of an action, a few words or none."""
        return ""

    def _moved(self, columns, vectors):
        """float64 [b t]: where the camera is after action vectors [b t a] from `columns` on."""
        if not self.columns_per_degree:
            return torch.zeros(vectors.shape[:2], dtype=torch.float64)
        yaw = vectors[..., len(self.space.keys)].double()
        return columns + (yaw * self.space.look_limit * self.columns_per_degree).cumsum(dim=1)


class CameraControls:
    """Keys and mouse move a camera; the state is its CameraRig. One world at a time."""

    def __init__(self, space, intrinsics, device):
        self.space, self.intrinsics, self.device = space, intrinsics, device

    def start(self, batch):
        """As ActionControls.start."""
        return CameraRig()

    def conditions(self, rig, vectors, frame):
        """As ActionControls.conditions; the camera of frame 0 is where the world begins."""
        viewmats = []
        for i, vector in enumerate(vectors[0].numpy()):
            rig = rig.step(self.space.decode(vector)) if frame + i else rig
            viewmats.append(rig.viewmat)
        cameras = Cameras.of(torch.from_numpy(np.stack(viewmats))[None], self.intrinsics)
        return {"cameras": Cameras(*(runtime.upload(x, self.device) for x in cameras))}, rig

    def settle(self, rig, cache):
        """As ActionControls.settle; a camera far from its anchor gets a new one."""
        rig, motion = rig.reanchored()
        if motion is not None:
            cache.reanchor(torch.from_numpy(motion))
        return rig

    def note(self, action):
        """As ActionControls.note."""
        return "" if is_trained(action) else "not a movement it was trained on"


class NoControls:
    """A world that only its text tells what to show."""

    def start(self, batch):
        """As ActionControls.start."""

    def conditions(self, told, vectors, frame):
        """As ActionControls.conditions."""
        return {}, told

    def settle(self, told, cache):
        """As ActionControls.settle."""
        return told

    def note(self, action):
        """As ActionControls.note."""
        return ""
