"""The loop under scripted events: its order, pauses, late frames, failures."""
import threading
import time

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import FOCUS_LOST, QUIT, Session, steps_of
from tests.client.test_devices import click, key, motion
from worldplay.action import Action
from worldplay.client import menu
from worldplay.client.settings import Settings, load_settings, save_settings
from worldplay.client.view import Mode
from worldplay.client.worker import Reset
from worldplay.data.clip import read_clip
from worldplay.errors import WorldError


@pytest.mark.parametrize("what", ["Opening " + "a/long/folder" * 20, "Opening it"])
def test_what_takes_long_is_written_within_the_window(what):
    pygame.font.init()
    surface = pygame.Surface((400, 300))
    menu.draw_loading(surface, what, 0.0)
    edges = pygame.surfarray.array3d(surface)[[0, 1, 2, -3, -2, -1]]
    assert (edges == edges[0, 0]).all(), "nothing is cut off at the sides"


def test_the_order_is_wait_poll_step_show_commit():
    world = FakeWorld(fps=20.0, delay=0.005, commit=0.02)
    session = Session(world, [(1, key(pygame.K_w)), (10, QUIT)]).run()
    caused = [action.keys for action in world.actions[:len(session.frames) - 1]]
    assert [keys_shown(frame) for frame in session.frames[1:]] == caused
    assert world.actions[-1].keys == {"w"}
    steps = steps_of(world)
    commits = [at for what, _, at in world.calls if what == "committed"]
    shown = [at for _, at in session.window.seen][1:]
    for step, show, commit, following in zip(steps, shown, commits, steps[1:]):
        assert step < show and commit < following and show < following, "committed before the next step"
    early = np.array(shown[:len(commits)]) < commits[:len(shown)]
    assert early.mean() > 0.7, "shown while it is being committed"


def test_frames_are_paced_at_the_rate_of_the_world():
    session = Session(FakeWorld(fps=20.0, delay=0.005), [(20, QUIT)]).run()
    gaps = np.diff([at for _, at in session.window.seen])[1:]
    taken = session.waited[-1] - session.waited[0]
    assert 0.044 < np.median(gaps) and gaps.mean() < 0.054 + taken / 10, f"{gaps}; others took {taken:.3f}"


def test_a_tap_between_two_frames_counts_in_the_next_one():
    world = FakeWorld(fps=20.0)
    Session(world, [(3, key(pygame.K_d), key(pygame.K_d, False)), (4, QUIT)]).run()
    assert [bool(action.keys) for action in world.actions].count(True) == 1


def test_a_late_frame_adds_no_step_for_the_time_lost():
    world = FakeWorld(fps=20.0, delay=lambda n: 0.4 if n == 4 else 0.0)
    session = Session(world, [(10, QUIT)]).run()
    shown = np.array([at for _, at in session.window.seen])
    assert shown[4] - steps_of(world)[3] > 0.4 and session.loop.timing.num_late >= 1
    assert len(world.actions) <= 12


def test_the_frames_of_one_latent_are_spread_over_world_time():
    world = FakeWorld(fps=20.0, frames=4)
    session = Session(world, [(17, QUIT)]).run()
    gaps = np.diff([at for _, at in session.window.seen])[1:]
    assert np.delete(gaps[:15], [3, 7, 11]).min() > 0.048, "within a step"
    assert gaps.mean() > 0.044
    assert 4 <= len(world.actions) <= 5, "one action for four frames"


def test_a_world_of_several_latents_at_once_turns_by_the_limit_of_each():
    world = FakeWorld(fps=50.0, frames=4)
    world.info["frames_per_chunk"] = 4
    Session(world, [(1, motion(100_000)), (12, QUIT)]).run()
    assert max(action.look[0] for action in world.actions) == 4 * world.action_space.look_limit


def test_events_are_served_while_the_worker_is_stuck_for_a_second():
    def slow_open():
        time.sleep(0.5)
        return FakeWorld(delay=lambda n: 1.0 if n == 2 else 0.0)
    session = Session(slow_open, [(4, QUIT)]).run()
    assert session.gaps.max() < 0.05, f"longest silence {1000 * session.gaps.max():.0f} ms"
    assert np.median(session.gaps) < 0.004
    assert session.loop.timing.longest_gap >= 0.9 * np.diff(session.served).max()
    assert Mode.LOADING in session.modes


def test_p_pauses_and_a_single_step_makes_one_frame():
    world = FakeWorld(fps=50.0)
    counts = []

    def note():
        counts.append(len(world.actions))
        return True
    Session(world, [(3, key(pygame.K_p)), (0.3, key(pygame.K_w)), (note, key(pygame.K_PERIOD)), (0.3,),
                    (note,), (0.0, key(pygame.K_PERIOD)), (0.3,), (note,), (0.0, key(pygame.K_p)),
                    (5, QUIT)]).run()
    paused, once, twice = counts
    assert (once, twice) == (paused + 1, paused + 2), "one frame for each '.'"
    assert world.actions[paused].keys == world.actions[once].keys == {"w"}, "keys count in a single step too"
    assert len(world.actions) >= twice + 5, "P goes on"


def test_esc_frees_the_mouse_a_click_resumes_and_esc_again_quits():
    world = FakeWorld(fps=50.0)
    counts = []

    def note():
        counts.append(len(world.actions))
        return True
    session = Session(world, [(3, key(pygame.K_ESCAPE)), (0.2,), (note,), (0.2,), (note, click()),
                      (0.0, click(False)), (4, key(pygame.K_ESCAPE)), (0.1, key(pygame.K_ESCAPE))]).run()
    assert counts[0] == counts[1], "the world stands still"
    assert len(world.actions) > counts[1] + 2, "and goes on"
    assert session.window.captured == [True, False, True, False, False]
    shots = [action for action in world.actions if "mouse_left" in action.keys]
    assert not shots, "the click that resumes is no shot"


def test_losing_the_focus_pauses_and_releases():
    world = FakeWorld(fps=50.0)
    session = Session(world, [(3, key(pygame.K_w)), (3, FOCUS_LOST), (0.1, click()), (4, QUIT)]).run()
    assert Mode.MENU in session.modes and session.window.captured[:2] == [True, False]
    assert world.actions[-1] == Action() and any(action.keys for action in world.actions)


def test_a_world_that_opens_while_the_player_is_away_waits_for_a_click():
    world, is_open = FakeWorld(fps=50.0), []

    def slow_open():
        while not is_open:
            time.sleep(0.01)
        return world
    counts = []
    Session(slow_open, [(0.1, FOCUS_LOST), (lambda: is_open.append(True) is None,), (1,), (0.2,),
                    (lambda: counts.append(len(world.actions)) is None, click()), (4, QUIT)]).run()
    assert counts == [0] and len(world.actions) > 2


def test_r_starts_again_and_tab_takes_the_next_scene():
    world = FakeWorld(fps=50.0)
    keys = (pygame.K_r, pygame.K_TAB, pygame.K_r, pygame.K_TAB)
    session = Session(world, [*((3, key(code)) for code in keys), (3, QUIT)]).run()
    assert [scene for what, scene, _ in world.calls if what == "reset"] == ["one", "one", "two", "two", "one"]
    assert session.loop._commands.request == Reset("one")


def test_mouse_speed_scaling_and_hud_are_kept_as_settings(tmp_path):
    resized = pygame.event.Event(pygame.WINDOWRESIZED, x=700, y=500)
    keys = (pygame.K_EQUALS, pygame.K_F10, pygame.K_F3, pygame.K_F1)
    script = [*((2, key(code)) for code in keys), (2, resized), (3, QUIT)]
    session = Session(FakeWorld(fps=50.0), script).run()
    settings = session.loop.settings
    assert settings.degrees_per_count == pytest.approx(1.15 * Settings().degrees_per_count)
    assert settings.scaling == "whole" and settings.show_hud and settings.window_size == (700, 500)
    save_settings(settings, tmp_path / "x" / "settings.json")
    assert load_settings(tmp_path / "x" / "settings.json") == settings


@pytest.mark.parametrize("error", [WorldError("not_found", "no world named moon"), RuntimeError("a defect")])
def test_a_world_that_cannot_be_opened_is_shown_and_raised(error):
    def fail():
        raise error
    session = Session(fail, [(0.1, key(pygame.K_r)), (0.1, key(pygame.K_F9)), (0.1, key(pygame.K_ESCAPE))])
    with pytest.raises(type(error), match=str(error)):
        session.run()
    assert session.modes[-1] is Mode.FAILED and not session.script, "shown until the player leaves"


NOT_FINITE = WorldError("not_finite", "frame 6 is not finite; start again, or with fewer --steps")


@pytest.mark.parametrize("error", [NOT_FINITE, RuntimeError("out of memory"), MemoryError()])
def test_a_step_that_fails_stops_the_world_and_the_clip_is_saved_at_once(tmp_path, error):
    world = FakeWorld(fps=50.0, fail_at=6, error=error)
    session = Session(world, [
        (lambda: session.mode is Mode.STOPPED and any(tmp_path.glob("*.mp4")),),
        (0.0, *(key(code) for code in (pygame.K_p, pygame.K_PERIOD, pygame.K_F9, pygame.K_F2)), click()),
        (0.2, key(pygame.K_ESCAPE))], record_in=tmp_path)
    with pytest.raises(type(error)):
        session.run()
    assert not session.script and session.modes[-1] is Mode.STOPPED, "no other key does anything"
    [video] = tmp_path.glob("*.mp4")
    assert read_clip(video).num_frames == 6 and len(world.actions) == 6


@pytest.mark.parametrize("code, scene", [(pygame.K_r, "one"), (pygame.K_TAB, "two")])
def test_a_reset_after_a_step_that_failed_plays_and_records_on(tmp_path, caplog, code, scene):
    world = FakeWorld(fps=50.0, fail_at=6, error=NOT_FINITE)
    session = Session(world, [(lambda: session.mode is Mode.STOPPED, key(code)),
                              (lambda: len(world.actions) > 10, QUIT)], record_in=tmp_path)
    session.run()
    assert [name for what, name, _ in world.calls if what == "reset"] == ["one", scene]
    clips = [read_clip(path) for path in tmp_path.glob("*.mp4")]
    assert sorted(clip.sidecar["scene"] for clip in clips) == sorted(["one", scene])
    [said] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "not finite" in said and "\n" not in said


def test_a_scene_that_cannot_be_begun_stops_the_world_and_another_one_plays(tmp_path):
    world = FakeWorld(fps=50.0)
    world.scenes = ("one", "lost", "two")
    begin = world.reset

    def reset(scene=None, **start):
        if scene == "lost":
            raise WorldError("bad_scene", "scene lost is damaged; restore it")
        return begin(scene, **start)
    world.reset = reset
    session = Session(world, [(3, key(pygame.K_TAB)),
                              (lambda: session.mode is Mode.STOPPED, key(pygame.K_TAB)),
                              (lambda: session.mode is Mode.PLAYING,), (3, QUIT)])
    session.run()
    assert session.loop._commands.request == Reset("two")


def test_a_step_that_hangs_is_said_on_the_screen_until_it_answers(monkeypatch):
    monkeypatch.setattr("worldplay.client.loop.UNANSWERED_AFTER", 0.3)
    is_free = threading.Event()
    world = FakeWorld(fps=50.0, delay=lambda n: n == 3 and not is_free.wait(60))
    session = Session(world, [
        (lambda: session.loop._screen._waited().startswith("The model has not answered for"),),
        (0.0, key(pygame.K_ESCAPE)), (lambda: session.mode is Mode.MENU and session.loop._screen._waited(),),
        (lambda: is_free.set() is None, click()),
        (lambda: len(world.actions) > 6 and not session.loop._screen._waited(), QUIT)])
    session.run()


def test_keys_that_go_down_while_the_world_loads_count_from_the_first_frame():
    is_open, world = threading.Event(), FakeWorld(fps=50.0)
    Session(lambda: is_open.wait(60) and world, [
        (0.1, key(pygame.K_w), key(pygame.K_r), key(pygame.K_d)), (0.0, key(pygame.K_d, False)),
        (lambda: is_open.set() is None,), (4, QUIT)]).run()
    assert all(action.keys == {"w"} for action in world.actions), "what was let go before does not count"
    assert [what for what, *_ in world.calls].count("reset") == 1, "no command does"


def test_closing_while_a_world_opens_does_not_wait_for_it():
    start = time.perf_counter()
    Session(lambda: time.sleep(30.0), [(0.2, QUIT)]).run()
    assert time.perf_counter() - start < 10
