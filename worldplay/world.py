"""The contract that a dream, a real game and a recording all obey."""
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from worldplay.action import Action, ActionSpace
from worldplay.errors import WorldError


@runtime_checkable
class World(Protocol):
    """Something that shows a frame for every action; dreams, real games and recordings are alike here.

    name          what it was opened as
    action_space  the actions it understands
    frame_size    (H, W) pixels of every frame
    fps           frames of world time per second
    scenes        names `reset` takes as `scene`; the first is the default
    info          what the HUD and the sidecar say of it: device, dtype, steps, window, path, hash ...; a world that
                  reads text has its "prompt" here, and set_prompt(prompt), which changes it between steps
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
        """Yield the frames, uint8 [H W 3] RGB, that this action causes: one, or those of one latent or several.

        Where info has "frames_per_chunk", so many latents share the action, and its look is their sum.

        The frame is yielded as soon as it exists; bookkeeping follows when the iterator is asked again. An
        iterator that was not run to its end is a WorldError("unfinished_step") on the next call.
        """

    def close(self) -> None:
        """Free what it holds; calling it twice is fine."""


def check_world(world, num_steps=8, seed=3):
    """Play a world a little and raise AssertionError where it breaks the contract; tests run it on every world."""
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
            assert frame.flags.c_contiguous, f"frame {i} does not lie row by row in memory, as windows and encoders want"
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
