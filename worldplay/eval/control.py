"""Whether the picture follows the turns of the player: turning right must move it to the left."""
import math

import numpy as np

TURN_DEGREES = 2.0
# a step to the side moves near walls as a turn does, so those frames cannot be judged: map units, and the
# keys
_SIDEWAYS = 1.0
_SIDEWAYS_KEYS = ("a", "d")
_LARGEST_SHIFT = 24  # pixels


def shift(before, after):
    """Pixels by which the picture moved to the right between two frames, by matching over all colours.

    before, after  uint8 [n H W 3]
    Returns        int64 [n], pixels

    One shift is found for the whole band from a twelfth to seven twelfths of the height. Distant things, sky
    and horizon there move with a turn, while the floor below also moves with every step. Matching the band as
    a whole finds more of the real game's turns than matching blocks of columns, because wall textures repeat.
    """
    height, width = before.shape[1:3]
    rows = slice(height // 12, height * 7 // 12)
    a, b = before[:, rows].astype(np.float32), after[:, rows].astype(np.float32)
    largest = min(_LARGEST_SHIFT, width - 1)
    shifts = np.arange(-largest, largest + 1)
    costs = [np.abs(b[:, :, max(0, pixels):width + min(0, pixels)]
                    - a[:, :, max(0, -pixels):width - max(0, pixels)]).mean((1, 2, 3)) for pixels in shifts]
    return shifts[np.argmin(costs, axis=0)]


def shifted(frames, pixels):
    """uint8 [n H W 3]: frames moved to the right by int64 [n] pixels; the edge fills what comes in."""
    columns = np.arange(frames.shape[2]) - np.asarray(pixels)[:, None]
    return np.take_along_axis(frames, columns.clip(0, frames.shape[2] - 1)[:, None, :, None], axis=2)


def follows_turn(before, after, yaw):
    """bool [n]: whether the picture moved against the turn, as it must; one that stands still does not.

    before, after  uint8 [n H W 3]
    yaw            float [n], degrees to the right, none of them 0
    """
    return np.sign(shift(before, after)) == -np.sign(yaw)


def turn_commands(material, player):
    """The turns in the actions of free play of r streams: (yaw, turns, steady), [r n] each.

    yaw     degrees to the right
    turns   bool, where it is TURN_DEGREES or more
    steady  bool, where besides the player does not slide sideways; without poses: holds no key that moves
            sideways
    """
    streams, space = material.streams[player], material.world.action_space
    chosen = slice(len(material.dreams(player))), slice(streams.context, None)
    actions = streams.actions[chosen]
    yaw = actions[..., len(space.keys)].astype(np.float64) * space.look_limit
    turns = np.abs(yaw) >= TURN_DEGREES
    if streams.poses is None:
        sideways = [i for i, key in enumerate(space.keys) if key in _SIDEWAYS_KEYS]
        return yaw, turns, turns & ~(actions[..., sideways] > 0.5).any(-1)
    return yaw, turns, turns & (np.abs(streams.moves[chosen][..., 1]) < _SIDEWAYS)


def turn_sign(material, player):
    """{turn_sign_accuracy, turn_sign: {real, shuffled, n, any_steps, any_steps_real, any_steps_n}} over free
    play.

    Frames count where the action turns by TURN_DEGREES or more and the player does not slide sideways;
    any_steps are all frames with such a turn. `real` is the same on the real frames, its ceiling; `shuffled`
    the dream's agreement with the turn of another of these frames, its floor: what a picture that moves at
    random would score.

    It only says that the picture moves the right way, not that what it then shows is right: a world moved to
    places that it has not learnt still scores high. What comes into view is judged by fidelity's
    shifted_last_psnr.
    """
    streams = material.streams[player]
    context = streams.context
    if not material.world.action_space.look_axes:
        return {}
    dreams = material.dreams(player)
    yaw, turns, steady = turn_commands(material, player)
    other = yaw.copy()
    other[steady] = np.random.default_rng(0).permutation(yaw[steady])

    def directions(frames):
        moved = np.zeros(turns.shape)
        s, i = np.nonzero(turns)
        if len(s):
            moved[turns] = np.sign(shift(frames[s, context + i - 1], frames[s, context + i]))
        return moved

    def accuracy(moved, chosen, given=yaw):
        return float((moved[chosen] == -np.sign(given[chosen])).mean()) if chosen.any() else math.nan

    dreamed, real = directions(dreams), directions(streams.frames[:len(dreams)])
    return {"turn_sign_accuracy": accuracy(dreamed, steady),
            "turn_sign": {"real": accuracy(real, steady), "shuffled": accuracy(dreamed, steady, other),
                          "n": int(steady.sum()), "any_steps": accuracy(dreamed, turns),
                          "any_steps_real": accuracy(real, turns), "any_steps_n": int(turns.sum())}}
