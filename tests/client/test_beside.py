"""The real game beside the dream: the same start and actions, the dream untouched, failures in one line."""
import multiprocessing
import os
import random
import signal

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from worldplay.action import Action, ActionSpace
from worldplay.client import beside, hud
from worldplay.client.beside import BOTH, DREAM, REAL, SHOWN_FOR
from worldplay.client.view import Mode
from worldplay.client.worker import Reset
from worldplay.envs import open_env
from worldplay.envs.twin import Twin
from worldplay.errors import WorldError
from worldplay.eval.statistics import psnr
from worldplay.worlds.scene import Scene, save_scene

GAME = "gym:tests.envs.corridor:Corridor?actions=idle=0,a=1,d=2"
SPACE = ActionSpace(("a", "d"), 0.0, 0)
G, A, D, R, TAB, BACK = map(key, (pygame.K_g, pygame.K_a, pygame.K_d, pygame.K_r, pygame.K_TAB,
                                  pygame.K_BACKSPACE))
UP = {event.key: key(event.key, False) for event in (G, A, D, R, TAB, BACK)}
# to the right, where the corridor ends after at least 13 steps, and back: entries of a script
WALK = [(1, D), (4, UP[pygame.K_d], A)]


def press(event):
    return (0.0, event, key(event.key, False))


class Dream(FakeWorld):
    """Dreams of a corridor: its frames are the game's, a little off, until `drifts` frames are made."""

    def __init__(self, folder, **options):
        super().__init__(fps=12.0, **options)
        self.name, self.folder, self.action_space, self.frame_size = "dream", folder, SPACE, (16, 32)
        self.scenes = ("start-1", "start-2", "nowhere")

    def _draw(self, keys):
        frame = np.full((*self.frame_size, 3), 20, np.uint8)
        frame[:, self._count % 32] = 200 if "d" in keys else 90
        return frame


def scene(folder, name, seed, actions, environment=GAME):
    """Save the scene that the game shows after so many actions from a seed."""
    env = open_env(GAME, trusted=True)
    frames = [env.reset(seed=seed)[-1]]
    for action in actions:
        frames += env.step(action)
    env.close()
    save_scene(folder / "scenes", Scene(
        name=name, frames=np.stack(frames), actions=[Action(), *actions], poses=None,
        origin={"environment": environment, "seed": seed} if environment else {}), SPACE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dream")
    scene(folder, "start-1", 3, [Action({"d"})] * 2)
    scene(folder, "start-2", 8, [])
    scene(folder, "nowhere", 1, [], environment=None)
    return folder


def test_the_same_start_and_actions_give_the_games_frames(folder):
    twin, env = Twin.of(Dream(folder), GAME), open_env(GAME, trusted=True)
    shown = [*twin.reset("start-1")]
    expected = [env.reset(seed=3)[-1]]
    for action in [Action({"d"})] * 2:
        expected += env.step(action)
    assert np.array_equal(shown, expected) and twin.difference == 0
    for action in [Action({"a"}), Action({"d"}), Action()]:
        assert np.array_equal([*twin.step(action)], [*env.step(action)])
    twin.close()


def test_the_mazes_scenes_are_where_the_real_game_is(tmp_path):
    world = open_env("doom-maze")
    frames = [world.reset(seed=19)[-1], *world.step(Action({"w"}, (3.0, 0.0)))]
    following = [*world.step(Action({"a"}))]
    world.close()
    save_scene(tmp_path / "scenes", Scene(
        name="a", frames=np.stack(frames), actions=[Action(), Action({"w"}, (3.0, 0.0))], poses=None,
        origin={"environment": "doom-maze", "seed": 19}), world.action_space)
    twin = Twin("maze", tmp_path, action_space=world.action_space, frame_size=world.frame_size, fps=world.fps)
    assert np.array_equal(twin.reset(seed=5), frames) and twin.difference == 0
    assert np.array_equal([*twin.step(Action({"a"}))], following)
    twin.close()


def test_steps_that_nobody_sees_lead_to_the_same_frame(folder):
    seen, skipped = Twin.of(Dream(folder), GAME), Twin.of(Dream(folder), GAME)
    with pytest.raises(WorldError, match="reset it"):
        skipped.skip([Action()])
    seen.reset("start-1"), skipped.reset("start-1")
    walk = [Action({"d"}), Action({"d"}), Action({"a"}), Action({"d"})]
    *_, frame = (frame for action in walk for frame in seen.step(action))
    skipped.skip(walk[:-1])
    assert np.array_equal(*skipped.step(walk[-1]), frame)


def test_a_chunk_of_the_dream_is_as_many_frames_of_the_game(folder):
    one = Twin("dream", folder, action_space=SPACE, frame_size=(16, 32), fps=12.0, env=GAME)
    three = Twin("dream", folder, action_space=SPACE, frame_size=(16, 32), fps=12.0, frames_per_step=3,
                 env=GAME)
    one.reset("start-1"), three.reset("start-1")
    shown = [*three.step(Action({"d"}))]
    assert np.array_equal(shown, [frame for _ in range(3) for frame in one.step(Action({"d"}))])


@pytest.mark.parametrize("scene_name, words", [
    (None, "where a picture is"), ("nowhere", "does not say where in a real game"), ("text", "no real game")])
def test_a_start_without_an_origin_says_why(folder, scene_name, words):
    with pytest.raises(WorldError, match=words):
        Twin.of(Dream(folder), GAME).start(scene_name)


def test_a_game_of_other_frames_is_no_twin(folder):
    twin = Twin("dream", folder, action_space=SPACE, frame_size=(16, 32), fps=30.0, env=GAME)
    with pytest.raises(WorldError, match="shows 32 x 16 at 12 frames/s, dream 32 x 16 at 30"):
        twin.reset("start-1")


class Played(Session):
    """A session that notes what was seen of the two: (number, frames)."""

    def __init__(self, world, script, *, env=GAME, **options):
        super().__init__(world, script, env=env, **options)
        self.shown, draw = [], self.window.draw
        self.beside = self.loop._commands.beside

        def noted(*frames):
            self.shown.append((self.loop._screen.number, frames))
            return draw(*frames)
        self.window.draw = noted
        self.notices, others = [], ("Late frames", "Scene start")  # of a busy machine, and of Tab
        self.loop._screen.notify = lambda text: text.startswith(others) or self.notices.append(text)

    @property
    def dreamed(self):
        return [moment.frame for moment in self.loop._commands.travel.history.moments]

    def scored(self, num):
        return lambda: self.beside.num >= num


def real_frames(seed, actions):
    env = open_env(GAME, trusted=True)
    frames = [env.reset(seed=seed)[-1]]
    for action in actions:
        frames += env.step(action)
    env.close()
    return frames


def test_switched_on_in_mid_play_both_are_at_the_same_moment_and_the_psnr_is_theirs(folder, monkeypatch):
    pairs = []
    monkeypatch.setattr(beside, "psnr", lambda *pair: pairs.append(pair) or psnr(*pair))
    session = Played(Dream(folder), [*WALK, press(G)])
    session.script += [(session.scored(4), QUIT)]
    session.run()
    actions = list(session.loop._commands.travel.history.line.actions)[1:]
    real = real_frames(3, [*[Action({"d"})] * 2, *actions])[2:]  # the start is two steps on
    assert not np.array_equal(real[3], real[0]) and len(real) > 6, "the player moved"
    for dream, game in pairs:
        [number] = [i for i, frame in enumerate(session.dreamed) if frame is dream]
        assert np.array_equal(game, real[number])
    scores = [psnr(*pair) for pair in pairs]
    assert session.beside.psnr == scores[-1] and session.beside.num == len(scores)
    said = f"PSNR {scores[-1]:.1f} dB, mean {np.mean(scores):.1f} of {len(scores)} frames"
    assert session.beside.says == said
    for number, frames in session.shown:
        if len(frames) == 2:  # at most a moment late
            late = range(max(0, number - round(SHOWN_FOR * 12)), number + 1)
            assert not frames[1].any() or any(np.array_equal(frames[1], real[i]) for i in late)
    assert session.shown[-1][1][0] is session.dreamed[-1] and session.beside.shows == BOTH


def test_switching_changes_no_frame_of_the_dream(folder):
    switched = Dream(folder)
    session = Played(switched, [*WALK, *[(2, G, UP[pygame.K_g])] * 4,
                                (lambda: len(session.dreamed) > 16, QUIT)])
    session.run()
    again = Dream(folder)
    again.reset()
    for action, frame in zip(switched.actions, session.dreamed[1:]):
        assert np.array_equal(*again.step(action), frame)
    assert {what for what, *_ in switched.calls} == {"reset", "step", "committed", "close"}


def test_reset_next_scene_and_rewind_keep_them_in_step(folder):
    session = Played(Dream(folder), [*WALK, press(G)])
    session.script += [
        (session.scored(3), UP[pygame.K_a]), press(R), (session.scored(2),), press(TAB),
        (lambda: session.loop._commands.request.scene == "start-2" and session.beside.num >= 6, BACK),
        (0.3, UP[pygame.K_BACKSPACE]), (session.scored(4), QUIT)]
    session.run()
    line = session.loop._commands.travel.history.line
    assert line.header["scene"] == "start-2"
    real = real_frames(8, list(line.actions)[1:])
    for number, frame in session.beside._real.items():
        assert np.array_equal(frame, real[number]), number


def test_a_scene_without_a_game_goes_back_to_the_dream_and_greys_the_key(folder):
    session = Played(Dream(folder), [(2, *press(G)[1:]), (2, QUIT)], start=Reset("nowhere"))
    session.run()
    assert session.beside.shows == DREAM and "Scene nowhere does not say" in session.notices[-1]
    assert session.loop._screen._idle_commands() == {"the real game"}

    session = Played(Dream(folder), [(2, *press(G)[1:]), (2, TAB), (0.0, UP[pygame.K_TAB]), (3, QUIT)],
                     start=Reset("start-2"))
    session.run()
    assert session.beside.shows == DREAM and session.beside.problem


def test_a_world_that_is_not_learned_has_none():
    session = Played(FakeWorld(fps=50.0), [(2, *press(G)[1:]), (2, QUIT)])
    session.run()
    assert session.notices == ["fake is no learned world: no real game is beside it"]


def test_a_worlds_files_run_no_module_that_the_player_did_not_name(folder, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    scene(tmp_path, "start-1", 3, [], environment="gym:stranger:Game")
    for named in (None, GAME):
        twin = Twin.of(Dream(tmp_path), named)
        for begin in (twin.start, twin.reset):
            with pytest.raises(WorldError, match="gym:stranger:Game: no module is run because a file"):
                begin("start-1")
    assert not (tmp_path / "ran").exists()
    session = Played(Dream(folder), [(2, *press(G)[1:]), (2, QUIT)], env=None)
    session.run()
    [line] = session.notices
    assert line.startswith(f"{GAME}: no module is run") and "--env" in line and session.beside.shows == DREAM


def test_a_game_that_cannot_start_or_dies_is_one_line_and_the_dream_goes_on(folder, tmp_path):
    scene(tmp_path, "start-1", 3, [], environment="gym:worldplay.nowhere:Game")
    session = Played(Dream(tmp_path), [(2, *press(G)[1:])])
    session.script += [(lambda: len(session.notices) > 0,), (4, QUIT)]
    session.run()
    [line] = session.notices
    assert "Gymnasium cannot make it" in line and "\n" not in line
    assert session.beside.shows == DREAM and session.loop._screen.failure is None

    session = Played(Dream(folder), [(2, *press(G)[1:])])
    died = []

    def kill():
        if session.beside.num < 2:
            return False
        died.append(session.beside._game)
        [process] = [each for each in multiprocessing.active_children() if each.name == "real game"]
        os.kill(process.pid, signal.SIGKILL)
        return True
    session.script += [(kill,), (lambda: len(session.notices) > 0,), (2, *press(G)[1:]),
                       (lambda: session.beside._game and session.beside.num >= 4, QUIT)]
    session.run()
    assert session.notices == ["The real game has stopped"] and session.beside._game is not died[0]


def test_the_end_of_the_game_is_said(folder):
    session = Played(Dream(folder), [(1, D), press(G)])
    session.script += [(lambda: len(session.notices) > 0, QUIT)]
    session.run()
    assert session.notices == ["The real game has ended here"] and session.beside.shows == DREAM


def test_once_the_game_has_ended_the_key_says_so_until_the_next_start(folder):
    session = Played(Dream(folder), [(1, D), press(G)])
    session.script += [(lambda: len(session.notices) > 0,), press(G), (0.1,), press(R),
                       (lambda: not session.beside.problem,), (1, UP[pygame.K_d]), press(G),
                       (session.scored(2), QUIT)]
    session.run()
    assert session.notices == ["The real game has ended here"] * 2 and session.beside.shows == BOTH


@pytest.mark.parametrize("way", ["keys", "mouse", "pad"])
def test_the_pause_has_a_word_for_it_where_there_is_one(folder, way):
    def is_open():
        choices = session.loop._screen.choices
        if session.mode is not Mode.MENU or not choices._places:
            return False
        assert choices.words[:2] == ("Go on", "Real game")
        click = pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=choices._places[1].center)
        session.script[1:1] = {
            "keys": [press(key(pygame.K_RIGHT)), press(key(pygame.K_RETURN))], "mouse": [(0.0, click)],
            "pad": [(0.0, button("dpright")), (0.0, button("dpright", False)), (0.0, button("a"))]}[way]
        return True
    session = Played(Dream(folder), [(3, *press(key(pygame.K_ESCAPE))[1:]), (is_open,)])
    session.script += [(session.scored(2), QUIT)]
    session.run()
    assert session.beside.shows == BOTH and session.mode is Mode.PLAYING


@pytest.mark.parametrize("size", [(560, 440), (640, 480), (1280, 720)])
def test_the_figures_cover_neither_name_and_what_is_said_is_between_them(size, monkeypatch):
    pygame.font.init()
    surface, plates = pygame.Surface(size), []
    monkeypatch.setattr(hud.theme, "panel", lambda surface, rect, *more, **how: plates.append(rect.copy()))
    width = (size[0] - 8) // 2
    boxes = {name: pygame.Rect(i * (width + 8), (size[1] - 3 * width // 4) // 2, width, 3 * width // 4)
             for i, name in enumerate((DREAM, REAL))}
    hud.draw_beside(surface, boxes, "PSNR 18.1 dB, mean 17.2 of 4321 frames")
    upper = hud.draw_figures(surface, [("sharp, bright, colour off", "1.00, 1.01, 0.10")] * 14)
    assert len(plates) == 4 and all(upper <= plate.top and plate.bottom <= size[1] for plate in plates[:3])
    assert plates[0].right < plates[2].left and plates[2].right < plates[1].left


def button(name, is_down=True):
    kind = pygame.CONTROLLERBUTTONDOWN if is_down else pygame.CONTROLLERBUTTONUP
    number = {"a": pygame.CONTROLLER_BUTTON_A, "dpright": pygame.CONTROLLER_BUTTON_DPAD_RIGHT}[name]
    return pygame.event.Event(kind, button=number, instance_id=0)


@pytest.mark.parametrize("times", [1, 2])
def test_while_time_goes_back_the_dream_is_shown_alone(folder, times):
    """The game's frames of then are not there: its picture would be black."""
    session, seen = Played(Dream(folder), [(10, *press(G)[1:]), *[press(G)] * (times - 1)]), []
    session.script += [(session.scored(1), BACK),
                       (lambda: session.loop._screen.rewound and seen.append(len(session.shown)) is None,),
                       (0.3,),
                       (lambda: seen.append(len(session.shown)) is None, UP[pygame.K_BACKSPACE], QUIT)]
    session.run()
    shown = [frames for _, frames in session.shown[seen[0] + 1:seen[1]]]
    assert shown and all(len(frames) == 1 and frames[0].any() for frames in shown)


def test_the_views_cycle_and_the_figures_say_what_is_shown(folder):
    session = Played(Dream(folder), [(2, *press(G)[1:])])
    seen = []

    def note():
        seen.append((session.beside.shows, [label for label, _ in session.beside.rows]))
        return True
    session.script += [(session.scored(2),), (note,), press(G), (2,), (note,), press(G), (2,), (note, QUIT)]
    session.run()
    assert [shows for shows, _ in seen] == [BOTH, REAL, DREAM]
    assert seen[0][1] and seen[1][1] and not seen[2][1]


def test_whatever_is_pressed_the_two_stay_in_step(folder, tmp_path, monkeypatch):
    """Many keys in a row, with starts, scenes and ways back between them; then both are at one moment."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    draw = random.Random(4)
    keys = [G, G, A, D, R, TAB, BACK, key(pygame.K_p), key(pygame.K_F5), key(pygame.K_F8),
            key(pygame.K_HOME)]
    script = []
    for _ in range(60):
        event = draw.choice(keys)
        script += [(draw.choice([0.0, 0.05, 0.2]), event), (draw.choice([0.0, 0.1]), key(event.key, False))]
    session = Played(Dream(folder), [(2, G, UP[pygame.K_g]), *script])
    commands = session.loop._commands

    def to_a_start():
        commands.travel.drop()
        commands.begin_at(Reset("start-2"))
        commands.resume()
        session.beside.shows = BOTH
        return True
    session.script += [(lambda: session.mode is not Mode.REWINDING,), (to_a_start,),
                       (lambda: commands.request == Reset("start-2") and session.beside.num >= 3, QUIT)]
    session.run()
    line = commands.travel.history.line
    assert not session.script and session.loop._screen.failure is None
    real = real_frames(8, list(line.actions)[1:])
    for number, frame in session.beside._real.items():
        assert np.array_equal(frame, real[number]), number
