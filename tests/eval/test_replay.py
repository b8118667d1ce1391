"""Clips played again: bit-equal where nothing changed, and a clear line where one cannot be compared."""
import tracemalloc

import numpy as np
import pytest

from tests.eval.turning import HEIGHT, WIDTH, TurningWorld, texture
from worldplay.action import Action
from worldplay.cli.commands import main
from worldplay.data import clip_writer
from worldplay.data.clip import read_clip
from worldplay.data.clip_writer import ClipWriter, describe
from worldplay.engine import loading
from worldplay.envs import open_env
from worldplay.errors import WorldError
from worldplay.eval import replay
from worldplay.eval.statistics import PSNR_CAP
from worldplay.worlds.scene import Scene, save_scene


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


def _record(path, num_frames, stop=None):
    """Write a clip of a TurningWorld that turns by one pixel a frame; with `stop` it stands still from there
    on.
    """
    world = TurningWorld()
    turn, still = Action(look=(1.0, 0.0)), Action()
    header = describe(world, scene="start") | {"seed": 0}
    writer = ClipWriter(path, header, actions=[still], first=0)
    frames = [world.reset(seed=0)[-1]]
    for i in range(num_frames):
        writer.add(frames[-1], i, turn if i else still, {})
        frames = list(world.step(turn if stop is None or i < stop else still))
    writer.finish()
    writer.wait()
    assert writer.error is None
    return path


def test_memory_stays_flat_however_long_the_clip(tmp_path, monkeypatch):
    """At no moment is more than a few frames' worth of memory held."""
    monkeypatch.setattr(replay, "open_env", lambda name, trusted: TurningWorld())
    monkeypatch.setattr(clip_writer, "MAX_QUEUED_BYTES", 0)  # its smallest queue
    frame_bytes, peaks = HEIGHT * WIDTH * 3, []
    for num_frames in (60, 400):
        clip = _record(tmp_path / f"clip{num_frames}", num_frames)
        replay.run_replay(clip)  # what is loaded once is loaded
        tracemalloc.start()
        figures = replay.run_replay(clip)
        peaks.append(tracemalloc.get_traced_memory()[1] / frame_bytes)
        tracemalloc.stop()
        assert figures["is_equal"] and figures["frames"] == num_frames
    # actions and records of a frame are kept, about a kilobyte each
    assert peaks[1] - peaks[0] < 0.3 * 340, f"{peaks} frames' worth: they are kept"


def test_a_difference_is_found_and_said_with_its_frame(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(replay, "open_env", lambda name, trusted: TurningWorld())
    assert main(["replay", str(_record(tmp_path / "same", 12))]) == 0
    assert "largest_difference_frame none\n" in capsys.readouterr().out
    assert main(["replay", str(_record(tmp_path / "other", 12, stop=6))]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["first_difference_frame"] == "7" and int(lines["largest_difference_frame"]) >= 7


def test_another_environment_is_warned_about(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(replay, "open_env", lambda name, trusted: TurningWorld())
    clip = _record(tmp_path / "clip", 6)
    replay.run_replay(clip, world="turning")
    assert "other frames" not in caplog.text
    replay.run_replay(clip, world="spinning")
    assert "was played in the real turning; in spinning the same actions give other frames" in caplog.text


def test_a_clip_runs_no_module_that_only_it_names(tmp_path, monkeypatch):
    (tmp_path / "evil_clip.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    clip = _record(tmp_path / "clip", 6)
    sidecar = clip.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"env": "turning"', '"env": "gym:evil_clip:Game"'))
    assert read_clip(clip).sidecar["env"] == "gym:evil_clip:Game"
    with pytest.raises(WorldError, match="gym:evil_clip:Game: no module is run because a file names it"):
        replay.run_replay(clip)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(WorldError, match="Gymnasium cannot make it"):
        replay.run_replay(clip, world="gym:evil_clip:Game")
    assert (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="--env gym:evil_clip:Game: only with --real"):
        replay.run_replay(clip, env="gym:evil_clip:Game")


def test_what_was_made_before_a_failure_is_kept(tmp_path, monkeypatch):
    class Failing(TurningWorld):
        def step(self, action):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps > 5:
                raise WorldError("ended", "the engine stopped")
            yield from super().step(action)
    monkeypatch.setattr(replay, "open_env", lambda name, trusted: Failing())
    clip = _record(tmp_path / "clip", 12)
    with pytest.raises(WorldError, match="the engine stopped"):
        replay.run_replay(clip, out=tmp_path / "again.mp4")
    assert read_clip(tmp_path / "again").num_frames == 6


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
    assert figures["is_equal"] and figures["frames"] == 10 and figures["psnr"]["min"] == PSNR_CAP
    assert (tmp_path / "again.mp4").is_file() and (tmp_path / "again.json").is_file()
    before = (tmp_path / "again.mp4").stat()
    with pytest.raises(OSError, match="--overwrite"):
        replay.run_replay(tmp_path / "true", out=tmp_path / "again.mp4")
    assert (tmp_path / "again.mp4").stat() == before, "a finished clip stays"
    assert replay.run_replay(tmp_path / "true", out=tmp_path / "again.mp4", overwrite=True)["is_equal"]
    with pytest.raises(ValueError, match="--vae: true.mp4 is of the real game, which no codec shows; leave "
                                         "it out"):
        replay.run_replay(tmp_path / "true", vae=True)

    other = [*actions[:8], Action(frozenset({"w"}), (-3.0, 0.0)), *actions[9:]]
    record(tmp_path / "false", actions, other)
    figures = replay.run_replay(tmp_path / "false")
    assert not figures["is_equal"] and figures["first_difference_frame"] == 8 - 3


def test_a_clip_is_played_in_the_real_game_from_its_start(maze, tmp_path, monkeypatch):
    """Into a clip of the game, which is the game's own and replays as such."""
    led, walk = [Action({"w"}, (6.0, 0.0))] * 2, [Action({"w"}, (3.0, 0.0))] * 9
    frames = [maze.reset(seed=19)[-1], *(frame for action in [*led, *walk] for frame in maze.step(action))]
    save_scene(tmp_path / "world/scenes", Scene(
        name="a", frames=np.stack(frames[:3]), actions=[Action(), *led], poses=None,
        origin={"environment": "doom-maze", "seed": 19}), maze.action_space)
    monkeypatch.setattr(replay.zoo, "find", lambda name: tmp_path / name)
    monkeypatch.setattr(loading, "hash_of", lambda name: "f00d")

    def record(path, frames, **fields):
        header = describe(maze, scene="a") | {"world": "world", "world_hash": "f00d"} | fields
        writer = ClipWriter(path, header, actions=[Action(), *walk[:4]], first=4)
        for i in range(4, len(frames)):
            writer.add(frames[i], i, walk[i - 1], {})
        writer.finish()
        writer.wait()

    record(tmp_path / "true", frames[2:])
    figures = replay.run_replay(tmp_path / "true", real=True, out=tmp_path / "game.mp4")
    assert figures["is_equal"] and figures["frames"] == 6 and figures["world"] == "the real doom-maze"
    game = read_clip(tmp_path / "game")
    assert game.sidecar["recorded"] == [6, 12] and game.sidecar["seed"] == 19
    assert game.actions == [Action(), *led, *walk]
    assert replay.run_replay(tmp_path / "game")["is_equal"]
    with pytest.raises(ValueError, match="game.mp4 is of the real game already"):
        replay.run_replay(tmp_path / "game", real=True)

    record(tmp_path / "false", [*frames[2:7], *[frames[6]] * 5])
    figures = replay.run_replay(tmp_path / "false", real=True)
    assert figures["first_difference_frame"] == 1 and 5 < figures["psnr"]["min"] < 40
    record(tmp_path / "elsewhere", frames[2:], scene="b")
    with pytest.raises(WorldError, match="no real game behind world, scene b"):
        replay.run_replay(tmp_path / "elsewhere", real=True)
    record(tmp_path / "other", frames[2:], world_hash="beef")
    with pytest.raises(WorldError, match="other.mp4 was played in world beef, here it is f00d"):
        replay.run_replay(tmp_path / "other", real=True)
