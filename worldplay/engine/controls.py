"""The player's actions as conditions of the transformer, chunk by chunk, and the state they add up to."""
import numpy as np
import torch

from worldplay import runtime
from worldplay.camera import CameraRig, is_trained, trajectory
from worldplay.models.attention.prope import Cameras
from worldplay.models.conditioning import frame_conditions, yaw_columns

# Actions come from Python and so does what they add up to: both stay on the CPU, and nothing here waits for a
# GPU.


def controls_of(config, device):
    """The controls that the world of a WorldConfig has; device: of its transformer."""
    if config.transformer.has_camera:
        return CameraControls(config.action_space, config.intrinsics, device)
    if config.transformer.action_channels:
        return ActionControls(config.action_space, config.columns_per_degree, device)
    return NoControls()


class ActionControls:
    """Keys and turns as vectors beside the timestep; the state is the camera's heading in token columns, [b
    1].
    """

    def __init__(self, space, columns_per_degree, device):
        self.space, self.columns_per_degree, self.device = space, columns_per_degree, device

    def start(self, batch):
        """The state before the first frame."""
        return torch.zeros(batch, 1, dtype=torch.float64)

    def conditions(self, columns, vectors, frame):
        """(keyword arguments of Transformer.prepare for the chunk at `frame`, the state after it).

        vectors  float32 [b t m a] on the CPU, encoded actions: those of a latent's m frames in turn, or one
                 for all of it; here the last one counts. No action led to frame 0: those of the first latent
                 are ignored there
        """
        actions = vectors[:, :, -1]
        moved = yaw_columns(actions, self.space, self.columns_per_degree, frame=frame, before=columns)
        given = frame_conditions({"actions": actions, "columns": moved}, frame=frame)
        return {name: x if x is None else runtime.upload(x, self.device) for name,
                x in given.items()}, moved[:, -1:]

    def settle(self, columns, cache):
        """The state to go on with after the chunk was written to the cache."""
        return columns

    def note(self, action):
        """What the player should know of an action, a few words or none."""
        return ""


class CameraControls:
    """Controls of a world that is conditioned on camera poses: keys and mouse move a CameraRig, the state.

    A batch holds one world.
    """

    def __init__(self, space, intrinsics, device):
        self.space, self.intrinsics, self.device = space, intrinsics, device

    def start(self, batch):
        """As ActionControls.start."""
        return CameraRig()

    def conditions(self, rig, vectors, frame):
        """As ActionControls.conditions, but that all m actions of a latent count; the start is the camera of
        frame 0.
        """
        steps = [[self.space.decode(vector) for vector in latent] for latent in vectors[0].numpy()]
        rigs = trajectory(rig, steps, frame=frame)
        viewmats = torch.from_numpy(np.stack([each.viewmat for each in rigs]))[None]
        given = frame_conditions({"viewmats": viewmats, "focal": self.intrinsics}, frame=frame)
        return {"cameras": Cameras(*(runtime.upload(x, self.device) for x in given["cameras"]))}, rigs[-1]

    def settle(self, rig, cache):
        """As ActionControls.settle; world coordinates are rebased at a camera far from their origin."""
        rig, motion = rig.rebased()
        if motion is not None:
            cache.rebase(torch.from_numpy(motion))
        return rig

    def note(self, action):
        """As ActionControls.note."""
        return "" if is_trained(action) else "not a movement it was trained on"


class NoControls:
    """Controls of a world that takes no actions, only a text: no conditions are given, no state is kept."""

    def start(self, batch):
        """As ActionControls.start."""

    def conditions(self, state, vectors, frame):
        """As ActionControls.conditions."""
        return {}, state

    def settle(self, state, cache):
        """As ActionControls.settle."""
        return state

    def note(self, action):
        """As ActionControls.note."""
        return ""
