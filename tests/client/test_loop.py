"""The client under scripted events: order of the loop, pauses, late frames, failures, recording, settings."""
import contextlib
import json
import os
import time
from pathlib import Path

os.environ["SDL_VIDEODRIVER"] = "dummy"

import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.test_devices import click, key, motion
from worldplay.action import Action
from worldplay.client import menu
from worldplay.client.loop import Loop, Mode, Sitting
from worldplay.client.settings import Settings, load_settings, save_settings
from worldplay.client.timing import Timing, summary_ms
from worldplay.client.window import Window, fit
from worldplay.client.worker import Reset
from worldplay.data.clip import ClipWorld, read_clip
from worldplay.errors import WorldError

FOCUS_LOST, QUIT = pygame.event.Event(pygame.WINDOWFOCUSLOST), pygame.event.Event(pygame.QUIT)


# The loop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["Opening " + "a/long/folder" * 20, "Opening it"])
def test_what_takes_long_is_written_within_the_window(what):
    pygame.font.init()
    surface = pygame.Surface((400, 300))
    menu.draw_loading(surface, what, 0.0)
    edges = pygame.surfarray.array3d(surface)[[0, 1, 2, -3, -2, -1]]
    assert (edges == edges[0, 0]).all(), "nothing is cut off at the sides"


class SeenWindow(Window):
    """A window without a screen that remembers every frame it drew, with its time."""

    def __init__(self):
        super().__init__((640, 480))
        self.seen, self.captured = [], []

    def draw(self, frame):
        super().draw(frame)
        if not self.seen or self.seen[-1][0] is not frame:
            self.seen.append((frame, time.perf_counter()))

    def capture_mouse(self, is_captured):
        self.captured.append(is_captured)


class Sit:
    """Runs a Loop with scripted events (when, *events).

    when  int: so many frames were seen since the entry before; float: seconds since it; a function: it is so
    """

    def __init__(self, world, script, *, settings=None, **sitting):
        self.world, self.script, self.window = world, list(script), SeenWindow()
        self.served, self.waited, self.modes = [], [], []
        self._deadline = time.perf_counter() + 60
        self._entry_done()
        self.loop = Loop(world if callable(world) else lambda: world, self.window, settings or Settings(),
                         Sitting(title="fake", **sitting), events=self._events)

    def run(self):
        self.loop.run()
        return self

    def _events(self):
        now = time.perf_counter()
        assert now < self._deadline, f"the sitting did not end: {self.script}"
        self.served.append(now)
        self.waited.append(seconds_waited())
        self.modes.append(self.loop._mode)
        if not self.script or not self._is_due(self.script[0][0], now):
            return []
        _, *events = self.script.pop(0)
        self._entry_done()
        return events

    def _entry_done(self):
        self._at, self._count = time.perf_counter(), len(self.window.seen)

    def _is_due(self, when, now):
        if callable(when):
            return when()
        if isinstance(when, float):
            return now - self._at >= when
        return len(self.window.seen) - self._count >= when

    @property
    def frames(self):
        return [frame for frame, _ in self.window.seen]

    @property
    def gaps(self):
        """Seconds between two looks at the event queue, less what other programs took of the processor.

        The two clocks are not read at one instant, so the waits of the neighbouring gaps count too.
        """
        return np.diff(self.served) - np.convolve(np.diff(self.waited), np.ones(3), "same")


def seconds_waited():
    """Seconds our threads could have run while the processor was another's; 0 where the system does not say.

    All threads count: one that is kept waiting while it holds the interpreter's lock holds up the others.
    """
    waited = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            waited += int(file.read_text().split()[1])
    return waited / 1e9


def steps_of(world):
    return [at for what, _, at in world.calls if what == "step"]


def test_the_order_is_wait_poll_step_show_commit():
    world = FakeWorld(fps=20.0, delay=0.005, commit=0.02)
    sit = Sit(world, [(1, key(pygame.K_w)), (10, QUIT)]).run()
    caused = [action.keys for action in world.actions[:len(sit.frames) - 1]]
    assert [keys_shown(frame) for frame in sit.frames[1:]] == caused
    assert world.actions[-1].keys == {"w"}
    steps = steps_of(world)
    commits = [at for what, _, at in world.calls if what == "committed"]
    shown = [at for _, at in sit.window.seen][1:]
    for step, show, commit, following in zip(steps, shown, commits, steps[1:]):
        assert step < show and commit < following and show < following, "committed before the next step"
    early = np.array(shown[:len(commits)]) < commits[:len(shown)]
    assert early.mean() > 0.7, "shown while it is being committed"


def test_frames_are_paced_at_the_rate_of_the_world():
    sit = Sit(FakeWorld(fps=20.0, delay=0.005), [(20, QUIT)]).run()
    gaps = np.diff([at for _, at in sit.window.seen])[1:]
    taken = sit.waited[-1] - sit.waited[0]
    assert 0.044 < np.median(gaps) and gaps.mean() < 0.054 + taken / 10, f"{gaps}; others took {taken:.3f}"


def test_a_tap_between_two_frames_counts_in_the_next_one():
    world = FakeWorld(fps=20.0)
    Sit(world, [(3, key(pygame.K_d), key(pygame.K_d, False)), (4, QUIT)]).run()
    assert [bool(action.keys) for action in world.actions].count(True) == 1


def test_a_late_frame_is_not_made_up():
    world = FakeWorld(fps=20.0, delay=lambda n: 0.4 if n == 4 else 0.0)
    sit = Sit(world, [(10, QUIT)]).run()
    shown = np.array([at for _, at in sit.window.seen])
    latencies = shown[1:5] - steps_of(world)[:4]
    assert latencies[3] > 0.4 and sit.loop.timing.num_late >= 1
    assert shown[5] - shown[4] > 0.035 - np.median(latencies), "the frame after the late one is not hurried"
    assert len(world.actions) <= 12, "and no step is added for the time lost"


def test_the_frames_of_one_latent_are_spread_over_world_time():
    world = FakeWorld(fps=20.0, frames=4)
    sit = Sit(world, [(17, QUIT)]).run()
    gaps = np.diff([at for _, at in sit.window.seen])[1:]
    assert np.delete(gaps[:15], [3, 7, 11]).min() > 0.048, "within a step"
    assert gaps.mean() > 0.044
    assert 4 <= len(world.actions) <= 5, "one action for four frames"


def test_a_world_of_several_latents_at_once_turns_by_the_limit_of_each():
    world = FakeWorld(fps=50.0, frames=4)
    world.info["frames_per_chunk"] = 4
    Sit(world, [(1, motion(100_000)), (12, QUIT)]).run()
    assert max(action.look[0] for action in world.actions) == 4 * world.action_space.look_limit


def test_events_are_served_while_the_worker_is_stuck_for_a_second():
    def slow_open():
        time.sleep(0.5)
        return FakeWorld(delay=lambda n: 1.0 if n == 2 else 0.0)
    sit = Sit(slow_open, [(4, QUIT)]).run()
    assert sit.gaps.max() < 0.05, f"longest silence {1000 * sit.gaps.max():.0f} ms"
    assert np.median(sit.gaps) < 0.004 and sit.loop.timing.longest_gap >= 0.9 * np.diff(sit.served).max()
    assert Mode.LOADING in sit.modes


def test_p_pauses_and_a_single_step_makes_one_frame():
    world = FakeWorld(fps=50.0)
    counts = []

    def note():
        counts.append(len(world.actions))
        return True
    Sit(world, [(3, key(pygame.K_p)), (0.3, key(pygame.K_w)), (note, key(pygame.K_PERIOD)), (0.3,), (note,),
                (0.0, key(pygame.K_PERIOD)), (0.3,), (note,), (0.0, key(pygame.K_p)), (5, QUIT)]).run()
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
    sit = Sit(world, [(3, key(pygame.K_ESCAPE)), (0.2,), (note,), (0.2,), (note, click()),
                      (0.0, click(False)), (4, key(pygame.K_ESCAPE)), (0.1, key(pygame.K_ESCAPE))]).run()
    assert counts[0] == counts[1], "the world stands still"
    assert len(world.actions) > counts[1] + 2, "and goes on"
    assert sit.window.captured == [True, False, True, False, False]
    shots = [action for action in world.actions if "mouse_left" in action.keys]
    assert not shots, "the click that resumes is no shot"


def test_losing_the_focus_pauses_and_releases():
    world = FakeWorld(fps=50.0)
    sit = Sit(world, [(3, key(pygame.K_w)), (3, FOCUS_LOST), (0.1, click()), (4, QUIT)]).run()
    assert Mode.MENU in sit.modes and sit.window.captured[:2] == [True, False]
    assert world.actions[-1] == Action() and any(action.keys for action in world.actions)


def test_a_world_that_opens_while_the_player_is_away_waits_for_a_click():
    world, is_open = FakeWorld(fps=50.0), []

    def slow_open():
        while not is_open:
            time.sleep(0.01)
        return world
    counts = []
    Sit(slow_open, [(0.1, FOCUS_LOST), (lambda: is_open.append(True) is None,), (1,), (0.2,),
                    (lambda: counts.append(len(world.actions)) is None, click()), (4, QUIT)]).run()
    assert counts == [0] and len(world.actions) > 2


def test_r_starts_again_and_tab_takes_the_next_scene():
    world = FakeWorld(fps=50.0)
    keys = (pygame.K_r, pygame.K_TAB, pygame.K_r, pygame.K_TAB)
    sit = Sit(world, [*((3, key(code)) for code in keys), (3, QUIT)]).run()
    assert [scene for what, scene, _ in world.calls if what == "reset"] == ["one", "one", "two", "two", "one"]
    assert sit.loop._request == Reset("one")


def test_mouse_speed_scaling_and_hud_are_kept_as_settings(tmp_path):
    resized = pygame.event.Event(pygame.WINDOWRESIZED, x=700, y=500)
    keys = (pygame.K_EQUALS, pygame.K_F10, pygame.K_F3, pygame.K_F1)
    sit = Sit(FakeWorld(fps=50.0), [*((2, key(code)) for code in keys), (2, resized), (3, QUIT)]).run()
    settings = sit.loop.settings
    assert settings.degrees_per_count == pytest.approx(1.15 * Settings().degrees_per_count)
    assert settings.scaling == "whole" and settings.show_hud and settings.window_size == (700, 500)
    save_settings(settings, tmp_path / "x" / "settings.json")
    assert load_settings(tmp_path / "x" / "settings.json") == settings


@pytest.mark.parametrize("error", [WorldError("not_found", "no world named moon"), RuntimeError("a defect")])
def test_a_world_that_cannot_be_opened_is_shown_and_raised(error):
    def fail():
        raise error
    sit = Sit(fail, [(0.1, key(pygame.K_r)), (0.1, key(pygame.K_F9)), (0.1, key(pygame.K_ESCAPE))])
    with pytest.raises(type(error), match=str(error)):
        sit.run()
    assert sit.modes[-1] is Mode.FAILED and not sit.script, "it stays on the screen until the player leaves"


def test_a_world_that_fails_while_playing_saves_the_clip(tmp_path):
    sit = Sit(FakeWorld(fps=50.0, fail_at=6), [(6,), (lambda: sit.loop._mode is Mode.FAILED,), (0.1, QUIT)],
              record_in=tmp_path)
    with pytest.raises(WorldError, match="plug it in"):
        sit.run()
    [video] = tmp_path.glob("*.mp4")
    assert read_clip(video).num_frames == 6


def test_closing_while_a_world_opens_does_not_wait_for_it():
    start = time.perf_counter()
    Sit(lambda: time.sleep(30.0), [(0.2, QUIT)]).run()
    assert time.perf_counter() - start < 10


# Recording --------------------------------------------------------------------------------------------------


def test_a_recording_holds_what_was_seen_and_a_reset_begins_the_next_one(tmp_path):
    world = FakeWorld(fps=50.0)
    Sit(world, [(3, key(pygame.K_w)), (10, key(pygame.K_r)), (10, key(pygame.K_a)), (5, QUIT)],
        record_in=tmp_path).run()
    paths = sorted(tmp_path.glob("*.mp4"), key=lambda path: (path.stem.count("_"), path.stem))
    clips = [read_clip(path) for path in paths]
    assert len(clips) == 2
    recorded = clips[0].actions[1:] + clips[1].actions[1:]
    assert len(recorded) > 20 and all(action in world.actions for action in recorded)
    assert recorded[:clips[0].num_frames - 1] == world.actions[:clips[0].num_frames - 1]
    for clip in clips:
        assert clip.sidecar["recorded"][0] == 0 and clip.num_frames > 10
        for record, frame in zip(clip.sidecar["frames"], clip.frames(), strict=True):
            assert keys_shown(frame) == clip.actions[record["step"]].keys
            if record["step"]:
                assert record["polled_ms"] <= record["ready_ms"] <= record["flipped_ms"]
                assert record["steps"] == 2 and record["path"] == "eager"


def test_f9_records_from_the_frame_on_the_screen(tmp_path):
    settings = Settings(record_folder=str(tmp_path / "clips"))
    Sit(FakeWorld(fps=50.0, commit=0.01), [(10, key(pygame.K_F9)), (10, key(pygame.K_F9)), (5, QUIT)],
        settings=settings).run()
    [video] = (tmp_path / "clips").glob("*.mp4")
    clip = read_clip(video)
    first, stop = clip.sidecar["recorded"]
    assert 9 <= first <= 11 and 10 <= stop - first <= 12
    assert len(clip.actions) == stop
    assert [entry["step"] for entry in clip.sidecar["frames"]] == list(range(first, stop))
    assert all(keys_shown(frame) == frozenset() for frame in clip.frames())


def test_f9_without_permission_is_a_notice_and_play_goes_on(tmp_path):
    (tmp_path / "file").touch()
    world = FakeWorld(fps=50.0)
    sit = Sit(world, [(3, key(pygame.K_F9)), (lambda: "cannot be written" in sit.loop._screen.notice,), (8, QUIT)],
              settings=Settings(record_folder=str(tmp_path / "file" / "clips")))
    sit.run()
    assert len(world.actions) >= 10


def test_a_folder_that_is_gone_at_a_reset_is_a_notice_and_play_goes_on(tmp_path):
    clips, world = tmp_path / "clips", FakeWorld(fps=50.0)

    def lose():
        clips.rename(tmp_path / "gone")
        return True
    sit = Sit(world, [(3,), (lose, key(pygame.K_r)), (lambda: "No such file" in sit.loop._screen.notice,),
                      (5, QUIT)], record_in=clips)
    sit.run()
    assert not sit.loop._recorder.is_recording
    assert [what for what, *_ in world.calls][-6:].count("step") >= 2


def test_clips_are_finished_when_the_window_was_too_small_to_remember(tmp_path):
    tiny = pygame.event.Event(pygame.WINDOWRESIZED, x=90, y=60)
    sit = Sit(FakeWorld(fps=50.0), [(5, tiny), (3, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    assert read_clip(video).num_frames >= 5 and sit.loop.settings == Settings()


def test_a_recording_plays_again_at_r_and_is_not_recorded(tmp_path):
    Sit(FakeWorld(fps=50.0), [(6, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    sit = Sit(ClipWorld(video), [
        (2, key(pygame.K_F9)), (lambda: "a recording already" in sit.loop._screen.notice,),
        (lambda: sit.loop._mode is Mode.PAUSED, key(pygame.K_r)), (lambda: sit.loop._mode is Mode.PLAYING,),
        (lambda: sit.loop._mode is Mode.PAUSED, QUIT)], settings=Settings(record_folder=str(tmp_path / "b")))
    sit.run()
    assert len(sit.frames) >= 2 * read_clip(video).num_frames - 1 and not (tmp_path / "b").exists()


# Small parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{", "[]", '{"scaling": "odd"}', '{"colour": 1}', '{"window_size": [5, 5]}',
                                  '{"degrees_per_count": "x"}', '{"window_size": 3}', '{"show_hud": 1}'])
def test_a_bad_settings_file_is_said_and_the_defaults_serve(tmp_path, caplog, text):
    (tmp_path / "settings.json").write_text(text)
    assert load_settings(tmp_path / "settings.json") == Settings()
    [said] = caplog.messages
    assert "settings.json" in said and "defaults" in said and "\n" not in said


def test_settings_that_are_missing_or_cannot_be_saved(tmp_path, caplog):
    assert load_settings(tmp_path / "none.json") == Settings() and not caplog.messages
    (tmp_path / "file").touch()
    save_settings(Settings(), tmp_path / "file" / "settings.json")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("screen, scaling, size", [
    ((960, 720), "smooth", (960, 720)), ((1000, 720), "smooth", (960, 720)),
    ((700, 720), "smooth", (700, 525)), ((1000, 720), "whole", (960, 720)), ((959, 719), "whole", (800, 600)),
    ((100, 100), "whole", (100, 75))])
def test_the_picture_keeps_its_aspect(screen, scaling, size):
    assert fit((160, 120), screen, scaling) == size


def test_percentiles_and_rates():
    assert summary_ms([]) is None
    assert summary_ms([0.001 * i for i in range(101)], (50, 95)) == {"p50": 50.0, "p95": 95.0, "max": 100.0}
    timing = Timing()
    for i in range(11):
        timing.flipped(i - 0.03 if i % 2 else None, float(i))
    assert timing.fps(10.0, over=5.5) == pytest.approx(1.0) and len(timing.key_flip) == 5
    assert json.dumps(timing.to_json())
