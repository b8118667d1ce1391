"""Whether the picture obeys: turning right must move it to the left."""
import math

import numpy as np

TURN_DEGREES = 2.0
# a step to the side moves near walls as a turn does, so those frames tell nothing: map units
_SIDEWAYS = 1.0
_LARGEST_SHIFT = 24  # pixels


def shift(before, after):
    """How far the picture moved to the right between two frames: the shift at which they match best, all colours.

    before, after  uint8 [n H W 3]
    Returns        int64 [n], pixels

    It looks at the upper part as one (a twelfth to seven twelfths of the height): far things, the sky and the horizon
    follow a turn, the floor near the feet follows every step. Walls repeat themselves; the whole of them and the sky
    does not, so that this measure finds more of the real game's turns than one by blocks of columns.
    """
    height, width = before.shape[1:3]
    rows = slice(height // 12, height * 7 // 12)
    a, b = before[:, rows].astype(np.float32), after[:, rows].astype(np.float32)
    shifts = np.arange(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1)
    costs = [np.abs(b[:, :, max(0, pixels):width + min(0, pixels)] - a[:, :, max(0, -pixels):width - max(0, pixels)])
             .mean((1, 2, 3)) for pixels in shifts]
    return shifts[np.argmin(costs, axis=0)]


def obeys(before, after, yaw):
    """bool [n]: whether a turn moved the picture the other way; a picture that stands still does not obey.

    before, after  uint8 [n H W 3]
    yaw            float [n], degrees to the right, none of them 0
    """
    return np.sign(shift(before, after)) == -np.sign(yaw)


def sign_accuracy(before, after, yaw):
    """Share of frames, 0 to 1, that `obeys` finds obedient; nan where n is 0. Arguments as there."""
    return float(np.mean(obeys(before, after, yaw))) if len(yaw) else math.nan


def told_turns(material, player):
    """What the actions say over free play of r streams: (yaw, turns, steady), [r n] each.

    yaw     degrees to the right
    turns   bool, where it is TURN_DEGREES or more
    steady  bool, where besides the player does not slide sideways
    """
    streams, space, context = material.streams[player], material.world.action_space, material.streams[player].context
    count = len(material.dreams(player))
    yaw = streams.actions[:count, context:, len(space.keys)].astype(np.float64) * space.look_limit
    turns = np.abs(yaw) >= TURN_DEGREES
    return yaw, turns, turns & (np.abs(streams.moves[:count, context:, 1]) < _SIDEWAYS)


def turn_sign(material, player):
    """{turn_sign_accuracy, turn_sign: {real, n, any_steps, any_steps_real, any_steps_n}} over free play.

    Frames count where the player is told to turn by TURN_DEGREES or more and does not slide sideways;
    any_steps are all frames with such a turn. `real` is the same on the real frames, its ceiling.
    """
    streams, dreams = material.streams[player], material.dreams(player)
    space, context = material.world.action_space, streams.context
    if not space.look_axes:
        return {}
    yaw, turns, steady = told_turns(material, player)

    def accuracy(frames, chosen):
        s, i = np.nonzero(chosen)
        return sign_accuracy(frames[s, context + i - 1], frames[s, context + i], yaw[chosen])

    real = streams.frames[:len(dreams)]
    return {"turn_sign_accuracy": accuracy(dreams, steady),
            "turn_sign": {"real": accuracy(real, steady), "n": int(steady.sum()),
                          "any_steps": accuracy(dreams, turns), "any_steps_real": accuracy(real, turns),
                          "any_steps_n": int(turns.sum())}}
