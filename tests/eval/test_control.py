"""Turns are found in pictures, and the figure of them tells a world that follows from one that does not."""
from dataclasses import replace

import numpy as np
import pytest

from tests.eval.turning import TurningWorld, material, texture
from worldplay.envs import open_env
from worldplay.envs.collect import play_rollout
from worldplay.eval import control
from worldplay.eval.streams import Material, held_out_seeds, stack


@pytest.fixture(scope="module")
def maze():
    world = open_env("doom-maze")
    yield world
    world.close()


@pytest.mark.parametrize("pixels", [-17, -3, 0, 2, 24])
def test_shift_is_measured(pixels):
    frame = texture(2)[None]
    assert control.shift(frame, np.roll(frame, pixels, axis=2)) == pytest.approx(pixels)


def test_turn_sign_both_ways():
    frame = np.stack([texture(seed) for seed in range(4)])
    to_the_left = np.roll(frame, -5, axis=2)
    right, left = np.full(4, 3.0), np.full(4, -3.0)
    assert control.follows_turn(frame, to_the_left, right).all()
    assert not control.follows_turn(frame, to_the_left, left).any()
    assert control.follows_turn(to_the_left, frame, left).all()
    assert not control.follows_turn(frame, frame, right).any(), "a picture that stands still does not follow"


def test_a_shift_fills_the_edge_with_its_last_column():
    frame = texture(1)[None]
    moved = control.shifted(np.concatenate([frame, frame]), np.array([3, -2]))
    assert np.array_equal(moved[0, :, 3:], frame[0, :, :-3]) and (moved[0, :, :3] == frame[0, :, :1]).all()
    assert np.array_equal(moved[1, :, :-2], frame[0, :, 2:])


@pytest.mark.parametrize("is_deaf", [False, True])
@pytest.mark.parametrize("has_poses", [False, True])
def test_turn_sign_tells_a_world_that_follows_from_a_deaf_one(streams, is_deaf, has_poses):
    if not has_poses:
        streams = {player: replace(each, poses=None) for player, each in streams.items()}
    figures = control.turn_sign(material(streams, TurningWorld(is_deaf=is_deaf)), "explorer")
    assert figures["turn_sign"]["n"] > 10 and figures["turn_sign"]["real"] == 1
    assert figures["turn_sign_accuracy"] == (0 if is_deaf else 1)
    assert figures["turn_sign"]["shuffled"] < 0.8, "half of the turns go the other way"


def test_the_real_game_reaches_the_ceiling_of_turn_sign(maze):
    real = stack((play_rollout(maze, num_frames=64, seed=seed) for seed in held_out_seeds(8)), context=4)
    made = Material(world=maze, source=None, streams={"explorer": real}, num_targets=0, num_dreams=8,
                    walks=())
    made._dreams["explorer"] = real.frames
    figures = control.turn_sign(made, "explorer")
    assert figures["turn_sign"]["n"] > 50 and figures["turn_sign_accuracy"] >= 0.97
