"""Coming back: full turns and walks there and back end where they began; the figure tells who remembers."""
import numpy as np
import pytest

from tests.eval.turning import TurningGame, TurningWorld, material, texture
from worldplay.action import ActionSpace
from worldplay.eval import revisit
from worldplay.eval.sources import Game
from worldplay.eval.statistics import PSNR_CAP


def test_a_turn_is_a_full_one_within_the_limit():
    for limit in (12.0, 7.0, 100.0):
        space = ActionSpace(("w",), limit, look_axes=2)
        vectors = revisit.turn_around(space)
        degrees = [space.decode(vector).look[0] for vector in vectors]
        assert sum(degrees) == pytest.approx(360, abs=1e-3) and max(degrees) < limit


def test_worlds_without_look_or_keys_have_fewer_ways():
    assert set(revisit.scripts(ActionSpace(("w", "s"), 12.0, look_axes=0))) == {"walk"}
    assert set(revisit.scripts(ActionSpace(("up",), 12.0, look_axes=1))) == {"turn"}


def test_the_true_world_is_still_there_and_a_forgetful_one_is_not(streams):
    true = revisit.revisit(material(streams, TurningWorld()), "explorer")["revisit"]
    assert true["psnr"] == pytest.approx(PSNR_CAP) and true["above_18db"] == 1
    assert true["turn"]["n"] == true["n"] == 2
    assert true["elsewhere_psnr"] < 12 < true["codec_psnr"]
    forgetful = TurningWorld()

    def follow(frames, actions, others=(), *, start, is_free=False, seed=None):
        for i in range(start, actions.shape[1]):
            yield [np.stack([texture(i)] * len(actions))]
    forgetful.follow = follow
    lost = revisit.revisit(material(streams, forgetful), "explorer")["revisit"]
    assert lost["psnr"] < 12 and lost["above_18db"] == 0


def test_ways_that_end_elsewhere_do_not_count():
    poses = np.zeros((10, 4))
    assert revisit._comes_back(poses, 2, "turn") and not revisit._comes_back(poses, 2,
                                                                             "walk"), "it never left"
    poses[4:8, 0] = 100
    assert revisit._comes_back(poses, 2, "walk")
    poses[-1, 3] = 355
    assert revisit._comes_back(poses, 2, "walk")
    for away in ((30, 0), (0, 20)):
        poses[-1, [0, 3]] = away
        assert not revisit._comes_back(poses, 2, "walk")


def test_the_real_game_comes_back_to_the_same_picture():
    game = Game("doom-maze")
    made = material({"explorer": None}, TurningWorld(), source=game, num_trials=2)
    made.world.action_space = game.action_space
    try:
        found = revisit._returns(made, 4)
    finally:
        game.close()
    assert set(found) == {"turn", "walk"}
    assert TurningGame.is_game == game.is_game
    for streams_back in found.values():
        assert len(streams_back.frames) == 2
        start, end = streams_back.frames[:, 3].astype(int), streams_back.frames[:, -1].astype(int)
        assert np.abs(start - end).mean() < 12, "levels: a few map units away at most"
