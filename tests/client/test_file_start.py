"""Play that begins from a file: the motion of a clip goes on, exactly again; its page; replay elsewhere."""
import time
from collections import deque
from dataclasses import replace

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import SPACE, FakeWorld, keys_shown
from tests.client.session import QUIT, Session
from tests.client.test_devices import key, motion
from tests.client.test_pages import ENTER, Worlds, typed, up_of
from tests.client.test_pictures_page import page, taps
from tests.client.test_travel import WALK, Player, own_folders  # noqa: F401
from tests.engine.test_dream import folder  # noqa: F401
from worldplay.action import Action
from worldplay.cli.play import main
from worldplay.client import replay_page
from worldplay.client.clips_page import ClipPage, ClipsPage
from worldplay.client.line import Line
from worldplay.client.replay_page import ReplayPage, start_of
from worldplay.client.saves import Saves
from worldplay.client.screen import Mode
from worldplay.client.settings import Settings
from worldplay.client.worker import Reset, begin, go_back, read, snapshot
from worldplay.client.worlds_page import StartPage
from worldplay.data.clip import read_clip
from worldplay.data.save_file import read_save
from worldplay.engine.loading import load_world
from worldplay.eval.replay import run_replay
from worldplay.worlds import zoo


@pytest.fixture
def walked(folder, tmp_path):  # noqa: F811
    """A clip of a walk in the toy world."""
    out = tmp_path / "walk.mp4"
    assert main([str(folder), "--headless", "--script", "w+look(5,0)*20", "--out", str(out),
                 "--device", "cpu"]) == 0
    return out


def test_a_world_that_begins_from_a_clip_has_its_frames_and_actions_for_a_past(folder, walked):  # noqa: F811
    world = load_world(folder, device="cpu")
    request = read(world, Reset(file=walked))
    num = min(world.config.window, 21)
    assert request.frames.shape[0] == len(request.actions) == num and request.actions[-1].keys == {"w"}
    begin(world, request)
    moving = next(iter(world.step(Action({"w"}))))
    world = load_world(folder, device="cpu")
    world.reset(frames=request.frames, actions=[*request.actions])
    assert np.array_equal(moving, next(iter(world.step(Action({"w"})))))
    world = load_world(folder, device="cpu")
    world.reset(frames=request.frames, actions=[Action()] * num)
    assert not np.array_equal(moving, next(iter(world.step(Action({"w"}))))), "its motion counts"


def test_what_began_from_a_clip_replays_exactly_and_goes_on_exactly_from_a_saved_place(
        folder, walked, tmp_path):  # noqa: F811
    out = tmp_path / "on.mp4"
    assert main([str(folder), "--headless", "--script", "d*9", "--out", str(out), "--scene", str(walked),
                 "--device", "cpu"]) == 0
    clip = read_clip(out)
    assert clip.sidecar["scene"] is None and len(clip.start_actions) == len(clip.start)
    assert clip.start_actions[-1].keys == {"w"}
    assert run_replay(out, world=str(folder), device="cpu")["is_equal"]

    player, saves = Player(load_world(folder, device="cpu")), Saves("toy", tmp_path)
    request = read(player.world, Reset(file=walked))
    player.history.begin(request, begin(player.world, request))  # no snapshot: made again from the start
    player.play(WALK[:6])
    saves.write("quick", player.history.save("here", None))
    saves.wait()
    expected = player.play(WALK[6:12])
    saved, other = read_save(saves.path("quick")), Player(load_world(folder, device="cpu"), seed=9)
    go_back(other.world, other.history.to_save(saved, "quick.save"))
    other.history.loaded(saved, snapshot(other.world, 2**40))
    assert np.array_equal(other.play(WALK[6:12]), expected)
    line = Line.of_clip(clip, clip.num_frames - 1)
    assert line.request.actions == clip.start_actions


class Moving(FakeWorld):
    """It remembers with which frames and actions it began; its window is nine frames."""

    def __init__(self, **options):
        super().__init__(**options)
        self.info["window"], self.begun = 9, []

    def reset(self, scene=None, *, frames=None, actions=None, seed=None):
        self.begun.append((frames, actions))
        shown = super().reset(scene, frames=frames, actions=actions, seed=seed)
        return shown if frames is None else frames


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with a clip in which w, then d is down."""
    where = tmp_path_factory.mktemp("clips")
    Session(FakeWorld(fps=50.0), [
        (8, key(pygame.K_w)), (14, key(pygame.K_w, False), key(pygame.K_d)), (14, QUIT)],
        record_in=where).run()
    return where


def in_gallery_of(session):
    """Entries of a script that show the only clip, standing."""
    return [(3, *taps(pygame.K_F7)), (lambda: isinstance(page(session()), ClipsPage), *taps(pygame.K_RETURN)),
            (lambda: isinstance(page(session()), ClipPage), *taps(pygame.K_SPACE)), (0.05,)]


@pytest.mark.parametrize("row, num", [(0, 9), (1, 1)])
def test_from_any_frame_of_the_gallery_play_goes_on_with_its_motion_or_standing_still(clips, row, num):
    world, at = Moving(fps=50.0), []
    session = Session(world, [
        *in_gallery_of(lambda: session),
        (0.05, *taps(*[pygame.K_RIGHT] * 16)), (0.05, *taps(pygame.K_b)),
        (lambda: isinstance(page(session), StartPage) and not at.append(round(
            page(session)._at_second / page(session)._stills.period)), *taps(*[pygame.K_DOWN] * row)),
        *typed(ENTER), (lambda: len(world.begun) == 2 and session.mode is Mode.PLAYING, QUIT)],
        settings=Settings(record_folder=str(clips)))
    session.run()
    frames, actions = world.begun[1]
    [path] = clips.glob("*.mp4")
    whole = list(read_clip(path).frames())
    assert len(frames) == len(actions) == num and at[-1] >= 16
    assert np.abs(frames[-1].astype(int) - whole[at[-1]]).max() <= (0 if num > 1 else 4)
    if num > 1:
        assert [action.keys for action in actions] == [keys_shown(frame) for frame in frames]
    else:
        assert actions == [Action()]


def test_a_file_that_was_named_at_the_start_is_shown_as_the_world_sees_it(clips):
    world, [path] = Moving(fps=50.0), clips.glob("*.mp4")
    session = Session(world, [
        (lambda: isinstance(page(session), StartPage) and session.mode is Mode.MENU, ENTER, up_of(ENTER)),
        (lambda: len(world.begun) == 2 and session.mode is Mode.PLAYING,), (3, QUIT)],
        start=Reset(file=path))
    session.run()
    (first, actions), (again, _) = world.begun
    assert len(first) == len(actions) == 9 and np.array_equal(first, again), "its last frames"


def test_a_clip_is_replayed_in_another_world_and_a_key_takes_over(clips, monkeypatch):
    [card] = [card for card in zoo.cards() if card.name == "doom-maze"]
    cards = [card, replace(card, name="other", action_space=SPACE)]
    monkeypatch.setattr(replay_page.zoo, "cards", lambda: cards)
    [path] = clips.glob("*.mp4")
    clip, other = read_clip(path), Moving(fps=50.0)
    ahead = start_of(clip).ahead
    session = Session(FakeWorld(fps=50.0), [
        *in_gallery_of(lambda: session), (0.0, *taps(pygame.K_w)),
        (lambda: isinstance(page(session), ReplayPage), ENTER, up_of(ENTER)),
        (lambda: "doom-maze does not fit: It was played with" in session.notice, *taps(pygame.K_DOWN)),
        *typed(ENTER), (lambda: session.loop.world is other and session.mode is Mode.PLAYING,),
        (lambda: "The replay is over" in session.notice,), (2, *taps(pygame.K_r)),
        (lambda: len(other.begun) == 2 and session.mode is Mode.PLAYING,), (6, key(pygame.K_s)),
        (lambda: keys_shown(session.frames[-1]) == {"s"},), (2, key(pygame.K_s, False)), (3, QUIT)],
        settings=Settings(record_folder=str(clips)), reopening=Worlds(other).reopening)
    session.run()
    frames, actions = other.begun[0]
    assert len(frames) == len(actions) == clip.step_end(7) + 1
    played = [action.keys for action in other.actions]
    assert played[:len(ahead)] == [action.keys for action in ahead] and {"d"} in played
    assert played[-1] == set() and not session.loop._commands.ahead, "the key took over for good"


@pytest.mark.parametrize("event, takes_over", [
    (motion(2), False), (motion(100), True), (key(pygame.K_LEFT), True), (key(pygame.K_w), True)])
def test_a_replay_is_left_by_a_key_or_a_turn_and_not_by_a_tremor(event, takes_over):
    session, world = Session(FakeWorld(), []), FakeWorld()
    commands = session.loop._commands
    commands.open(world)
    commands.ahead = deque([Action({"d"})] * 9)
    commands.next_action()
    commands._device.feed(event)
    time.sleep(0.05)  # a key that turns does so by time
    action = commands.next_action()
    assert (action == Action({"d"})) == (not takes_over) and bool(commands.ahead) == (not takes_over)
    session.window.close()


@pytest.mark.parametrize("size", [(560, 440), (3840, 2160), (80, 60)])
def test_the_pages_are_drawn_and_every_row_of_them_can_be_reached(clips, size):
    session, [path] = Session(FakeWorld(), []), clips.glob("*.mp4")
    screen, surface = session.loop._screen, pygame.Surface(size)
    screen.world = FakeWorld()
    for shown in (StartPage(screen, session.loop._commands, path, None),
                  ReplayPage(read_clip(path), screen, session.loop._commands, Worlds().reopening)):
        for _ in range(len(shown.make_rows()) + 1):
            shown.draw(surface)
            shown.press(key(pygame.K_RIGHT).scancode)
            shown.press(key(pygame.K_DOWN).scancode)
    session.window.close()
