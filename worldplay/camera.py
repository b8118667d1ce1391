"""The camera rig: keys and mouse move a camera through the world, one pose for every latent."""
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from worldplay.action import Action, ActionSpace

STEP = 0.08  # units that the camera moves in one latent at full speed
TURN = 3.0  # degrees that it turns then
REACH = 4.0  # units from the anchor beyond which float32, and bfloat16 the more, begins to feel the way

# (fx, fy) over (width, height) of the picture in the published training data: square pixels at 16:9. The
# published sampling script takes 0.5 for both.
TRAINING_INTRINSICS = (0.5050505, 0.89786756)

# what the training data holds; a rig also knows u and down, which lift and lower the camera
CAMERA_SPACE = ActionSpace(("w", "s", "a", "d", "i", "j", "k", "l"), look_limit=TURN, look_axes=2)

_MOVES = {"w": (0, 0, 1), "s": (0, 0, -1), "d": (1, 0, 0), "a": (-1, 0, 0), "u": (0, -1, 0),
          "down": (0, 1, 0)}
_TURNS = {"l": (1, 0), "j": (-1, 0), "k": (0, 1), "i": (0, -1)}  # times TURN: (yaw right, pitch down)


@dataclass(frozen=True, eq=False)
class CameraRig:
    """Where a camera is, seen from its anchor; it never changes, so a rig is its own snapshot.

    pose  float64 [4 4], camera to anchor; x right, y down, z forward
    """
    pose: np.ndarray = field(default_factory=lambda: np.eye(4))

    @property
    def viewmat(self):
        """float32 [4 4], anchor to camera."""
        return _inverse(self.pose).astype(np.float32)

    def step(self, action):
        """The rig one latent later: it turns first, then moves along its new axes.

        Mouse and keys add up; a turn is at most TURN degrees about either axis, a move STEP units along each,
        so a diagonal one is longer.

        Source: minWM, Wan21 camera trajectories.
        """
        return self._moved(*_motion(action))

    def along(self, actions):
        """The rig one latent later, when every frame of the latent had an action of its own.

        A key counts by its share of the frames, the mouse by its degrees in all; then it turns and moves as
        in `step`, which n equal parts of an action equal. Only that the turn has no limit: recorded pictures
        have turned so far.
        """
        moves, turns = zip(*(_motion(Action(action.keys)) for action in actions))
        looked = np.sum([action.look for action in actions], axis=0)
        return self._moved(np.mean(moves, axis=0), np.mean(turns, axis=0) + looked)

    def _moved(self, move, turn):
        yaw, pitch = turn
        pose = self.pose.copy()
        pose[:3, :3] = pose[:3, :3] @ _about_y(np.radians(yaw)) @ _about_x(np.radians(-pitch))
        pose[:3, 3] += pose[:3, :3] @ move
        return CameraRig(pose)

    def rebased(self):
        """(rig, None) within REACH of the origin; beyond it (the same camera as the new origin, G).

        G  float64 [4 4]: what were viewmats T are T @ G from now on, also those given before (KVCache.rebase)
        """
        if np.linalg.norm(self.pose[:3, 3]) <= REACH:
            return self, None
        return CameraRig(), self.pose


def trajectory(rig, steps, *, frame=0):
    """The CameraRig at each of consecutive latents, a list; the one way in which actions become cameras.

    rig    of the latent before the first of these; at frame 0 the start itself, to which no action led
    steps  for each latent its actions: one alone is a step (CameraRig.step), several are those of its frames
           in turn (CameraRig.along)
    frame  index in the sequence of the first of these latents
    """
    rigs = []
    for i, actions in enumerate(steps, frame):
        if i > 0:
            rig = rig.step(actions[0]) if len(actions) == 1 else rig.along(actions)
        rigs.append(rig)
    return rigs


def moves_camera(space):
    """Whether any action of an ActionSpace moves or turns a camera."""
    return bool(space.look_axes) or bool(set(space.keys) & {*_MOVES, *_TURNS})


def is_trained(action):
    """Whether a step is one of the training data's: one motion at full speed, not none or two, not up or
    down.
    """
    move, turn = _motion(action)
    motions = np.abs([*move, *turn])
    return np.count_nonzero(motions) == 1 and not move[1] and np.isclose(motions.max(),
                                                                         STEP if move.any() else TURN)


def viewmats(actions):
    """float32 [1 + n 4 4], world to camera: the start, and where each of n actions leads."""
    return np.stack([rig.viewmat for rig in accumulate(actions, CameraRig.step, initial=CameraRig())])


def _motion(action):
    """(units [3] along the camera's axes, degrees (yaw right, pitch down)) of one step."""
    move = STEP * _sum(_MOVES, action.keys, 3)
    turn = TURN * _sum(_TURNS, action.keys, 2) + action.look
    return move, turn.clip(-TURN, TURN)


def _sum(table, keys, length):
    return np.sum([table[key] for key in keys if key in table] or [[0] * length], axis=0, dtype=np.float64)


def _inverse(pose):
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def _about_x(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
