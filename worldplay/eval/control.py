"""Whether the picture obeys: turning right must move it to the left."""
import math

import numpy as np

from worldplay.eval.drift import luma

TURN_DEGREES = 2.0
# a step to the side moves near walls as a turn does, so those frames tell nothing: map units
_SIDEWAYS = 1.0
_LARGEST_SHIFT = 24  # pixels
_BLOCK = 32  # columns


def shift(before, after):
    """How far the picture moved to the right between two frames, by block matching.

    before, after  uint8 [n H W 3]
    Returns        float64 [n], pixels: the median over blocks of columns of each one's best match

    It looks at the upper part (a twelfth to seven twelfths of the height): far things and the horizon
    follow a turn, the floor near the feet follows every step.
    """
    height, width = before.shape[1:3]
    rows = slice(height // 12, height * 7 // 12)
    a, b = luma(before[:, rows]), luma(after[:, rows])
    shifts = np.arange(-_LARGEST_SHIFT, _LARGEST_SHIFT + 1)
    best = []
    for left in range(0, width - _BLOCK + 1, _BLOCK // 2):
        costs = np.full((len(shifts), len(a)), np.inf)
        for k, pixels in enumerate(shifts):
            source = left - pixels
            if 0 <= source <= width - _BLOCK:
                costs[k] = np.abs(b[:, :, left:left + _BLOCK] - a[:, :, source:source + _BLOCK]).mean((1, 2))
        best.append(shifts[costs.argmin(0)])
    return np.median(best, axis=0)


def sign_accuracy(before, after, yaw):
    """Share of frames in which a turn moved the picture the other way.

    before, after  uint8 [n H W 3]
    yaw            float [n], degrees to the right, none of them 0
    Returns        float in [0, 1]; a picture that stands still is wrong; nan where n is 0
    """
    if not len(yaw):
        return math.nan
    return float(np.mean(np.sign(shift(before, after)) == -np.sign(yaw)))


def turn_sign(material, player):
    """{turn_sign_accuracy, turn_sign: {real, n, any_steps, any_steps_real, any_steps_n}} over free play.

    Frames count where the player is told to turn by TURN_DEGREES or more and does not slide sideways;
    any_steps are all frames with such a turn. `real` is the same on the real frames, its ceiling.
    """
    streams, dreams = material.streams[player], material.dreams(player)
    space, context = material.world.action_space, streams.context
    if not space.look_axes:
        return {}
    count = len(dreams)
    yaw = streams.actions[:count, context:, len(space.keys)].astype(np.float64) * space.look_limit
    turns = np.abs(yaw) >= TURN_DEGREES
    steady = turns & (np.abs(streams.moves[:count, context:, 1]) < _SIDEWAYS)

    def accuracy(frames, chosen):
        s, i = np.nonzero(chosen)
        return sign_accuracy(frames[s, context + i - 1], frames[s, context + i], yaw[chosen])

    real = streams.frames[:count]
    return {"turn_sign_accuracy": accuracy(dreams, steady),
            "turn_sign": {"real": accuracy(real, steady), "n": int(steady.sum()),
                          "any_steps": accuracy(dreams, turns), "any_steps_real": accuracy(real, turns),
                          "any_steps_n": int(turns.sum())}}
