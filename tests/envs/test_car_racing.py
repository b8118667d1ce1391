"""Our CarRacing shows what Gymnasium's does, and the driver who collects it plays by its seed alone."""
import numpy as np
import pytest

from worldplay.envs import open_env
from worldplay.envs.collect import play_actions, play_rollout

OURS, DRIVER = "gym:worldplay.envs.car_racing:CarRacing", "worldplay.envs.driver:drive"


@pytest.fixture(scope="module")
def ours():
    world = open_env(OURS)
    yield world
    world.close()


@pytest.fixture(scope="module")
def driven(ours):
    return play_rollout(ours, num_frames=100, seed=3, player=DRIVER)


def test_its_pictures_are_those_of_gymnasium(ours, driven):
    """Over the zoom of the first second and beyond it, at every direction of the car that comes up."""
    original = open_env("gym:CarRacing-v3?repeat=2")
    assert (ours.action_space, ours.fps, ours.frame_size) == (
        original.action_space, original.fps, original.frame_size)
    shown = play_actions(original, iter(driven.actions[1:]), seed=3)
    assert np.array_equal(shown.frames, driven.frames)
    assert len({frame.tobytes() for frame in driven.frames}) > 80, "the car hardly moved"
    original.close()


def test_an_episode_that_ends_at_the_first_of_two_steps_shows_its_end(ours):
    car = ours.env.unwrapped
    ours.reset(seed=3)
    before = car.state
    car.car.hull.position = (1e4, 0.0)  # far outside of the field, where the game ends
    observation, reward, terminated, truncated, info = car.step(np.zeros(3, np.float32))
    assert terminated and reward == pytest.approx(-100)
    assert observation.shape == (96, 96, 3) and not np.array_equal(observation, before)


def test_the_driver_plays_by_its_seed_and_presses_every_key(ours, driven):
    again = play_rollout(ours, num_frames=100, seed=3, player=DRIVER)
    assert np.array_equal(again.actions, driven.actions) and np.array_equal(again.frames, driven.frames)
    other = play_rollout(ours, num_frames=500, seed=4, player=DRIVER)
    assert not np.array_equal(other.actions[:100], driven.actions)
    assert set(ours.action_space.keys) == {"a", "d", "s", "w"} and other.actions.max(0).min() == 1
