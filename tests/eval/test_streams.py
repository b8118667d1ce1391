"""Streams of real play: moves seen from the player, held-out seeds, actions encoded for another world."""
import numpy as np
import pytest

from tests.eval.turning import TurningWorld, material
from worldplay.action import Action, ActionSpace
from worldplay.data.frame_cache import is_held_out
from worldplay.eval.streams import Streams, held_out_seeds


def test_moves_are_seen_from_the_player():
    poses = np.zeros((1, 3, 4), np.float32)
    poses[0, :, :2] = [[0, 0], [0, 5], [3, 5]]
    poses[0, :, 3] = [355, 90, 90]  # looking along +y in the last two
    moves = Streams(np.zeros(0), np.zeros(0), poses, 1).moves
    assert moves[0, 1] == pytest.approx([5, 0, -95], abs=1e-5)
    assert moves[0, 2] == pytest.approx([0, 3, 0], abs=1e-5)


def test_seeds_belong_to_evaluation():
    seeds = held_out_seeds(60) + held_out_seeds(20, skip=60)
    assert len(set(seeds)) == 80 and all(map(is_held_out, seeds))


def test_actions_are_encoded_for_a_world_of_other_keys():
    mine = ActionSpace(("a", "mouse_left", "w"), 12.0, look_axes=1)
    theirs = ActionSpace(("w", "a"), 6.0, look_axes=1)
    done = [Action({"w", "mouse_left"}, (6.0, 0.0)), Action({"a"}, (-3.0, 0.0)), Action(),
            Action({"w"}, (12.0, 0.0))]
    vectors = np.stack([mine.encode(action) for action in done]).reshape(2, 2, -1)
    streams = Streams(np.zeros((2, 2, 4, 4, 3), np.uint8), vectors, np.zeros((2, 2, 4), np.float32), 1)
    other = streams.encoded_for(mine, theirs)
    assert [theirs.decode(vector) for vector in other.actions.reshape(4, -1)] == [
        Action({"w"}, (6.0, 0.0)), Action({"a"}, (-3.0, 0.0)), Action(), Action({"w"}, (6.0, 0.0))]
    assert np.array_equal(streams.encoded_for(mine, mine).actions, vectors)


def test_without_poses_an_action_says_who_moves():
    space = ActionSpace(("w",), 10.0, look_axes=1)
    actions = np.float32([[[1, 0], [1, 0], [0, 0.04], [0, -0.06]]])
    frames = np.broadcast_to(np.uint8([10, 20, 30, 40])[None, :, None, None, None], (1, 4, 8, 8, 3))
    moving = Streams(frames, actions, None, 1).is_moving(space)
    assert moving.tolist() == [[False, True, False, True]]


def test_without_poses_a_key_that_the_picture_does_not_answer_is_no_move():
    space = ActionSpace(("w",), 10.0, look_axes=1)
    actions = np.float32([[[0, 0], [1, 0], [1, 0], [1, 0], [1, 0], [0, 0]]])
    levels = np.uint8([10, 20, 20, 21, 33, 60])  # of the changes under w, 10, 0, 1 and 12, the mean is 5.75
    frames = np.broadcast_to(levels[None, :, None, None, None], (1, 6, 8, 8, 3))
    moving = Streams(frames, actions, None, 1).is_moving(space)
    assert moving.tolist() == [[False, True, False, False, True, False]]


def test_free_play_in_batches_is_the_free_play_of_each(streams):
    one, both = streams["explorer"], material(streams, TurningWorld())
    alone = [both.play(one.frames[i:i + 1], one.actions[i:i + 1], 4)[0] for i in range(6)]
    frames = np.concatenate([one.frames] * 3)  # more than a batch
    assert np.array_equal(both.play(frames, np.concatenate([one.actions] * 3), 4), np.stack(alone * 3))
