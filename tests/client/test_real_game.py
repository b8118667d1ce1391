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


class Slow:
    """A twin whose step takes most of its frame; nothing is drawn by it."""
    frames_per_step, fps, difference = 1, 20.0, 0

    def __init__(self, share):
        self.share = share

    def step(self, action):
        time.sleep(self.share / self.fps)
        yield np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize("share", [0.02, 0.4, 0.7])
def test_a_slow_game_catches_up_and_a_long_request_leaves_room_for_another(share):
    ours, theirs = multiprocessing.Pipe()
    num = 100
    begun = time.perf_counter()
    reply = real_game._follow(Slow(share), Follow(None, [Action()] * num), theirs)
    seconds = time.perf_counter() - begun
    played = len(reply.seconds)
    assert played == num or played < num and seconds < real_game.AT_MOST + 5 * sum(reply.seconds) / played
    used = sum(reply.seconds)
    rest = sum(min(real_game.REST * each, real_game.LEFT * max(0.0, 1 / 20 - each)) for each in reply.seconds)
    assert used + rest < played / 20 or used > 0.9 * played / 20, "quicker than play, where the machine is"
    ours.close()
    assert len(real_game._follow(Slow(0.02), Follow(None, [Action()] * num), theirs).seconds) == 1


def test_what_was_broken_off_is_asked_for_again(folder, monkeypatch):  # noqa: F811
    """Each request plays one step only, as that of a slow game would."""
    asked = []

    class Game:
        is_idle, reply = True, None

        def __init__(self, twin):
            self.at = 0

        def ask(self, request):
            asked.append((request.scene, len(request.actions)))
            seconds = [0.01] * min(1, len(request.actions))
            self.reply = Followed(np.full((1, 16, 32, 3), 7, np.uint8), seconds, 0)

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
    game.ask(Follow("a", [Action({"w"})] * 5000))
    wait_for(lambda: any((tmp_path / "tmp").glob("worldplay-*")) or None)
    game.close()
    game.wait()
    assert not any((tmp_path / "tmp").glob("worldplay-*")) and capfd.readouterr().err == ""


def test_a_signal_to_all_processes_ends_the_games_engine_too(tmp_path):
    scene(tmp_path, "start-1", 3, [])
    game = RealGame(Twin("maze", tmp_path, action_space=SPACE, frame_size=(16, 32), fps=12.0))
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
