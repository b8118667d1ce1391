"""Going back: the same frames bit by bit after rewinding, loading and a restart; branches; memory."""
import numpy as np
import pygame
import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import FOCUS_LOST, QUIT, Session
from tests.client.test_devices import key
from tests.engine.test_dream import folder  # noqa: F401
from worldplay.action import Action
from worldplay.client import history as history_file
from worldplay.client.history import History
from worldplay.client.saves import Saves
from worldplay.client.screen import Mode
from worldplay.client.worker import Reset, begin, go_back, snapshot
from worldplay.data.clip import read_clip
from worldplay.data.save_file import read_save
from worldplay.engine.loading import load_world
from worldplay.errors import WorldError

WALK = [Action({"w"} if i % 3 else {"d"}, (float(i % 7) - 3, 0.0)) for i in range(60)]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


class Player:
    """Plays a world as the loop does, with its History."""

    def __init__(self, world, seed=5):
        self.world, self.history, self.num_states = world, History(world), 0
        request = Reset(seed=seed)
        frames = begin(world, request)
        self.history.begin(request, frames, snapshot(world, 2**40))

    def play(self, actions):
        frames = []
        for action in actions:
            keep_up_to = self.history.act(action)
            for frame in self.world.step(action):
                self.history.show(frame, {name: self.world.info.get(name) for name in ("path", "threads")})
                frames.append(frame)
            state = snapshot(self.world, keep_up_to) if keep_up_to else None
            self.num_states += state is not None
            self.history.done(state)
        return np.array(frames).reshape(-1, *self.world.frame_size, 3)

    def back(self, frames):
        moment = self.history.at(frames)
        go_back(self.world, self.history.to(moment))
        self.history.returned(moment, snapshot(self.world, 2**40))
        return moment


@pytest.mark.parametrize("has_snapshots", [True, False])
def test_going_back_to_any_frame_gives_the_same_frames_again(folder, monkeypatch, has_snapshots):  # noqa: F811
    monkeypatch.setattr(history_file, "STATE_SECONDS", 0.5)
    if not has_snapshots:
        monkeypatch.setattr(History, "_keep", lambda *_: None)
    player = Player(load_world(folder, device="cpu"))
    shown = player.play(WALK)
    for frames_back in (0, 1, 13, 30):
        moment = player.back(frames_back)
        assert (player.history.line.number, player.history.moments[-1]) == (moment.number, moment)
        assert np.array_equal(moment.frame, shown[moment.number - 1])
        assert np.array_equal(player.play(WALK[moment.number:]), shown[moment.number:])
    other = player.back(10)
    branch = player.play([Action({"d"}, (3.0, 0.0))] * 10)
    assert not np.array_equal(branch, shown[other.number:]) and len(player.history.line.actions) == 61
    assert (player.num_states > 5) == has_snapshots


def test_a_saved_place_goes_on_bit_by_bit_in_a_world_opened_anew(folder, tmp_path):  # noqa: F811
    player, saves = Player(load_world(folder, device="cpu")), Saves("toy", tmp_path)
    player.play(WALK[:20])
    saves.write("quick", player.history.save("here", player.world.pack()))
    saves.wait()
    expected = player.play(WALK[20:])

    other = Player(load_world(folder, device="cpu"), seed=9)  # weights read anew, nothing shared
    other.play(WALK[3:9])
    saved = read_save(saves.path("quick"))
    go_back(other.world, other.history.to_save(saved, "quick.save"))
    frame = other.history.loaded(saved, snapshot(other.world, 2**40))
    assert np.array_equal(frame, player.history.at(40).frame) and other.history.line.number == 20
    assert np.array_equal(other.play(WALK[20:]), expected)
    other.back(40)
    assert np.array_equal(other.play(WALK[20:]), expected), "also after going back to the loaded place"


def test_what_was_packed_of_another_world_changes_nothing(folder):  # noqa: F811
    player = Player(load_world(folder, device="cpu"))
    player.play(WALK[:5])
    fields, arrays = player.world.pack()
    before = player.world.state
    for bad in (fields | {"cache": None}, {**fields, "controls": {"rig": 3}}, {}):
        with pytest.raises(WorldError, match="no state of toy"):
            player.world.unpack(bad, arrays)
    with pytest.raises(WorldError, match="no state of toy"):
        player.world.unpack(fields, {name: array[..., :1] for name, array in arrays.items()})
    assert player.world.state is before


def test_a_start_that_is_made_again_runs_as_it_did():
    """Another path, number of threads or of sampling steps would round, or sample, its first frames anew."""
    class Recorded(FakeWorld):
        def run_as(self, *how):
            self.calls.append(("run_as", *how))
    world = Recorded()
    world.info |= {"path": "eager", "threads": 1, "steps": 2, "window": 8}
    player = Player(world)
    world.info |= {"path": "compiled", "threads": 2, "steps": 1, "window": 4}
    player.play([Action()] * 3)
    del world.calls[:]
    go_back(world, player.history.to(player.history.moments[1]))
    how = [call if call[0] == "run_as" else call[:1] for call in world.calls
           if call[0] in ("run_as", "reset")]
    assert how[:2] == [("run_as", "eager", 1, 2, 8), ("reset",)]
    assert how[-1] == ("run_as",), "and then as the world itself chooses"


def test_memory_is_bounded_and_reaches_back_30_seconds():
    world = FakeWorld(fps=17.5)
    player = Player(world)
    class State:
        nbytes = 6 * 2**20
    player.history._keep(State, 0)
    for i in range(3000):
        if player.history.act(Action()):
            player.history.done(State)
        player.history.show(np.zeros(1), {})
    assert 30 <= player.history.seconds <= 41
    assert sum(state.nbytes for _, state in player.history._states) <= history_file.STATE_BYTES
    assert player.history._states[0][0] <= player.history.moments[0].step


def test_holding_backspace_goes_back_and_the_clip_branches(tmp_path):
    world = FakeWorld(fps=50.0)
    session = Session(world, [
        (20, key(pygame.K_w)), (20, key(pygame.K_w, False), key(pygame.K_BACKSPACE)),
        (lambda: session.mode is Mode.REWINDING and session.loop._screen.number < 15,
         key(pygame.K_BACKSPACE, False)),
        (lambda: session.mode is Mode.PLAYING, key(pygame.K_a)), (20, QUIT)],
        record_in=tmp_path / "clips")
    session.run()
    clips = [read_clip(path) for path in (tmp_path / "clips").glob("*.mp4")]
    [old] = [clip for clip in clips if not clip.sidecar["branch_of"]]
    [new] = [clip for clip in clips if clip.sidecar["branch_of"]]
    left_at = new.sidecar["branch_of"]["frame"]
    assert new.sidecar["branch_of"]["clip"] == old.path.stem and new.sidecar["recorded"][0] == left_at < 15
    assert old.num_frames > 35 and old.actions[:left_at + 1] == new.actions[:left_at + 1]
    assert keys_shown(list(old.frames())[-1]) == {"w"} and keys_shown(list(new.frames())[-1]) == {"a"}


def test_escape_and_a_lost_focus_end_rewinding():
    session = Session(FakeWorld(fps=50.0), [
        (10, key(pygame.K_BACKSPACE)), (lambda: session.mode is Mode.REWINDING, key(pygame.K_ESCAPE)),
        (lambda: session.mode is Mode.PLAYING,), (5, key(pygame.K_BACKSPACE)),
        (lambda: session.mode is Mode.REWINDING, FOCUS_LOST), (lambda: session.mode is Mode.MENU,),
        (0.1, QUIT)])
    session.run()
    assert Mode.REWINDING in session.modes and session.modes[-1] is Mode.MENU


def test_quick_save_and_load_of_a_world_that_is_taken_back_by_its_actions():
    world = FakeWorld(fps=50.0)
    session = Session(world, [
        (10, key(pygame.K_F5)), (lambda: session.notice == "Saved", key(pygame.K_w)),
        (10, key(pygame.K_F8)), (lambda: session.notice.startswith("Loaded"),), (3, QUIT)])
    session.run()
    resets = [i for i, (what, *_) in enumerate(world.calls) if what == "reset"]
    assert len(resets) == 2 and session.loop._travel.history.line.number >= 10


def test_loading_nothing_is_a_notice_and_play_goes_on():
    session = Session(FakeWorld(fps=50.0), [
        (3, key(pygame.K_F8)), (lambda: session.notice == "Nothing is saved here yet",), (5, QUIT)])
    session.run()
    assert session.mode is Mode.PLAYING


def test_after_a_step_that_failed_backspace_goes_on_before_it():
    world = FakeWorld(fps=50.0, fail_at=20)
    session = Session(world, [
        (lambda: session.mode is Mode.STOPPED, key(pygame.K_BACKSPACE)),
        (lambda: session.mode is Mode.REWINDING and session.loop._screen.number < 15,
         key(pygame.K_BACKSPACE, False)), (lambda: session.mode is Mode.PLAYING,), (3, QUIT)])
    session.run()
    assert session.loop._screen.failure is None


def test_clips_of_one_or_two_frames_are_not_kept(tmp_path):
    world = FakeWorld(fps=20.0)
    Session(world, [(5, key(pygame.K_r)), *[(1, key(pygame.K_r))] * 6, (8, QUIT)], record_in=tmp_path).run()
    clips = [read_clip(path) for path in tmp_path.glob("*.mp4")]
    assert len(clips) == 2 and min(clip.num_frames for clip in clips) >= 3
    assert not list(tmp_path.glob("*.part.*"))
