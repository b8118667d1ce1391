"""Recording during play: what clips hold, and that nothing that goes wrong in one ends the session."""
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import QUIT, Session
from tests.client.test_devices import key
from worldplay.client import hud
from worldplay.client.recorder import Recorder
from worldplay.client.settings import Settings
from worldplay.client.view import Mode
from worldplay.client.window import Window
from worldplay.data.clip import ClipWorld, read_clip


def test_a_recording_holds_what_was_seen_and_a_reset_begins_the_next_one(tmp_path):
    world = FakeWorld(fps=50.0)
    Session(world, [(3, key(pygame.K_w)), (10, key(pygame.K_r)), (10, key(pygame.K_a)), (5, QUIT)],
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


def test_that_it_records_is_shown_while_the_world_is_paused_too(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(hud, "draw_recording", lambda surface, seconds: shown.append(session.mode))
    session = Session(FakeWorld(fps=50.0), [
        (3, key(pygame.K_p)), (lambda: shown[-1] is Mode.PAUSED, key(pygame.K_ESCAPE)),
        (lambda: shown[-1] is Mode.MENU, QUIT)], record_in=tmp_path)
    session.run()
    assert {Mode.PLAYING, Mode.PAUSED, Mode.MENU} <= set(shown)


def test_f9_records_from_the_frame_on_the_screen(tmp_path):
    settings = Settings(record_folder=str(tmp_path / "clips"))
    Session(FakeWorld(fps=50.0, commit=0.01), [(10, key(pygame.K_F9)), (10, key(pygame.K_F9)), (5, QUIT)],
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
    session = Session(world, [(3, key(pygame.K_F9)), (lambda: "cannot be written" in session.notice,),
                              (8, QUIT)],
              settings=Settings(record_folder=str(tmp_path / "file" / "clips")))
    session.run()
    assert len(world.actions) >= 10


def test_a_folder_that_is_gone_at_a_reset_is_a_notice_and_play_goes_on(tmp_path):
    clips, world = tmp_path / "clips", FakeWorld(fps=50.0)

    def lose():
        clips.rename(tmp_path / "gone")
        return True
    session = Session(world, [(3,), (lose, key(pygame.K_r)), (lambda: "No such file" in session.notice,),
                      (5, QUIT)], record_in=clips)
    session.run()
    assert not session.loop._recording.is_recording
    assert [what for what, *_ in world.calls][-6:].count("step") >= 2


def test_clips_are_finished_when_the_window_was_too_small_to_remember(tmp_path):
    tiny = pygame.event.Event(pygame.WINDOWRESIZED, x=90, y=60)
    session = Session(FakeWorld(fps=50.0), [(5, tiny), (3, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    assert read_clip(video).num_frames >= 5 and session.loop.settings == Settings()


def test_a_recording_plays_again_at_r_and_is_not_recorded(tmp_path):
    Session(FakeWorld(fps=50.0), [(6, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    session = Session(ClipWorld(video), [
        (2, key(pygame.K_F9)), (lambda: "a recording already" in session.notice,),
        (lambda: session.mode is Mode.PAUSED and "over; reset to play it again (R resets)" in session.notice,
         key(pygame.K_r)),
        (lambda: session.mode is Mode.PLAYING,), (lambda: session.mode is Mode.PAUSED, QUIT)],
        settings=Settings(record_folder=str(tmp_path / "b")))
    session.run()
    assert len(session.frames) >= 2 * read_clip(video).num_frames - 1 and not (tmp_path / "b").exists()


@pytest.mark.parametrize("place", [
    "ClipWriter", "ClipWriter.add", "ClipWriter.finish", "writable_folder"])
@pytest.mark.parametrize("error", [ValueError("odd"), MemoryError(), RuntimeError("two\nlines")])
def test_whatever_fails_in_a_recording_ends_it_with_a_notice_and_play_goes_on(tmp_path, monkeypatch, caplog,
                                                                              place, error):
    def fail(*_, **__):
        raise error
    world = FakeWorld(fps=50.0)
    monkeypatch.setattr(f"worldplay.client.recorder.{place}", fail)
    session = Session(world, [(4, key(pygame.K_r)), (4, key(pygame.K_F9)),
                              (lambda: session.notice.startswith("Recording ended: "),), (4, QUIT)],
                      record_in=tmp_path)
    session.run()
    assert not session.loop._recording.is_recording and len(world.actions) >= 8
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said and all(line.startswith("recording ended: ") and "\n" not in line for line in said)


def test_seconds_that_cannot_be_kept_leave_the_recording_as_it_is(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("the folder of kept seconds is full")
    monkeypatch.setattr(Recorder, "keep", fails)
    session = Session(FakeWorld(fps=50.0), [
        (10, key(pygame.K_F12)), (lambda: "seconds are not saved: the folder" in session.notice,),
        (5, QUIT)], record_in=tmp_path)
    session.run()
    [video] = tmp_path.glob("*.mp4")
    clip = read_clip(video)
    assert clip.sidecar["recorded"][0] == 0 and clip.num_frames >= 15


def test_a_window_that_is_gone_at_the_end_leaves_a_whole_clip(tmp_path, monkeypatch):
    def fail(window):
        Window.close(window)  # else it is freed in a later test, after SDL gave its memory to another window
        raise pygame.error("the display went away")
    monkeypatch.setattr("tests.client.session.SeenWindow.close", fail, raising=False)
    with pytest.raises(pygame.error):
        Session(FakeWorld(fps=50.0), [(6, QUIT)], record_in=tmp_path).run()
    [video] = tmp_path.glob("*.mp4")
    assert read_clip(video).num_frames >= 6 and not list(tmp_path.glob("*.part.*"))


def test_a_folder_of_the_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = Settings(record_folder="~/clips")
    Session(FakeWorld(fps=50.0), [(4, key(pygame.K_F9)), (4, QUIT)], settings=settings).run()
    assert list((tmp_path / "clips").glob("*.mp4")) and not (tmp_path / "~").exists()


@pytest.mark.parametrize("error", [RuntimeError("a defect"), MemoryError(), OSError(28, "No space left")])
def test_a_clip_that_could_not_be_written_is_not_said_to_be_saved(tmp_path, monkeypatch, caplog, error):
    def fail(writer):
        raise error
    monkeypatch.setattr("worldplay.data.clip_writer.ClipWriter._encode", fail)
    world = FakeWorld(fps=50.0)
    session = Session(world, [(lambda: "recording fake_" in session.notice,), (4, QUIT)], record_in=tmp_path)
    session.run()
    assert not session.loop._recording.is_recording
    said = [record.levelname for record in caplog.records if "recording fake_" in record.message]
    assert said == ["WARNING"]
    assert not [record for record in caplog.records if record.message.startswith("saved")]
