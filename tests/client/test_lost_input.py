"""Nothing is lost and nothing stays down: keys while a line is open, places saved in haste, rewinding."""
import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from tests.client.test_travel import own_folders  # noqa: F401
from worldplay.client import clips_page, inputs
from worldplay.client.bindings import Bindings
from worldplay.client.pages import NAVIGATION
from worldplay.client.saves import Saves
from worldplay.client.screen import Mode
from worldplay.client.settings import Settings
from worldplay.data.clip import read_clip

SCANCODE = {name: inputs.keys(name)[0] for name in ("ESCAPE", "N")}


def taps(*keys):
    return [key(code, is_down) for code in keys for is_down in (True, False)]


def axis(number, share):
    return pygame.event.Event(pygame.CONTROLLERAXISMOTION, instance_id=0, axis=number,
                              value=round(32767 * share))


def page(session):
    return session.loop._screen.pages[-1] if session.loop._screen.pages else None


def entry(session):
    return page(session) and page(session).entry


def test_a_stick_let_go_while_the_text_is_written_walks_no_further():
    session = Session(FakeWorld(fps=50.0, prompt="a"), [
        (3, axis(pygame.CONTROLLER_AXIS_LEFTY, -1.0)),
        (lambda: keys_shown(session.frames[-1]) == {"w"}, *taps(pygame.K_F2)),
        (lambda: session.mode is Mode.WRITING, axis(pygame.CONTROLLER_AXIS_LEFTY, 0.0)),
        (0.0, *taps(pygame.K_ESCAPE)),
        (lambda: session.mode is Mode.PLAYING,), (10, QUIT)])
    session.run()
    assert keys_shown(session.frames[-1]) == set()


def test_a_key_let_go_while_a_name_is_written_walks_no_further_and_n_names_again():
    seen = []
    session = Session(FakeWorld(fps=50.0), [
        (3, *taps(pygame.K_F5)), (lambda: session.notice == "Saved", key(pygame.K_w)),
        (lambda: keys_shown(session.frames[-1]) == {"w"}, *taps(pygame.K_F6)),
        (lambda: page(session), key(pygame.K_n)), (lambda: entry(session), key(pygame.K_n, False)),
        (0.0, key(pygame.K_w, False), *taps(pygame.K_ESCAPE)), (0.05, *taps(pygame.K_n)),
        (lambda: seen.append(entry(session) is not None) or True, *taps(pygame.K_ESCAPE)),
        (0.0, *taps(pygame.K_ESCAPE, pygame.K_RETURN)), (10, QUIT)])
    session.run()
    assert seen[-1] and keys_shown(session.frames[-1]) == set()


def test_rewinding_by_a_trigger_ends_with_it_and_with_its_gamepad():
    trigger = pygame.CONTROLLER_AXIS_TRIGGERLEFT
    settings = Settings(bindings={"rewind": ["key:BACKSPACE", "pad:lefttrigger+"]})
    unplugged = pygame.event.Event(pygame.CONTROLLERDEVICEREMOVED, instance_id=0)
    for end in (axis(trigger, 0.0), unplugged):
        stayed = []
        session = Session(FakeWorld(fps=50.0), [
            (20, axis(trigger, 1.0)), (lambda: session.mode is Mode.REWINDING, axis(trigger, 0.9)),
            (0.1, pygame.event.Event(pygame.KEYMAPCHANGED)),
            (lambda: stayed.append(session.mode) or True, end),
            (lambda: session.mode is Mode.PLAYING, *taps(pygame.K_BACKSPACE)), (5, QUIT)], settings=settings)
        session.run()
        assert stayed == [Mode.REWINDING]


def test_escape_opens_the_menu_whatever_else_wants_it():
    bindings = Bindings({"pause": ["key:ESCAPE"], "w": ["pad:start"]})
    commands = bindings.commands(FakeWorld().action_space)
    assert commands[SCANCODE["ESCAPE"]] == commands[inputs.pad("start")] == "escape"
    assert NAVIGATION[SCANCODE["ESCAPE"]] == "back"


def test_the_mouse_button_that_is_bound_clicks_nothing():
    def press(is_down):
        kind = pygame.MOUSEBUTTONDOWN if is_down else pygame.MOUSEBUTTONUP
        return pygame.event.Event(kind, button=1, pos=at[0])
    at, asked = [None], []
    session = Session(FakeWorld(fps=50.0), [
        (3, *taps(pygame.K_ESCAPE)), (0.0, *taps(*[pygame.K_RIGHT] * 5, pygame.K_RETURN)),
        (0.0, *taps(*[pygame.K_DOWN] * 5, pygame.K_RETURN)),
        (lambda: page(session)._asked == "w" and page(session)._places,),
        (lambda: at.__setitem__(0, page(session)._places[page(session)._at].center) or True,)])
    session.script += [(lambda: session.script.insert(1, (0.0, press(True), press(False))) or True,),
                       (0.05,), (lambda: asked.append(page(session)._asked) or True, QUIT)]
    session.run()
    assert "mouse:1" in session.loop.settings.bindings["w"] and asked == [None]


@pytest.mark.parametrize("then", [pygame.K_F8, pygame.K_BACKSPACE, pygame.K_r])
def test_a_place_saved_in_haste_is_saved(then):
    world = FakeWorld(fps=20.0, delay=0.1)
    session = Session(world, [(5, *taps(pygame.K_F5), *taps(then)),
                              (3, key(pygame.K_w)), (5, QUIT)])
    session.run()
    assert "quick" in Saves("fake").pictures() and session.mode is Mode.PLAYING


def test_a_place_is_saved_though_the_player_leaves_in_the_midst_of_a_step():
    session = Session(FakeWorld(fps=20.0, delay=0.1), [(5, *taps(pygame.K_F5), QUIT)])
    session.run()
    assert "quick" in Saves("fake").pictures()


def test_a_short_rewind_in_the_midst_of_a_step_leaves_it_whole(tmp_path):
    world = FakeWorld(fps=20.0, frames=4)
    session = Session(world, [
        (6, *taps(pygame.K_BACKSPACE)), (8, *taps(pygame.K_F9)),
        (9, QUIT)], settings=Settings(record_folder=str(tmp_path)))
    session.run()
    line = session.loop._travel.history.line
    assert line.number <= 4 * line.step and 4 * line.step - line.number < 4


def test_names_and_pictures_that_cannot_be_are_said_and_nothing_else(tmp_path):
    settings = Settings(record_folder=str(tmp_path))
    session = Session(FakeWorld(fps=50.0), [
        (20, *taps(pygame.K_F12)), (lambda: session.notice.startswith("Saved"), *taps(pygame.K_F7)),
        (lambda: page(session), *taps(pygame.K_n)),
        (lambda: entry(session), key(pygame.K_a, mod=pygame.KMOD_CTRL),
         pygame.event.Event(pygame.TEXTINPUT, text="."), *taps(pygame.K_RETURN)),
        (0.05, QUIT)], settings=settings)
    session.run()
    assert len(list(tmp_path.glob("*.mp4"))) == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_mouse_that_moves_while_a_name_is_written_names_nothing_else():
    chosen = []

    def move():
        """The mouse goes to another place and its wheel turns."""
        commands, middle = session.loop._commands, page(session)._places[2].center
        commands.handle(pygame.event.Event(pygame.MOUSEMOTION, pos=middle, rel=(1, 1)), 0.0)
        commands.handle(pygame.event.Event(pygame.MOUSEWHEEL, x=0, y=-1), 0.0)
        chosen.append(page(session)._at)
        return True
    session = Session(FakeWorld(fps=50.0), [
        (3, *taps(pygame.K_F5)), (lambda: session.notice == "Saved", *taps(pygame.K_F6)),
        (lambda: page(session) and page(session)._places, *taps(pygame.K_n)),
        (lambda: entry(session) and move(), *taps(pygame.K_ESCAPE)), (0.05, QUIT)])
    session.run()
    assert chosen == [0]


def test_a_clip_without_a_picture_begins_nothing(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, path):
            pass

        def frame(self, number):
            raise clips_page.DamagedVideo("broken")

        def close(self):
            pass
    Session(FakeWorld(fps=50.0), [(30, QUIT)], record_in=tmp_path).run()
    monkeypatch.setattr(clips_page, "FrameSeeker", Broken)
    session = Session(FakeWorld(fps=50.0), [
        (3, *taps(pygame.K_F7)), (lambda: page(session), *taps(pygame.K_RETURN)),
        (lambda: isinstance(page(session), clips_page.ClipPage), *taps(pygame.K_b, pygame.K_c)),
        (0.05, *taps(pygame.K_b, pygame.K_c)), (0.05, QUIT)], settings=Settings(record_folder=str(tmp_path)))
    session.run()
    assert session.mode is Mode.MENU


def test_a_clip_of_another_game_is_not_gone_on_from(tmp_path):
    world = FakeWorld(fps=50.0)
    world.info |= {"world_hash": None, "env": "one game"}
    Session(world, [(10, QUIT)], record_in=tmp_path).run()
    other = FakeWorld(fps=50.0)
    other.info |= {"world_hash": None, "env": "another game"}
    [path] = tmp_path.glob("*.mp4")
    session = Session(other, [(3, QUIT)]).run()
    travel = session.loop._travel
    assert not travel.go_on_from(read_clip(path), 2, np.zeros((96, 128, 3), np.uint8))
