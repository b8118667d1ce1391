"""Worlds, scenes, own pictures and clips chosen in the window, which stays."""
import threading

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from tests.client.test_pages import DOWN, ENTER, ESC, Worlds, opened, typed, up_of
from worldplay.client.screen import Mode
from worldplay.client.worlds_page import StartPage, WorldsPage, licence_of, needs
from worldplay.data.stills import Stills
from worldplay.data.video import H264Writer
from worldplay.errors import WorldError
from worldplay.worlds import catalog, zoo


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "user_cache", lambda: tmp_path / "cache")


def drop(path):
    return pygame.event.Event(pygame.DROPFILE, file=str(path))


def picture(path, color, size=(300, 100)):
    surface = pygame.Surface(size)
    surface.fill(color)
    pygame.image.save(surface, path)
    return path


def test_another_world_opens_in_the_same_window():
    first, second = FakeWorld(fps=50.0), FakeWorld(fps=50.0)
    worlds = Worlds(second)
    session = Session(first, [
        (3, ESC), *opened("Worlds"), *typed(DOWN, DOWN, DOWN, ENTER),
        (lambda: session.loop.world is second and session.mode is Mode.PLAYING, QUIT)],
        reopening=worlds.reopening)
    session.run()
    assert worlds.asked[0]["world"] == zoo.cards()[0].name and worlds.asked[0]["steps"] is None


def test_a_scene_is_begun_from_the_page():
    world = FakeWorld(fps=50.0)
    session = Session(world, [(3, ESC), *opened("Worlds"), *typed(DOWN, ENTER),
                              (lambda: ("reset", "two") in [call[:2] for call in world.calls], QUIT)])
    session.run()


def test_a_dropped_picture_is_shown_cropped_and_begun_from(tmp_path):
    world, seen = FakeWorld(fps=50.0), []
    begin = world.reset

    def reset(scene=None, **start):
        seen.append(start.get("frames"))
        return begin(scene, **start)
    world.reset = reset
    session = Session(world, [
        (3, drop(picture(tmp_path / "red.png", (200, 0, 0)))),
        (lambda: len(session.loop._screen.pages) == 1, ENTER, up_of(ENTER)),
        (lambda: len(seen) == 2 and session.mode is Mode.PLAYING, QUIT)])
    session.run()
    assert seen[1].shape == (1, 96, 128, 3) and (seen[1] == (200, 0, 0)).all()


def test_what_is_no_picture_is_said_and_nothing_else_happens(tmp_path):
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    session = Session(FakeWorld(fps=50.0), [
        (3, drop(tmp_path / "notes.txt")), (lambda: "cannot be read" in session.notice,),
        (0.0, drop(tmp_path / "torn.mp4")), (lambda: "cannot be begun from" in session.notice,),
        (0.0, drop(tmp_path / "gone.mp4")), (lambda: not session.loop._screen.pages, QUIT)])
    session.run()


def damaged(path, how):
    """A video whose header is whole and whose pictures are zeros, or that is cut to a share of its length."""
    writer = H264Writer(path, (96, 128), 20, container={"movflags": "+faststart"})
    for i in range(40):
        writer.add(np.random.default_rng(i).integers(0, 255, (96, 128, 3), dtype=np.uint8))
    writer.close()
    whole = path.read_bytes()
    begin = whole.index(b"mdat") + 4
    zeros = whole[:begin] + bytes(len(whole) - begin)
    path.write_bytes(zeros if how == "zeros" else whole[:int(how * len(whole))])
    return path


@pytest.mark.parametrize("how", ["zeros", 0.05, 0.5, 0.9])
def test_a_damaged_video_is_one_line_and_play_goes_on(tmp_path, how):
    path, world = damaged(tmp_path / "torn.mp4", how), FakeWorld(fps=50.0)
    session = Session(world, [
        (3, drop(path)), (lambda: session.loop._screen.pages or "cannot be begun from" in session.notice,),
        (0.0, ESC, up_of(ESC)), (0.2, QUIT)])
    session.run()
    for at in (0, 30, None):
        try:
            StartPage(session.loop._screen, session.loop._commands, path, at)
        except WorldError as error:
            assert error.kind == "bad_scene" and "\n" not in str(error)
    if how == "zeros":
        with pytest.raises(WorldError, match="torn.mp4 cannot be begun from"):
            StartPage(session.loop._screen, session.loop._commands, path)


def test_a_file_that_is_dropped_while_the_world_opens_is_answered(tmp_path):
    loaded = threading.Event()

    def opening():
        loaded.wait()
        return FakeWorld(fps=50.0)
    session = Session(opening, [
        (0.1, drop(picture(tmp_path / "red.png", (200, 0, 0)))),
        (lambda: session.notice == "red.png cannot be taken now; drop it again once the world plays",),
        (lambda: loaded.set() is None,), (lambda: session.mode is Mode.PLAYING, QUIT)])
    session.run()


@pytest.fixture
def clip(tmp_path):
    """A clip of 30 frames whose brightness rises."""
    writer = H264Writer(tmp_path / "walk.mp4", (96, 128), 20)
    for i in range(30):
        writer.add(np.full((96, 128, 3), 8 * i, np.uint8))
    writer.close()
    return tmp_path / "walk.mp4"


def test_any_frame_of_a_clip_can_be_begun_from(clip, tmp_path):
    stills = Stills(clip, (48, 64))
    for i in (0, 7, 29, 3):
        frame = stills.at(i * stills.period)
        assert frame.shape == (48, 64, 3) and abs(frame.mean() - 8 * i) < 6, i
    with pytest.raises(WorldError):
        Stills(tmp_path / "none.mp4", (48, 64))


def test_what_a_published_world_needs_is_held_against_this_machine(monkeypatch):
    world = catalog.WORLDS["causal-forcing-2step"]
    monkeypatch.setattr("worldplay.client.worlds_page.missing_space", lambda folder, size: 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())

    def with_memory(gib):
        class Memory:
            total = gib * 2 ** 30
        monkeypatch.setattr("psutil.virtual_memory", Memory)
    with_memory(64)
    assert needs(world, 15_000)[0] == []
    with_memory(4)
    [lacking] = needs(world, 15_000)[0]
    assert "memory" in lacking
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install .[wan]" in needs(world, 15_000)[0][-1]
    assert "Apache" in licence_of(next(card for card in zoo.cards() if card.name == "doom-maze"))


@pytest.mark.parametrize("size", [(560, 440), (1920, 1080), (80, 60)])
def test_every_world_of_the_catalog_is_listed_with_what_it_is(size):
    session = Session(FakeWorld(), [])
    page = WorldsPage(session.loop._screen, session.loop._commands, Worlds().reopening, lambda: None)
    labels = [row.label for row in page.make_rows()]
    assert "doom-maze" in labels and "wan-action" in labels and "wan-action-bidirectional" not in labels
    surface = pygame.Surface(size)
    for _ in labels:
        page.draw(surface)
        page.press(key(pygame.K_DOWN).scancode)
    session.window.close()
