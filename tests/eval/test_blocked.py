"""Walls: a player who walks into one stands still in the real game; the figure says if the dream's does."""
import numpy as np
import pytest

from tests.eval.turning import HEIGHT, WIDTH, TurningGame, TurningWorld, texture
from worldplay.data.frame_cache import Rollout
from worldplay.eval import blocked
from worldplay.eval.statistics import motion
from worldplay.eval.streams import Material, held_out_seeds

STEP = 3  # pixels and map units of a frame


class Corridor(TurningGame):
    """A game in which w moves the picture by STEP pixels a frame, until a wall after 20 to 40 frames."""

    def play(self, scripts):
        return [_walked(vectors, seed) for seed, vectors in scripts]


def _walked(vectors, seed):
    actions = np.concatenate([np.zeros_like(vectors[:1]), vectors])
    wall = 20 + seed % 21
    x = np.minimum(np.cumsum(actions[:, 0]), wall)
    frames = np.stack([np.roll(texture(seed), int(STEP * steps), axis=1) for steps in x])
    poses = np.zeros((len(x), 4), np.float32)
    poses[:, 0] = STEP * x
    return Rollout(frames, actions, poses, seed)


class Dream(TurningWorld):
    """It stands still behind `holds` frames of free play, or never."""

    def __init__(self, holds):
        super().__init__()
        self.holds = holds

    def follow(self, frames, actions, others=(), *, start, is_free=False, seed=None):
        last = frames[:, start - 1]
        for i in range(actions.shape[1] - start):
            last = np.roll(last, STEP if i < self.holds else 0, axis=2)
            yield [last]


def _figures(holds, source=None):
    source = source or Corridor()
    made = Material(world=Dream(holds), source=source, streams={"explorer": source.streams(
        "explorer", 2, context=4, horizon=4)}, num_targets=0, num_dreams=0, walks=(), num_trials=5)
    return blocked.blocked(made, "explorer")["blocked"]


def test_a_world_whose_walls_hold_stands_still_as_the_real_game_does():
    figures = _figures(holds=4)
    assert (figures["dream"], figures["real"], figures["codec"], figures["walking"]) == (1, 1, 1, 0)
    assert figures["n"] == 4 * 12 and figures["walking_n"] == 4 * 4, "of 15 ways, those by w"


def test_a_world_that_walks_through_walls_does_not():
    figures = _figures(holds=99)
    assert (figures["dream"], figures["real"], figures["walking"]) == (0, 1, 0)


def test_a_world_that_shows_one_picture_gives_itself_away():
    figures = _figures(holds=0)
    assert (figures["dream"], figures["walking"], figures["walking_real"]) == (1, 1, 0)


def test_a_player_who_never_meets_a_wall_gives_nothing_to_measure():
    figures = _figures(holds=4, source=TurningGame())
    assert figures["n"] == 0 and np.isnan(figures["dream"])


def test_the_part_around_the_wall_is_cut_out():
    vectors = np.zeros((60, 5), np.float32)
    vectors[:, 0] = 1
    whole = _walked(vectors, held_out_seeds(1)[0])
    part = blocked._cut(whole, context=4)
    speed = np.diff(part.poses[:, 0])
    assert len(part.frames) == 4 + 4 + 12 and (speed[:7] == STEP).all() and not speed[7:].any()
    vectors[10:] = 0  # the player lets go before the wall is near
    assert blocked._cut(_walked(vectors[:12], 19), context=4) is None


def test_motion_is_the_mean_change_of_brightness():
    frames = np.zeros((1, 3, HEIGHT, WIDTH, 3), np.uint8)
    frames[0, 2] = 10
    assert motion(frames).tolist() == [[0, pytest.approx(10, abs=1e-3)]]
