"""Merged and split data sets hold the episodes that went in, pixel for pixel, on the same held-out side."""
from dataclasses import replace

import numpy as np
import pytest

from tests.data.test_lerobot import ROLLOUTS, SOURCE, noise_rollout, write_folder
from worldplay.data import lerobot, lerobot_writer
from worldplay.data.frame_cache import is_held_out
from worldplay.data.rearrange import chosen_episodes, run_merge, run_split


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "noise")


def write(folder, rollouts, source=SOURCE):
    writer = lerobot_writer.ShardWriter(folder, source, shard=0, player="tester")
    for rollout in rollouts:
        writer.add(rollout)
    lerobot_writer.finish(folder, source, [writer.close()], player="tester")
    return folder


def equal(folder, rollouts):
    """Whether a verified data set holds these, actions of the last rows and poses included."""
    layout = lerobot.verify(folder)
    read = list(lerobot.LeRobotFolder.open(folder).rollouts())
    assert len(read) == len(rollouts)
    for ours, theirs, episode in zip(read, rollouts, layout.episodes):
        rows = layout.rows(episode, ["action", "observation.state"])
        assert np.array_equal(ours.frames, theirs.frames[:-1]) and ours.seed == theirs.seed
        assert np.array_equal(rows["action"], theirs.actions[1:])
        assert np.array_equal(rows["observation.state"], theirs.poses[:-1])


def test_a_split_holds_the_chosen_episodes_and_a_merge_puts_them_together_again(written, tmp_path):
    made = run_split(written, episodes="1:", out=tmp_path / "later")
    assert made["episodes"] == 2 and made["held_out_episodes"] == sum(
        is_held_out(rollout.seed) for rollout in ROLLOUTS[1:])
    run_split(written, episodes="0", out=tmp_path / "first")
    equal(tmp_path / "later", ROLLOUTS[1:])
    made = run_merge([tmp_path / "first", tmp_path / "later"], out=tmp_path / "both")
    assert made["frames"] == lerobot.verify(written).num_frames
    equal(tmp_path / "both", ROLLOUTS)


def other_play(**changes):
    """A rollout that is in no other set."""
    return replace(noise_rollout(40, 77), **changes)


def test_poses_stay_where_all_sets_have_them(written, tmp_path):
    without = write(tmp_path / "without", [other_play(poses=None)])
    run_merge([written, without], out=tmp_path / "both")
    opened = lerobot.LeRobotFolder.open(tmp_path / "both")
    assert not opened.has_poses and len(opened.episodes) == len(ROLLOUTS) + 1
    assert opened.info["worldplay"]["player"] == "explorer and tester"
    tasks = ["explorer plays noise"] * len(ROLLOUTS) + ["tester plays noise"]
    assert [rollout.text for rollout in opened.rollouts()] == tasks, "every episode keeps its own"
    lerobot.verify(tmp_path / "both")


def test_turns_are_encoded_for_the_largest_of_all_sets(written, tmp_path):
    space = SOURCE.action_space
    twice = replace(SOURCE, action_space=replace(space, look_limit=2 * space.look_limit))
    rollout = other_play()
    run_merge([written, write(tmp_path / "twice", [rollout], twice)], out=tmp_path / "both")
    layout = lerobot.verify(tmp_path / "both")
    merged = lerobot.LeRobotFolder.open(tmp_path / "both").source.action_space
    assert merged == twice.action_space
    for episode, exact, own in ((0, ROLLOUTS[0], space), (len(ROLLOUTS), rollout, twice.action_space)):
        vectors = layout.rows(layout.episodes[episode], ["action"])["action"]
        for vector, before in zip(vectors, exact.actions[1:]):
            assert merged.decode(vector).keys == own.decode(before).keys
            assert merged.decode(vector).look == pytest.approx(own.decode(before).look, abs=1e-4)


def test_sets_of_different_play_are_not_merged_and_nothing_is_written(written, tmp_path):
    faster = write(tmp_path / "faster", [other_play()], replace(SOURCE, fps=50.0))
    with pytest.raises(ValueError, match=r"differ in fps \(50.0 and"):
        run_merge([written, faster], out=tmp_path / "both")
    named = write(tmp_path / "named", [other_play()], replace(SOURCE, name="mine"))
    with pytest.raises(ValueError, match="differ in environment .* --name"):
        run_merge([written, named], out=tmp_path / "both")
    with pytest.raises(ValueError, match="each once"):
        run_merge([written, written], out=tmp_path / "both")
    assert not (tmp_path / "both").exists()
    with pytest.raises(ValueError, match="already holds something"):
        run_merge([written, write(tmp_path / "more", [other_play()])], out=tmp_path / "faster")


def test_the_same_play_is_not_merged_twice_because_it_may_be_held_out_in_one_of_them(written, tmp_path):
    part = write(tmp_path / "part", [other_play(), ROLLOUTS[1]])
    with pytest.raises(ValueError, match="hold the same play"):
        run_merge([written, part], out=tmp_path / "both")
    clip = {"name": "walk", "seed": 1, "frames": 40, "world_hash": None, "lossy": True}
    sets = []
    for name, seed in (("a", 1), ("b", 2)):
        writer = lerobot_writer.ShardWriter(tmp_path / name, SOURCE, shard=0, player="a player")
        writer.add(noise_rollout(40, seed))
        lerobot_writer.finish(tmp_path / name, SOURCE, [writer.close()], player="a player", clips=[clip])
        sets.append(tmp_path / name)
    with pytest.raises(ValueError, match="hold the same play"):
        run_merge(sets, out=tmp_path / "both")
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("text, chosen", [("0:3", [0, 1, 2]), ("7,2:4", [2, 3, 7]), (":2,8:", [0, 1, 8, 9])])
def test_episodes_are_chosen_as_python_slices_are(text, chosen):
    assert chosen_episodes(text, 10) == chosen


@pytest.mark.parametrize("text, said", [("10", "episode 10; there are 0 to 9"), ("3:3", "none"),
                                        ("a", "expected numbers"), ("-1", "expected numbers")])
def test_what_chooses_nothing_is_said(text, said):
    with pytest.raises(ValueError, match=said):
        chosen_episodes(text, 10)
