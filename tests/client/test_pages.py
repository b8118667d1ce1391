"""The menu: its pages by keys, mouse and gamepad; controls changed in it; events at random."""
import gc
import random
from dataclasses import replace

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import FOCUS_LOST, QUIT, Session
from tests.client.test_devices import click, key
from worldplay.action import Action
from worldplay.client.bindings import Bindings
from worldplay.client.pages import Choices
from worldplay.client.screen import Mode
from worldplay.client.settings import Settings
from worldplay.client.settings_page import Reopening
from worldplay.client.window_commands import PAUSED
from worldplay.client.worker import Opening, Reset
from worldplay.data.clip import read_clip
from worldplay.errors import WorldError

ENTER, DOWN, RIGHT, ESC = map(key, (pygame.K_RETURN, pygame.K_DOWN, pygame.K_RIGHT, pygame.K_ESCAPE))
FOCUS_GAINED = pygame.event.Event(pygame.WINDOWFOCUSGAINED)


def up_of(event):
    return key(event.key, False)


def typed(*events):
    """Entries of a script that press and let go of one key after another."""
    return [(0.0, event, up_of(event)) for event in events]


def opened(page):
    """Entries of a script that choose a page of the menu, which is open."""
    return typed(*[RIGHT] * PAUSED.index(page), ENTER)


def test_a_key_is_changed_by_pressing_another_one_and_plays_at_once():
    world = FakeWorld(fps=50.0)
    session = Session(world, [
        (3, ESC), *opened("Controls"), *typed(*[DOWN] * 5, ENTER),
        *typed(key(pygame.K_t), ESC),
        (0.0, click()), (0.0, click(False)), (2, key(pygame.K_t)),
        (lambda: keys_shown(session.frames[-1]) == {"w"}, QUIT)])
    session.run()
    assert session.loop.settings.bindings == {"w": ["pad:lefty-", "key:T"]}
    assert Bindings(session.loop.settings.bindings).changes


def test_esc_leaves_a_key_as_it_was_and_goes_back_page_by_page():
    session = Session(FakeWorld(fps=50.0), [
        (3, ESC), *opened("Controls"), *typed(*[DOWN] * 5, ENTER), *typed(ESC),
        (lambda: len(session.loop._screen.pages) == 1,), *typed(ESC),
        (lambda: not session.loop._screen.pages and session.mode is Mode.MENU,), *typed(ESC)])
    session.run()
    assert session.loop.settings == Settings(window_size=session.loop.settings.window_size)


def test_losing_the_focus_or_a_step_that_fails_leaves_no_page_behind():
    world = FakeWorld(fps=50.0, fail_at=8)
    session = Session(world, [
        (3, ESC), *opened("Worlds"), (0.0, FOCUS_LOST),
        (0.1, FOCUS_GAINED, ESC, up_of(ESC)), (0.0, click()),
        (lambda: session.mode is Mode.STOPPED, key(pygame.K_r)),
        (lambda: session.mode is Mode.PLAYING, QUIT)])
    session.run()
    assert not session.loop._screen.pages


@pytest.mark.parametrize("width", [480, 640, 1920])
def test_the_words_of_the_pause_fit_into_every_window(width):
    pygame.font.init()
    surface, choices = pygame.Surface((width, 480)), Choices((*PAUSED, "Last good moment", "Real game"))
    choices.draw(surface, (width // 2, 100))
    assert [choices.hit((x, 100)) is None for x in (0, width - 1)] == [True, True]
    found = [choices.hit((x, 100)) for x in range(width)]
    assert list(dict.fromkeys(word for word in found if word)) == list(choices.words)


@pytest.mark.parametrize("size", [(560, 440), (640, 480), (1920, 1080), (3840, 2160), (80, 60)])
def test_pages_are_drawn_and_hit_at_every_size(size):
    from worldplay.client.controls_page import ControlsPage
    from worldplay.client.devices import KeyboardMouse
    pygame.font.init()
    session = Session(FakeWorld(), [])
    screen = session.loop._screen
    screen.world = FakeWorld()
    page = ControlsPage(screen, KeyboardMouse(None, 0.1, bindings=screen.bindings), dict)
    surface = pygame.Surface(size)
    for _ in range(40):
        page.draw(surface)
        places = page._places
        assert places[page._at].bottom <= size[1] or size[1] < 100, "the chosen row is seen"
        page.press(pygame.KSCAN_DOWN)
    session.window.close()


def _events(rng):
    """Any event that pygame can bring, mostly of the inputs that do something."""
    codes = [*range(pygame.KSCAN_A, pygame.KSCAN_F12 + 1),
             *[*range(pygame.KSCAN_RIGHT, pygame.KSCAN_UP + 1), pygame.KSCAN_RETURN, pygame.KSCAN_ESCAPE] * 8]
    for _ in range(100_000):
        kind, where = rng.random(), (rng.randrange(640), rng.randrange(480))
        if kind < 0.5:
            yield key(0, rng.random() < 0.5, scancode=rng.choice(codes))
        elif kind < 0.7:
            yield pygame.event.Event(pygame.MOUSEMOTION, rel=(rng.randint(-9, 9), 0), pos=where)
        elif kind < 0.8:
            yield pygame.event.Event(rng.choice((pygame.MOUSEBUTTONDOWN, pygame.MOUSEBUTTONUP)),
                                     button=rng.randint(1, 5), pos=where)
        elif kind < 0.88:
            yield pygame.event.Event(pygame.CONTROLLERAXISMOTION, instance_id=rng.randrange(2),
                                     axis=rng.randrange(7), value=rng.randint(-32768, 32767))
        elif kind < 0.96:
            yield pygame.event.Event(rng.choice((pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP)),
                                     instance_id=rng.randrange(2), button=rng.randrange(22))
        elif kind < 0.97:
            yield pygame.event.Event(pygame.TEXTINPUT, text=rng.choice("ab \u00e9\u6f22"))
        elif kind < 0.98:
            yield pygame.event.Event(pygame.MOUSEWHEEL, y=rng.randint(-3, 3), x=0)
        else:
            yield pygame.event.Event(rng.choice((
                pygame.WINDOWFOCUSLOST, pygame.WINDOWFOCUSGAINED, pygame.WINDOWEXPOSED, pygame.KEYMAPCHANGED,
                pygame.CONTROLLERDEVICEREMOVED)), instance_id=rng.randrange(2))


def test_a_hundred_thousand_random_events_raise_nothing_leave_no_key_stuck_and_no_memory(
        tmp_path, monkeypatch):
    """All of them through the commands, and some of the screens drawn; the loop has its own tests."""
    session = Session(FakeWorld(prompt="a hall"), [], settings=Settings(record_folder=str(tmp_path)))
    commands, screen = session.loop._commands, session.loop._screen
    device, world = commands._device, FakeWorld(prompt="a hall")
    for name in ("on_record", "on_keep", "on_picture"):  # no files
        monkeypatch.setattr(commands, name, lambda: None)
    screen.read_keyboard_layout = lambda: None  # asks the system for a thousand keys
    for part in (screen, commands):
        part.open(world)
    screen.frame = np.zeros((96, 128, 3), np.uint8)
    commands.begin()
    rng, modes, num_open, num_objects = random.Random(7), set(), 0, []
    for i, event in enumerate(_events(rng)):
        commands.handle(event, i / 1000)
        modes.add(commands.mode)
        num_open = max(num_open, len(screen.pages))
        if commands.is_over:  # Quit was taken
            commands.is_over = False
        if i % 50 == 0:
            device.poll(i / 1000)
            commands.reset = None
        if i % 500 == 0:
            screen.draw(commands.mode)
        if i in (20_000, 60_000, 99_000):
            gc.collect()
            num_objects.append(len(gc.get_objects()))
    assert modes == {Mode.PLAYING, Mode.PAUSED, Mode.MENU, Mode.WRITING} and num_open
    assert num_objects[-1] - num_objects[0] < 2000, f"80 000 events hold on to what they made: {num_objects}"
    commands.handle(FOCUS_LOST, 1e6)
    device.poll(1e6)
    assert device.poll(1e6 + 1) == Action() and len(screen.pages) <= 3
    Settings(**{**vars(screen.settings)})
    session.window.close()


class Worlds:
    """A Reopening of fake worlds, one after another; it remembers what was asked for."""

    def __init__(self, *worlds):
        self._worlds, self.asked = list(worlds), []
        self.reopening = Reopening(
            opening=self._opening, chosen=lambda: {"steps": None, "device": "auto", "path": "auto"},
            choices={"steps": (None, 1, 2), "device": ("auto", "cpu"), "path": ("auto", "eager")})

    def _opening(self, **changes):
        self.asked.append(changes)
        return Opening(open=lambda: self._worlds.pop(0), title="another", start=Reset("two"))


def test_other_sampling_steps_open_the_world_again_in_the_same_window_and_finish_the_clip(tmp_path):
    first, second = FakeWorld(fps=50.0), FakeWorld(fps=50.0)
    worlds = Worlds(second)
    session = Session(first, [
        (5, ESC), *opened("Settings"), *typed(RIGHT), *typed(*[DOWN] * 3, ENTER),
        (lambda: session.loop.world is second and session.mode is Mode.PLAYING,), (3, key(pygame.K_w)),
        (lambda: keys_shown(session.frames[-1]) == {"w"}, QUIT)],
        record_in=tmp_path, reopening=worlds.reopening)
    session.run()
    assert worlds.asked == [{"steps": 1}] and Mode.LOADING in session.modes[session.modes.index(Mode.MENU):]
    assert first.calls[-1][0] == "close" and [what for what, *_ in first.calls].count("close") == 1
    assert ("reset", "two") in [call[:2] for call in second.calls]
    [video] = tmp_path.glob("*.mp4")
    assert read_clip(video).num_frames >= 5


def test_what_cannot_go_on_offers_a_way_out_and_the_window_stays(tmp_path):
    """A step out of memory, then a world that cannot be opened, then one that can."""
    broken = FakeWorld(fps=50.0, fail_at=6, error=MemoryError("no room"))
    worlds = Worlds(broken, FakeWorld(fps=50.0))
    session = Session(broken, [
        (lambda: session.mode is Mode.STOPPED and session.loop._screen.choices.words == (
            "Start again", "Fewer steps", "Worlds", "Quit"),), *typed(RIGHT, ENTER),
        (lambda: session.mode is Mode.PLAYING and len(broken.actions) > 8, QUIT)],
        record_in=tmp_path, reopening=worlds.reopening)
    session.run()
    assert worlds.asked == [{"steps": 1}] and len(list(tmp_path.glob("*.mp4"))) == 1

    def fail():
        raise WorldError("device", "there is no such device; take the processor")
    again = Session(fail, [
        (lambda: again.mode is Mode.FAILED, ENTER, up_of(ENTER)),
        (lambda: again.mode is Mode.PLAYING, QUIT)], reopening=Worlds(FakeWorld()).reopening)
    again.run()


@pytest.mark.parametrize("word", ["Open again", "Processor"])
def test_a_way_out_keeps_the_chosen_start(word):
    """Also the actions of a clip that were to be replayed from there."""
    second, start = FakeWorld(fps=50.0), Reset("two", ahead=(Action({"w"}),) * 30)
    failures = [WorldError("device", "it is gone")]

    def opening():
        if failures:
            raise failures.pop()
        return second
    reopening = Worlds(second).reopening
    reopening = replace(reopening, chosen=lambda: {"steps": 2, "device": "cuda", "path": "auto"})
    session = Session(opening, [
        (lambda: session.mode is Mode.FAILED,),
        *typed(*[RIGHT] * ["Open again", "Fewer steps", "Processor"].index(word), ENTER),
        (lambda: session.mode is Mode.PLAYING and len(second.actions) > 3, QUIT)],
        start=start, reopening=reopening)
    session.run()
    assert second.calls[0][:2] == ("reset", "two") and second.actions[2].keys == {"w"}


def test_what_is_set_on_the_settings_page_holds_at_once(tmp_path):
    session = Session(FakeWorld(fps=50.0), [
        (3, ESC), *opened("Settings"), *typed(RIGHT), *typed(DOWN, RIGHT), *typed(DOWN, RIGHT),
        *typed(DOWN, RIGHT), (0.1, QUIT)])
    session.run()
    settings = session.loop.settings
    assert settings.scaling == "whole" and settings.show_hud and settings.hud_parts == "figures and graph"


def test_a_minimised_window_pauses_the_world_and_looks_at_its_events_seldom():
    world = FakeWorld(fps=50.0)
    seen = []
    session = Session(world, [
        (3, pygame.event.Event(pygame.WINDOWMINIMIZED)),
        (lambda: session.mode is Mode.MENU and session.loop._is_idle,),
        (lambda: seen.append((len(world.actions), len(session.served))) is None,), (0.5,),
        (lambda: seen.append((len(world.actions), len(session.served))) is None,),
        (0.0, pygame.event.Event(pygame.WINDOWRESTORED), FOCUS_GAINED, click()),
        (lambda: len(world.actions) > seen[1][0] + 3, QUIT)])
    session.run()
    assert seen[1][0] - seen[0][0] <= 1, "the world stands"
    assert seen[1][1] - seen[0][1] <= 14, "0.5 s at 0.05 s a look, in place of 250 looks"


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (40, 30), (7680, 4320)])
def test_every_screen_is_drawn_at_every_size(size, monkeypatch):
    session = Session(FakeWorld(prompt="a hall"), [])
    screen, surface = session.loop._screen, pygame.Surface(size)
    monkeypatch.setattr(type(screen.window), "surface", property(lambda window: surface))
    monkeypatch.setattr(screen.window, "flip", lambda: None)
    screen.draw(Mode.LOADING)
    for part in (screen, session.loop._commands):
        part.open(FakeWorld(prompt="a hall"))
    screen.frame, screen.failure = np.zeros((96, 128, 3), np.uint8), MemoryError("no room " * 20)
    screen.choose(show_hud=True, hud_parts="figures and graph")
    session.loop.timing.worked(0.2, is_late=True)
    session.loop._commands.open_menu()
    for mode in Mode:
        if mode is not Mode.REWINDING:
            screen.notify("a line")
            screen.draw(mode)
    screen.on_help()
    screen.draw(Mode.PLAYING)
    session.window.close()
