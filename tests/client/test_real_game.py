"""The real game's process: it catches up, breaks off, and leaves nothing behind however it ends."""
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from tests.client.session import PATIENCE, QUIT
from tests.client.test_beside import GAME, SPACE, Dream, G, Played, folder, press, scene  # noqa: F401
from worldplay.action import Action
from worldplay.client import beside, real_game
from worldplay.client.real_game import Follow, Followed, Lost, RealGame
from worldplay.envs import open_env
from worldplay.envs.twin import Twin
from worldplay.worlds.scene import Scene, save_scene


class Machine:
    """A twin whose steps take a share of their frames, its connection, and the clock of both."""
    frames_per_step, fps, difference = 1, 20.0, 0

    def __init__(self, share, is_heard=True):
        self.share, self.is_heard, self.now, self.worked = share, is_heard, 0.0, 0.0

    def perf_counter(self):
        return self.now

    def skip(self, actions):
        self.worked += len(actions) * self.share / self.fps
        self.now += len(actions) * self.share / self.fps

    def step(self, action):
        self.skip([action])
        yield np.zeros((2, 2, 3), np.uint8)

    def poll(self, seconds):
        self.now += seconds
        return not self.is_heard


@pytest.mark.parametrize("share", [0.01, 0.4, 0.9])
def test_a_slow_game_catches_up_and_a_long_request_is_broken_off(share, monkeypatch):
    machine = Machine(share)
    monkeypatch.setattr(real_game, "time", machine)
    reply = real_game._follow(machine, Follow(None, [Action()] * 200), machine)
    assert machine.now < reply.num / machine.fps, "quicker than the dream goes on"
    assert machine.now < real_game.AT_MOST + (real_game.PIECE + 1) / machine.fps
    if share == 0.01:
        assert reply.num == 200 and machine.worked < 0.4 * machine.now, "and it leaves the cores to the dream"


def test_a_request_is_broken_off_where_nobody_listens_any_more(monkeypatch):
    machine = Machine(0.01, is_heard=False)
    monkeypatch.setattr(real_game, "time", machine)
    reply = real_game._follow(machine, Follow(None, [Action()] * 200), machine)
    assert reply.num == real_game.PIECE + 1


def test_what_was_broken_off_is_asked_for_again(folder, monkeypatch):  # noqa: F811
    """Each request plays one step only, as that of a slow game would."""
    asked = []

    class Game:
        is_idle, reply = True, None

        def __init__(self, twin):
            self.at = 0

        def ask(self, request):
            asked.append((request.scene, len(request.actions)))
            self.reply = Followed(np.full((1, 16, 32, 3), 7, np.uint8), min(1, len(request.actions)), 0.01, 0)

        def take(self):
            reply, self.reply = self.reply, None
            return reply

        def close(self):
            pass
        wait = close
    monkeypatch.setattr(beside, "RealGame", Game)
    session = Played(Dream(folder), [(10, *press(G)[1:])])
    session.script += [(session.scored(5), QUIT)]
    session.run()
    assert asked[0][0] == "start-1" and all(scene is None for scene, _ in asked[1:])
    assert max(num for _, num in asked) > 3 and session.beside._step <= len(asked)


def test_closing_a_game_that_is_at_work_leaves_nothing_behind(tmp_path, monkeypatch, capfd):
    world = open_env("doom-maze")
    save_scene(tmp_path / "world/scenes", Scene(
        name="a", frames=world.reset(seed=19)[-1:], actions=[Action()], poses=None,
        origin={"environment": "doom-maze", "seed": 19}), world.action_space)
    world.close()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    game = RealGame(Twin("maze", tmp_path / "world", action_space=world.action_space,
                         frame_size=world.frame_size, fps=world.fps))
    game.ask(Follow("a", []))
    wait_for(game.take)
    assert any((tmp_path / "tmp").glob("worldplay-*")), "the engine's folder"
    game.ask(Follow(None, [Action({"w"})] * 5000))
    time.sleep(0.1)
    game.close()
    game.wait()
    assert not any((tmp_path / "tmp").glob("worldplay-*")) and capfd.readouterr().err == ""


def test_a_signal_to_all_processes_ends_the_games_engine_too(tmp_path):
    scene(tmp_path, "start-1", 3, [])
    game = RealGame(Twin("maze", tmp_path, action_space=SPACE, frame_size=(16, 32), fps=12.0, env=GAME))
    game.ask(Follow("start-1", []))
    reply = wait_for(game.take)
    assert isinstance(reply, Followed) and game.is_idle
    [process] = [each for each in multiprocessing.active_children() if each.name == "real game"]
    os.kill(process.pid, signal.SIGTERM)
    process.join(PATIENCE)
    assert process.exitcode == 0, "it left by itself, and closed its engine on the way"
    game.ask(Follow(None, [Action()]))
    assert wait_for(game.take) == Lost("The real game has stopped")
    game.close()
    game.wait()


def wait_for(take):
    until = time.perf_counter() + PATIENCE
    while (reply := take()) is None:
        assert time.perf_counter() < until
        time.sleep(0.01)
    return reply
