"""Clips played again: bit-equal where nothing changed, and a clear line where one cannot be compared."""
import pytest

from tests.eval.turning import TurningWorld, texture
from worldplay.action import Action
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.envs import open_env
from worldplay.errors import WorldError
from worldplay.eval import fidelity, replay


@pytest.fixture(scope="module")
def maze():
    world = open_env("doom-maze")
    yield world
    world.close()


def test_a_clip_that_cannot_be_compared_is_said_before_it_is_played(tmp_path, monkeypatch):
    monkeypatch.setattr(replay, "open_for", lambda *arguments: pytest.fail("the world was opened"))
    frame = texture(0)
    header = describe(TurningWorld(), scene="start")
    writer = ClipWriter(tmp_path / "a", header, actions=[Action()] * 9, first=0)
    for i in range(9):
        writer.add(frame, i, Action(), {})
    writer.finish()
    writer.wait()
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").mkdir()
    for out, kind, words in (("a.mp4", ValueError, "the clip itself"), ("b.mp4", OSError, "it is a folder")):
        with pytest.raises(kind, match=words):
            replay.run_replay(tmp_path / "a", out=tmp_path / out)
    for kept in (0, 0.5, 0.9):
        (tmp_path / "a.mp4").write_bytes(whole[:round(kept * len(whole))])
        with pytest.raises(WorldError, match="a.mp4: its video is damaged"):
            replay.run_replay(tmp_path / "a", out=tmp_path / "c.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.mp4", "b.mp4"]


def test_a_clip_of_the_real_game_replays_bit_equal(maze, tmp_path):
    maze.reset(seed=7)
    actions = [Action(), *[Action(frozenset({"w"}), (3.0, 0.0))] * 12]
    header = describe(maze, scene="start") | {"seed": 7}

    def record(path, actions, played):
        frames = [maze.reset(seed=7)[-1], *(frame for action in played[1:] for frame in maze.step(action))]
        writer = ClipWriter(path, header, actions=actions[:4], first=3)
        for i in range(3, len(frames)):
            writer.add(frames[i], i, actions[i], {})
        writer.finish()
        writer.wait()

    record(tmp_path / "true", actions, actions)
    figures = replay.run_replay(tmp_path / "true", out=tmp_path / "again.mp4")
    assert figures["is_equal"] and figures["frames"] == 10 and figures["psnr"]["min"] == fidelity.PSNR_CAP
    assert (tmp_path / "again.mp4").is_file() and (tmp_path / "again.json").is_file()
    with pytest.raises(ValueError, match="--vae: true.mp4 is of the real game, which no codec shows; leave it out"):
        replay.run_replay(tmp_path / "true", vae=True)

    other = [*actions[:8], Action(frozenset({"w"}), (-3.0, 0.0)), *actions[9:]]
    record(tmp_path / "false", actions, other)
    figures = replay.run_replay(tmp_path / "false")
    assert not figures["is_equal"] and figures["first_difference_frame"] == 8 - 3
