"""A world that needs no model: its frame shows its action, and it is slow, late or broken on demand."""
import time

import numpy as np

from worldplay.action import ActionSpace
from worldplay.errors import WorldError

SPACE = ActionSpace(keys=("w", "a", "s", "d", "mouse_left"), look_limit=12.0, look_axes=1)
BLOCK = 16  # pixels of the square that lights up while a key is down
TINTS = ((1.0, 0.8, 0.6), (0.6, 1.0, 0.8), (0.8, 0.6, 1.0))  # red, green, blue


class FakeWorld:
    """A square per key, lit while it is down (`keys_shown`), bands that turn with the yaw, and on the upper
    edge a clock that moves with every frame.

    delay    seconds before a frame; commit seconds after it
    frames   frames per step
    fail_at  number of the step that raises, counted over all resets
    error    what it raises
    prompt   what it shows at first, if it reads text: its colours (`tint_shown`); a text that begins with
             "no" is one that it cannot read, and `reading` is how many seconds it takes to
    calls    what was asked of it, in order, with times
    """

    def __init__(self, *, fps=20.0, delay=0.0, commit=0.0, frames=1, fail_at=None, error=None, prompt=None,
                 reading=0.0):
        self.name, self.action_space, self.frame_size, self.fps = "fake", SPACE, (96, 128), fps
        self.scenes = ("one", "two")
        self.info = {"device": "cpu", "dtype": "float32", "steps": 2, "path": "eager", "seed": 0,
                     "env": "none", "world_hash": "f00d"}
        self.delay, self.commit, self.frames, self.fail_at = delay, commit, frames, fail_at
        self.error = error or WorldError("device", "the device went away; plug it in again")
        if prompt is not None:
            self.info["prompt"] = prompt
        self.reading = reading
        self.calls, self.actions, self._yaw, self._count, self._is_mid_step = [], [], 0.0, 0, False

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        scene = scene or self.scenes[0]
        if scene not in self.scenes:
            raise WorldError("bad_scene", f"fake has no scene {scene!r}; it has {', '.join(self.scenes)}")
        self.calls.append(("reset", scene, time.perf_counter()))
        self._yaw, self._count, self._is_mid_step = 40.0 * self.scenes.index(scene), 0, False
        return self._draw(frozenset())[None] if frames is None else frames

    def step(self, action):
        if self._is_mid_step:
            raise WorldError("unfinished_step", "the step before was not finished")
        self.calls.append(("step", action, time.perf_counter()))
        self.actions.append(action)
        if self.fail_at == len(self.actions):
            raise self.error
        self._is_mid_step = True
        time.sleep(self.delay(len(self.actions)) if callable(self.delay) else self.delay)
        self._yaw += action.look[0]
        for _ in range(self.frames):
            self._count += 1
            yield self._draw(action.keys)
        time.sleep(self.commit)
        self.calls.append(("committed", action, time.perf_counter()))
        self._is_mid_step = False

    def set_prompt(self, prompt):
        self.calls.append(("prompt", prompt, time.perf_counter()))
        assert not self._is_mid_step and "prompt" in self.info
        time.sleep(self.reading)
        if prompt.startswith("no"):
            raise WorldError("bad_prompt", f"prompt file {prompt} does not exist")
        self.info["prompt"] = prompt

    def close(self):
        self.calls.append(("close", None, time.perf_counter()))

    def _draw(self, keys):
        height, width = self.frame_size
        bands = 90 + 40 * np.sin((np.arange(width) / 3 + self._yaw) / 4)
        grey = np.repeat(np.broadcast_to(bands, (height, width))[..., None], 3, 2)
        frame = grey * TINTS[tint_of(self.info.get("prompt", ""))]
        clock = 4 * self._count % width
        frame[:8, clock:clock + 8] = 255
        for i, key in enumerate(self.action_space.keys):
            frame[-BLOCK:, i * BLOCK:(i + 1) * BLOCK] = 240 if key in keys else 10
        return frame.astype(np.uint8)


def keys_shown(frame):
    """The keys whose squares are lit in a frame, also in a lossy one."""
    squares = [frame[-BLOCK + 4:-4, i * BLOCK + 4:(i + 1) * BLOCK - 4] for i in range(len(SPACE.keys))]
    return frozenset(key for key, square in zip(SPACE.keys, squares) if square.mean() > 128)


def tint_of(prompt):
    """Number of the colour in which a text is shown."""
    return len(prompt) % len(TINTS)


def tint_shown(frame):
    """The colour that a frame is in, also a lossy one."""
    return int(frame[16:-BLOCK].mean((0, 1)).argmax())
