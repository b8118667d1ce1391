"""When walks die: true worlds live, melting ones die, and real frames of other places show the strictness."""
import numpy as np
import pytest

from tests.eval.turning import TurningGame, TurningWorld, material, texture
from worldplay.eval import survival
from worldplay.eval.drift import row


def test_survival_counts_a_walk_as_long_as_it_was_walked():
    assert survival.alive([[True, False, True], [True, True, True], [True]]) == [1.0, 0.5, 0.5]
    assert survival.alive([[False, True]]) == [0.0, 0.0] and survival.alive([]) == []


def test_short_walks_say_nothing_of_the_frames_after_the_long_one_has_died():
    shares = survival.alive([[True] * 20] * 5 + [[True] * 9 + [False] * 191])
    assert shares[8:20] == [1.0] + [pytest.approx(5 / 6)] * 11 and shares[20:] == [None] * 180


def test_a_true_world_survives_and_a_melting_one_dies(streams):
    true, melting = (survival.walks(material(streams, TurningWorld(blur=blur)), "explorer")["survival"]
                     for blur in (0, 1))
    assert true["frames"] == [50, 100] and true["walks"] == [1, 1], "free play here is shorter than is judged"
    assert true["alive"] == [1, 1] and melting["alive"] == [0, 0]
    assert true["dream"]["brightness_ratio"] == pytest.approx(true["real"]["brightness_ratio"])


def test_free_play_that_a_walk_repeats_is_not_counted_twice():
    game = TurningGame()
    long, walk = game.streams("explorer", 3, context=4, horizon=60), game.walk(0, 100, 4)
    long.frames[1], long.actions[1] = [*walk.frames, *walk.real][:64], walk.actions[:64]
    made = survival.walks(material({"explorer": long}, TurningWorld(), num_dreams=3), "explorer")["survival"]
    assert made["walks"] == [3, 1], "the walk, and free play from the two other starts"


def test_free_play_counts_as_a_short_walk_and_another_place_as_the_rules_own_strictness():
    bright, dark = (np.stack([row(texture(1) // part)] * 100) for part in (1, 3))
    real, reference = [bright, dark, bright[:60]], bright.mean(0)
    made = survival.survival(real, real, reference, 1.0)
    assert made["walks"] == [3, 2] and made["alive"] == [1, 1]
    assert made["real_elsewhere"][0] < 1, "bright frames are not those of the dark way"
