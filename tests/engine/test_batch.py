"""Many plays in a batch are each the play that the world alone would show; Gymnasium steps them together."""
import gymnasium
import numpy as np
import pytest

import worldplay
import worldplay.envs.gymnasium  # tells Gymnasium our names
from worldplay.errors import WorldError
from worldplay.eval.statistics import psnr

STEPS = 12  # more than the window holds


@pytest.fixture(scope="module")
def world():
    world = worldplay.load_world("doom-maze", device="cpu")
    yield world
    world.close()


@pytest.fixture(scope="module")
def actions(world):
    """float32 [STEPS 2 a]: encoded, another walk for each of two plays."""
    rng, space = np.random.default_rng(0), world.action_space
    keys = rng.integers(0, 2, (STEPS, 2, len(space.keys)))
    return np.concatenate([keys, rng.uniform(-1, 1, (STEPS, 2, space.look_axes))], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def batched(world, actions):
    """uint8 [1 + STEPS 2 H W 3]: from the second and the third scene."""
    batch = world.batch(2)
    first = batch.reset(["start-2", "start-3"], seed=5)
    return np.stack([first, *(batch.step(each) for each in actions)])


@pytest.mark.parametrize("play, scene", [(0, "start-2"), (1, "start-3")])
def test_a_play_in_a_batch_is_the_play_that_the_world_shows(world, actions, batched, play, scene):
    frames, space = [world.reset(scene, seed=5 + play)[-1]], world.action_space
    frames += [frame for vector in actions[:, play] for frame in world.step(space.decode(vector))]
    assert np.array_equal(batched[0, play], frames[0])
    assert psnr(batched[:, play], np.stack(frames)).min() > 40  # but for rounding
    assert len({frame.tobytes() for frame in batched[:, play]}) == 1 + STEPS


def test_the_plays_of_a_batch_do_not_see_each_other(world, actions, batched):
    other = actions.copy()
    other[:, 1] = 0
    batch = world.batch(2)
    batch.reset(["start-2", "start-5"], seed=5)
    frames = np.stack([batch.step(each) for each in other])
    assert np.array_equal(frames[:, 0], batched[1:, 0])
    assert not np.array_equal(frames[:, 1], batched[1:, 1])


def test_a_batch_begins_with_a_reset_and_leaves_the_world_as_it_is(world, actions):
    world.reset("start-1", seed=1)
    before = world.snapshot()
    with pytest.raises(WorldError, match="reset the batch"):
        world.batch(1).step(actions[0, :1])
    batch = world.batch(1)
    batch.reset(seed=2)
    batch.step(actions[0, :1])
    assert world.state.frame == before.frame and world.state.seed == 1


def test_gymnasium_makes_a_vector_environment_that_starts_again_at_its_horizon(actions):
    envs = gymnasium.make_vec("worldplay/Dream-v0", num_envs=2, vectorization_mode="vector_entry_point",
                              world="doom-maze", device="cpu", steps=1, horizon=3)
    first, _ = envs.reset(seed=4)
    assert first.shape == (2, *envs.single_observation_space.shape) == envs.observation_space.shape
    assert not np.array_equal(first[0], first[1])  # the scenes in turn
    ends = []
    for vectors in actions[:3]:
        frames, rewards, terminated, truncated, _ = envs.step(vectors)
        ends.append(bool(truncated.all()))
        assert frames in envs.observation_space and not rewards.any() and not terminated.any()
    assert ends == [False, False, True]
    again, _, _, truncated, _ = envs.step(actions[3])
    assert np.array_equal(again, first) and not truncated.any()
    for vectors in actions[:3]:
        other, *_ = envs.step(vectors)
    assert not np.array_equal(other, frames), "the second episode had the noise of the first"
    envs.reset(seed=4)
    for vectors in actions[:3]:
        same, *_ = envs.step(vectors)
    assert np.array_equal(same, frames)
    with pytest.raises(WorldError, match="1 scenes for 2 plays"):
        envs.reset(options={"scenes": ["start-1"]})
    chosen, _ = envs.reset(options={"scenes": ["start-4", "start-4"]})
    for vectors in actions[:3]:
        envs.step(vectors)
    again, *_ = envs.step(actions[3])
    assert np.array_equal(again, chosen) and np.array_equal(again[0], again[1])
    frames, *_ = envs.step(actions[0][[0, 0]])
    assert not np.array_equal(frames[0], frames[1])  # the same scene and actions, each with its own noise
    envs.close()
