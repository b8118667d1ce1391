"""Scripted players: what a person at the keys might do, as a pure function of a seed."""
import numpy as np

# what the explorer's left hand does for a while, and how often; a key that a world lacks is left out
_EXPLORER_KEYS = (("w", 9), ("w a", 2), ("w d", 2), ("a", 2), ("d", 2), ("s", 2),
                  ("s a", 0.5), ("s d", 0.5), ("", 2.5))
_TESTER_KEYS = (("w", 10), ("", 4), ("s", 1), ("a", 0.7), ("d", 0.7))


def explorer(space, num_frames, seed):
    """Actions that roam: walks, strafes, smooth and flick turns, stops, taps, shots; for training.

    space     the world's ActionSpace
    Returns   float32 [n a], encoded actions; the same for the same arguments
    """
    rng = np.random.default_rng([seed, 1])
    actions = np.zeros((num_frames, space.num_channels), np.float32)
    _hold(actions, space, rng, _EXPLORER_KEYS, lambda: int(rng.integers(1, 4) if rng.random() < 0.2
                                                          else rng.integers(4, 36)))
    _fire(actions, space, rng)
    if space.look_axes:
        actions[:, len(space.keys)] = _roaming_yaw(rng, num_frames, space.look_limit) / space.look_limit
    _rest(actions, rng)
    return actions


def tester(space, num_frames, seed):
    """Actions unlike the explorer's: long straight runs, fast turns, idling, tapped keys; for evaluation.

    space     the world's ActionSpace
    Returns   float32 [n a], encoded actions; the same for the same arguments
    """
    rng = np.random.default_rng([seed, 2])
    actions = np.zeros((num_frames, space.num_channels), np.float32)
    yaw = np.zeros(num_frames)
    start = 0
    while start < num_frames:
        kind = rng.choice(4, p=(0.24, 0.44, 0.12, 0.2))
        length = int(rng.integers(*((24, 70), (4, 14), (10, 30), (12, 30))[kind]))
        part = slice(start, start + length)
        if kind == 0:
            _press(actions[part], space, "w")
        elif kind == 1:
            yaw[part] = rng.choice((-1, 1)) * rng.uniform(0.6, 1.0) * space.look_limit
            _press(actions[part], space, rng.choice(("w", "")))
        elif kind == 3:
            _tap(actions[part], space, rng)
        start += length
    _fire(actions, space, rng)
    if space.look_axes:
        actions[:, len(space.keys)] = yaw / space.look_limit
    return actions


def stroller(space, num_frames, seed):
    """The explorer's actions with stretches that are hard to predict: wall slides, slow turns, standing.

    space     the world's ActionSpace
    Returns   float32 [n a], encoded actions; the same for the same arguments
    """
    rng = np.random.default_rng([seed, 3])
    actions = explorer(space, num_frames, seed)
    yaw = np.zeros((num_frames, 1), np.float32)
    if space.look_axes:
        yaw = actions[:, len(space.keys):len(space.keys) + 1]
    start = int(rng.integers(0, 60))
    while start < num_frames:
        kind = rng.choice(3, p=(0.4, 0.3, 0.3))
        length = int(rng.integers(*((20, 80), (16, 50), (10, 40))[kind]))
        part = slice(start, start + length)
        actions[part] = 0
        turn = rng.choice((-1, 1)) * _eased(length)[:num_frames - start, None] / space.look_limit
        if kind == 0:  # into a wall and along it, wherever the next one is
            keys = rng.choice(("w", "w a", "w d", "s a", "s d"), p=(0.3, 0.3, 0.3, 0.05, 0.05))
            _press(actions[part], space, str(keys))
            yaw[part] = turn * rng.choice((0, 0.4, 1.0, 2.0))
        elif kind == 1:  # a look around at walking pace
            _press(actions[part], space, str(rng.choice(("", "w", "a", "d"), p=(0.55, 0.25, 0.1, 0.1))))
            yaw[part] = turn * np.exp(rng.uniform(np.log(0.3), np.log(4)))
        start += length + int(rng.integers(10, 90))
    return actions


def random(space, num_frames, seed):
    """Actions that hold any one key, any two or none for a while, and turn like the explorer.

    space     the world's ActionSpace
    Returns   float32 [n a], encoded actions; the same for the same arguments
    """
    rng = np.random.default_rng([seed, 4])
    actions = np.zeros((num_frames, space.num_channels), np.float32)
    start = 0
    while start < num_frames:
        length = int(np.exp(rng.uniform(np.log(2), np.log(24))))
        held = rng.choice(len(space.keys), min(len(space.keys), rng.choice(3, p=(0.2, 0.5, 0.3))),
                          replace=False)
        actions[start:start + length, held] = 1
        start += length
    if space.look_axes:
        actions[:, len(space.keys)] = _roaming_yaw(rng, num_frames, space.look_limit) / space.look_limit
    return actions


PLAYERS = {"explorer": explorer, "tester": tester, "stroller": stroller, "random": random}


def _rest(actions, rng):
    at = int(rng.integers(20, 300))
    while at < len(actions):
        length = int(rng.integers(6, 30))
        actions[at:at + length] = 0
        at += length + int(rng.integers(60, 400))


def _press(actions, space, keys):
    for key in keys.split():
        if key in space.keys:
            actions[:, space.keys.index(key)] = 1


def _hold(actions, space, rng, table, draw_length):
    names, weights = [keys for keys, _ in table], np.array([weight for _, weight in table], float)
    start = 0
    while start < len(actions):
        length = draw_length()
        _press(actions[start:start + length], space, names[rng.choice(len(names), p=weights / weights.sum())])
        start += length


def _tap(actions, space, rng):
    at = 0
    while at < len(actions):
        _press(actions[at:at + int(rng.integers(1, 3))], space, str(rng.choice(("w", "a", "s", "d"))))
        at += int(rng.integers(3, 7))


def _fire(actions, space, rng):
    if "mouse_left" not in space.keys:
        return
    at = int(rng.integers(0, 40))
    while at < len(actions):
        length = int(rng.integers(1, 3) if rng.random() < 0.5 else rng.integers(3, 20))
        _press(actions[at:at + length], space, "mouse_left")
        at += length + int(rng.integers(5, 60))


def _roaming_yaw(rng, num_frames, limit):
    """Degrees per frame [n]: eased turns of every speed, flicks, swaying and looking straight ahead."""
    yaw = np.zeros(num_frames + 64)
    start = 0
    while start < num_frames:
        kind = rng.choice(4, p=(0.46, 0.14, 0.13, 0.27))
        sign = rng.choice((-1.0, 1.0))
        if kind == 0:
            turn = sign * _speed(rng, limit) * _eased(int(rng.integers(5, 32)))
        elif kind == 1:
            turn = sign * rng.uniform(0.6, 1.0) * limit * np.ones(int(rng.integers(2, 8)))
        elif kind == 2:
            steps = np.arange(int(rng.integers(12, 40)))
            turn = sign * rng.uniform(0.2, 0.7) * limit * np.sin(2 * np.pi * steps / rng.uniform(10, 24))
        else:
            turn = np.zeros(int(rng.integers(4, 20)))
        yaw[start:start + len(turn)] = turn
        start += len(turn)
    moving = yaw != 0
    yaw[moving] += rng.normal(0, 0.3, moving.sum())
    return np.clip(yaw[:num_frames], -limit, limit)


def _speed(rng, limit):
    # as many slow turns as fast ones, on a logarithmic scale
    return np.exp(rng.uniform(np.log(1.5), np.log(limit)))


def _eased(length):
    return np.minimum(1, np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / 3)
