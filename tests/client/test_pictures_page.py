"""Saved places and clips as pages: by keyboard, through the window's own events."""
from types import SimpleNamespace

import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import FOCUS_LOST, QUIT, Session
from tests.client.test_devices import key
from tests.client.test_travel import own_folders  # noqa: F401
from worldplay.client import places_page
from worldplay.client.clips_page import ClipPage, ClipsPage
from worldplay.client.export import trim_clip
from worldplay.client.places_page import PlacesPage
from worldplay.client.saves import Saves
from worldplay.client.screen import Mode
from worldplay.client.settings import Settings
from worldplay.data.clip import read_clip
from worldplay.data.video import FrameSeeker


def taps(*keys):
    return [key(code, is_down) for code in keys for is_down in (True, False)]


def typed(text):
    return [pygame.event.Event(pygame.TEXTINPUT, text=text)]


@pytest.fixture
def trash(monkeypatch):
    """What was thrown away; each file is gone from its place."""
    gone = []

    def throw(path):
        gone.append(path)
        __import__("os").unlink(path)
    monkeypatch.setattr(places_page, "send2trash", throw)
    return gone


def page(session):
    pages = session.loop._screen.pages
    return pages[-1] if pages else None


def test_a_place_is_saved_named_loaded_and_thrown_away(trash):
    world = FakeWorld(fps=50.0)
    session = Session(world, [
        (10, *taps(pygame.K_F6)),
        (lambda: isinstance(page(session), PlacesPage), *taps(pygame.K_RIGHT, pygame.K_RETURN)),
        (lambda: session.notice == "Saved in place 1", *taps(pygame.K_F6)),
        (lambda: isinstance(page(session), PlacesPage), *taps(pygame.K_RIGHT), *taps(pygame.K_n)),
        (lambda: page(session).entry, *taps(pygame.K_a), *typed("X ")), (0.05, *taps(pygame.K_RETURN)),
        (lambda: "X" in Saves("fake").pictures()["1"][0]["title"], *taps(pygame.K_RETURN)),
        (lambda: session.mode is Mode.PLAYING and session.notice.startswith("Loaded"), *taps(pygame.K_F6)),
        (lambda: isinstance(page(session), PlacesPage), *taps(pygame.K_RIGHT), *taps(pygame.K_DELETE)),
        (lambda: trash, QUIT)])
    session.run()
    assert trash[0].endswith("1.save") and not Saves("fake").pictures()


def test_a_clip_is_played_trimmed_continued_and_thrown_away(tmp_path, trash):
    settings = Settings(record_folder=str(tmp_path))
    world = FakeWorld(fps=50.0)
    session = Session(world, [
        (5, key(pygame.K_w)), (20, key(pygame.K_w, False), *taps(pygame.K_F12)),
        (lambda: session.notice.startswith("Saved"), *taps(pygame.K_F7)),
        (lambda: isinstance(page(session), ClipsPage), *taps(pygame.K_RETURN)),
        (lambda: isinstance(page(session), ClipPage) and page(session)._at > 3, *taps(pygame.K_SPACE)),
        (0.05, *taps(pygame.K_RIGHT, pygame.K_i, *[pygame.K_RIGHT] * 5, pygame.K_o, pygame.K_t)),
        (lambda: len(list(tmp_path.glob("*-part.json"))) == 1, *taps(pygame.K_c)),
        (lambda: session.mode is Mode.PLAYING,), (5, *taps(pygame.K_F7)),
        (lambda: isinstance(page(session), ClipsPage), *taps(pygame.K_DELETE)),
        (lambda: len(trash) == 2, QUIT)], settings=settings)
    session.run()
    assert [what for what, *_ in world.calls].count("reset") == 2
    assert session.loop._travel.history.line.number >= 10


@pytest.fixture
def clip(tmp_path):
    Session(FakeWorld(fps=50.0), [(12, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    return read_clip(video)


def test_a_click_before_the_page_was_drawn_is_harmless(clip):
    session = Session(FakeWorld(), [])
    shown = ClipPage(clip, session.loop._commands, session.loop._screen)
    shown.click((20, 20))
    assert shown._at == 0
    shown.close()
    session.window.close()


def test_every_way_out_of_a_clip_closes_its_file(clip, monkeypatch):
    is_open = {}

    class Watched(FrameSeeker):
        def __init__(self, path):
            super().__init__(path)
            is_open[self] = True

        def close(self):
            super().close()
            is_open[self] = False
    monkeypatch.setattr("worldplay.client.clips_page.FrameSeeker", Watched)
    for leave in (taps(pygame.K_ESCAPE), [FOCUS_LOST], [QUIT]):
        session = Session(FakeWorld(fps=50.0), [
            (2, *taps(pygame.K_F7)), (lambda: isinstance(page(session), ClipsPage), *taps(pygame.K_RETURN)),
            (lambda: isinstance(page(session), ClipPage),), (0.05, *leave), (0.05, QUIT)],
            settings=Settings(record_folder=str(clip.path.parent)))
        session.run()
    assert len(is_open) == 6 and not any(is_open.values())


def test_notices_name_the_keys_that_are_set_or_the_gamepads(tmp_path):
    session = Session(FakeWorld(), [], settings=Settings(record_folder=str(tmp_path)))
    screen, commands = session.loop._screen, session.loop._commands
    screen.world = FakeWorld()
    commands.travel.history = SimpleNamespace(moments=(), seconds=30.0)
    for name, code in (("record", pygame.KSCAN_T), ("rewind", pygame.KSCAN_Y), ("reset", pygame.KSCAN_U)):
        screen.bindings.bind(name, code)
    screen.bindings.bind("keep", None)
    assert ClipsPage(session.window, commands, screen).empty == "Nothing is recorded yet: T begins a clip"
    screen.drift = SimpleNamespace(is_good=True)
    commands.on_good_moment()
    assert session.notice == "The picture looks like its world; Y goes back all the same"
    screen.shows_pad = True
    commands.on_good_moment()
    assert "; LB goes back" in session.notice
    commands.travel.go_to(3)
    assert session.notice.endswith("is good; Back starts again")
    session.window.close()


def test_a_part_replays_as_the_whole_and_any_frame_can_be_sought(tmp_path):
    Session(FakeWorld(fps=50.0, frames=2), [(7, key(pygame.K_w)), (60, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    clip = read_clip(video)
    trim_clip(clip, tmp_path / "part.mp4", 10, 31)
    part = read_clip(tmp_path / "part.mp4")
    assert part.sidecar["recorded"] == [clip.sidecar["recorded"][0] + at for at in (10, 31)]
    last = clip.sidecar["frames"][30]["step"]
    assert part.actions == clip.actions[:last + 1] and part.paths == clip.paths
    whole, seeker = list(clip.frames()), FrameSeeker(video)
    for index in (0, 55, 54, 3, 4, 5, 40):
        assert (seeker.frame(index) == whole[index]).all(), index
    seeker.close()
    for record, frame in zip(part.sidecar["frames"], part.frames(), strict=True):
        assert keys_shown(frame) == part.actions[record["step"]].keys
