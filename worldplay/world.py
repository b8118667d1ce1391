"""The interface of a playable world, which learned worlds, real games and recordings share."""
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from worldplay.action import Action, ActionSpace
from worldplay.errors import WorldError


@runtime_checkable
class World(Protocol):
    """Something that yields frames for actions: a learned world, a real game or a recording.

    name          what it was opened as
    action_space  the actions it understands
    frame_size    (H, W) pixels of every frame
    fps           frames of world time per second
    scenes        names `reset` takes as `scene`; the first is the default
    info          what the HUD and the sidecar say of it: device, dtype, steps, window, path, hash ...; a
                  world that reads text has its "prompt" here, and set_prompt(prompt), which changes it
                  between steps
    """
    name: str
    action_space: ActionSpace
    frame_size: tuple[int, int]
    fps: float
    scenes: tuple[str, ...]
    info: dict

    def reset(self, scene=None, *, frames=None, actions=None, seed=None) -> np.ndarray:
        """Start again; returns the context shown at the start, uint8 [n H W 3] RGB.

        scene            one of `scenes`; None is the first
        frames, actions  instead of a scene: real context, uint8 [n H W 3] and n Actions; actions[i] caused
                         frames[i], actions[0] is ignored
        seed             int; the same seed and actions give the same frames; None keeps the world's own
        """

    def step(self, action: Action) -> Iterator[np.ndarray]:
        """Yield the frames that this action causes, uint8 [H W 3] RGB: one, or those of one or more latents.

        Where info has "frames_per_chunk", that many latents share the action, and its look is their sum.

        A frame is yielded as soon as it is decoded; the KV cache is updated when the iterator is advanced
        again. The next call raises WorldError("unfinished_step") unless the iterator has been run to its end.
        """

    def close(self) -> None:
        """Free what it holds; calling it twice is fine."""


def check_world(world, num_steps=8, seed=3):
    """Play a few steps; AssertionError where a world breaks the contract. Tests run it on all worlds."""
    assert isinstance(world, World), f"{type(world).__name__} lacks a name of the World contract"
    height, width = world.frame_size
    assert world.fps > 0 and world.scenes, "fps must be above 0 and at least one scene named"

    def play():
        frames = list(world.reset(seed=seed))
        assert frames, "reset returned no frame"
        for i in range(num_steps):
            shown = list(world.step(_walk(world.action_space, i)))
            assert shown, f"step {i} yielded no frame"
            frames += shown
        for i, frame in enumerate(frames):
            assert frame.dtype == np.uint8 and frame.shape == (height, width, 3), \
                f"frame {i}: {frame.dtype} {frame.shape}, expected uint8 {(height, width, 3)}"
            assert frame.flags.c_contiguous, f"frame {i} is not C-contiguous, as windows and encoders expect"
        return np.stack(frames)

    first, second = play(), play()
    assert np.array_equal(first, second), "the same seed and actions gave other frames"
    world.reset(seed=seed)
    unfinished = world.step(_walk(world.action_space, 0))
    next(unfinished)
    try:
        next(iter(world.step(Action())))
    except WorldError as error:
        assert error.kind == "unfinished_step", f"an unfinished step raised {error.kind}"
    else:
        raise AssertionError("a step taken while the previous one was unfinished went through")
    world.reset(seed=seed)


def _walk(space, i):
    keys = [space.keys[i % len(space.keys)]] if space.keys else []
    return space.fit(Action(frozenset(keys), (space.look_limit * (-1) ** i, 0.0)))
