"""Sources of held-out play: a data set gives streams and walks of its held-out episodes, as a game does."""
import numpy as np
import pytest

from tests.eval.turning import TurningWorld, material
from worldplay.data.frame_cache import Source, is_held_out, write_frame_cache
from worldplay.data.lerobot_writer import ShardWriter, finish
from worldplay.envs.collect import play_rollout
from worldplay.errors import WorldError
from worldplay.eval import report
from worldplay.eval.sources import Game, Recording, open_source

LENGTHS = {17: 40, 18: 30, 19: 30, 39: 12, 59: 55}  # of the episode of each seed


@pytest.fixture(scope="module")
def rollouts():
    world = TurningWorld()
    return {seed: play_rollout(world, num_frames=length + 1, seed=seed) for seed, length in LENGTHS.items()}


@pytest.fixture(scope="module", params=["cache", "lerobot"])
def folder(request, rollouts, tmp_path_factory):
    """A data set with three held-out episodes of 30, 12 and 55 frames."""
    out, source = tmp_path_factory.mktemp("data") / request.param, Source.of(TurningWorld())
    if request.param == "cache":
        write_frame_cache(rollouts.values(), out, world=source,
                          num_frames=sum(LENGTHS.values()) + len(LENGTHS))
    else:
        writer = ShardWriter(out, source, shard=0, player="explorer")
        for rollout in rollouts.values():
            writer.add(rollout)
        finish(out, source, [writer.close()], player="explorer")
    return out


def test_streams_are_pieces_of_the_held_out_episodes(folder, rollouts):
    streams = Recording(folder).streams("recorded", 10, context=4, horizon=11)
    whole = [rollouts[seed] for seed in LENGTHS if is_held_out(seed)]
    assert streams.frames.shape[:2] == (2 + 0 + 3, 15), "of 30, 12 and 55 frames"
    first, third = whole[0], whole[2]
    # one of each episode in turn
    for found, rollout, start in zip(range(5), (first, third, first, third, third), (0, 0, 15, 15, 30)):
        part = slice(start, start + 15)
        assert np.array_equal(streams.frames[found], rollout.frames[part])
        assert np.array_equal(streams.actions[found], rollout.actions[part])
        assert np.array_equal(streams.poses[found], rollout.poses[part])
    assert streams.episodes.tolist() == [0, 2, 0, 2, 2]
    assert len(Recording(folder).streams("recorded", 3, context=4, horizon=11).frames) == 3


def test_streams_are_as_long_as_the_longest_episode_allows(folder):
    assert Recording(folder).streams("recorded", 3, context=4, horizon=500).frames.shape[1] in (55, 56)
    with pytest.raises(ValueError,
                       match="longest held-out episode has 5[56] frames, and a world is given 60"):
        Recording(folder).streams("recorded", 3, context=60, horizon=4)


def test_a_walk_goes_from_episode_to_episode_and_begins_anew(folder, rollouts):
    source = Recording(folder)
    walk, other = source.walk(0, 200, 20), source.walk(1, 10, 20)
    real = np.stack(list(walk.real))
    assert walk.actions.shape == (220, 5) and len(real) == 200 and len(walk.frames) == 20
    first, last = rollouts[19], rollouts[59]
    of_first = len(first.frames) - (folder.name == "lerobot")  # a data set drops the last frame
    assert np.array_equal(walk.frames, first.frames[:20])
    assert np.array_equal(real[:of_first - 20], first.frames[20:of_first])
    assert np.array_equal(real[of_first - 20], last.frames[1]) and np.array_equal(walk.actions[of_first],
                                                                                  last.actions[1])
    assert np.array_equal(other.frames, last.frames[:20])
    assert not np.array_equal(real[-1], real[0])


def test_no_walk_is_the_copy_of_another(folder):
    """Of the two episodes that are longer than the context."""
    source = Recording(folder)
    starts = [source.walk(number, 4, 20) for number in range(6)]
    ways = {walk.frames.tobytes() + walk.actions.tobytes() for walk in starts}
    assert len(ways) == 6 and all(len(walk.frames) == 20 and len(walk.actions) == 24 for walk in starts)


def test_a_world_is_evaluated_on_a_data_set(folder):
    source, world = open_source(folder), TurningWorld()
    (made,) = report.prepare([world], source, report.Plan(
        streams=4, targets=4, dreams=2, horizon=16, walks=(100,), trials=3), is_own=False)
    figures = report.evaluate(made)
    assert figures["player"] == "recorded" and not figures["other_players"]
    assert figures["against"] == str(folder) and figures["moving"]["psnr"] > 55
    assert figures["turn_sign"]["real"] == figures["turn_sign_accuracy"] == 1
    assert set(figures["drift"]) == {"100"} and "blocked" not in figures
    assert material(made.streams, world).num_targets, "the same streams serve the suites one by one"


def test_what_is_no_source_is_said(tmp_path, rollouts):
    with pytest.raises(WorldError, match="nowhere is no environment .there are doom-maze, .*, no folder"):
        open_source("nowhere")
    with pytest.raises(WorldError, match="gym:CarRacing-v3: a game of Gymnasium .*--against RUN/data"):
        open_source("gym:CarRacing-v3")
    with pytest.raises(ValueError, match="no finished data set"):
        open_source(tmp_path)
    cache = write_frame_cache([rollouts[17]], tmp_path / "new", world=Source.of(TurningWorld()),
                              num_frames=41)
    assert len(cache.episodes) == 1
    with pytest.raises(ValueError, match="no episode is held out"):
        open_source(tmp_path / "new")


def test_a_folder_that_is_called_as_a_game_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "doom-maze").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_source("doom-maze").is_game


def test_a_game_plays_scripts_from_held_out_starts():
    game = Game("doom-maze", skip=3)
    try:
        assert all(map(is_held_out, game.seeds(4))) and game.seeds(1)[0] == Game("doom-maze").seeds(4)[3]
        vectors = np.zeros((6, game.action_space.num_channels), np.float32)
        vectors[:, 0] = 1
        (rollout,) = game.play([(game.seeds(1)[0], vectors)])
        walk = game.walk(0, 6, context=3)
        real = list(walk.real)
        assert np.array_equal(rollout.actions[1:], vectors) and not rollout.actions[0].any()
        assert np.array_equal(rollout.frames[0], walk.frames[0]) and len(real) == 6 and len(walk.actions) == 9
    finally:
        game.close()
