"""A session on a page without a network: what the player does, and what the pages are to see."""
import time
from dataclasses import replace

import pytest

from tests.client.fake_worlds import FakeWorld, keys_shown
from tests.client.session import PATIENCE
from worldplay.client.desktop import SessionOptions
from worldplay.client.loop import Loop
from worldplay.client.settings import Settings
from worldplay.data.clip import read_clip
from worldplay.serve.exchange import Exchange, Joined, Left
from worldplay.serve.front import page_front
from worldplay.serve.protocol import Away, Button, Do, Key, Move, Scene, Stick, Text


class Session:
    """A Loop on a page. script: (when, *what happens); when is a number of new frames, or a function."""

    def __init__(self, world, *script, **options):
        self.world, self.script, self.exchange = world, list(script), Exchange()
        self.pictures, self.states, self._count = [], [], 0
        self._deadline = time.perf_counter() + PATIENCE
        self.exchange.wake = self._seen
        front = page_front(self.exchange, Settings(), SessionOptions(title="fake", **options))
        self.loop = Loop(lambda: world, replace(front, events=self._events))
        self.loop.run()

    def _seen(self):
        picture = self.exchange.picture
        self.states.append(self.exchange.state)
        if picture and (not self.pictures or self.pictures[-1] is not picture):
            self.pictures.append(picture)

    def _events(self):
        assert time.perf_counter() < self._deadline, self.script
        if self.script:
            when = self.script[0][0]
            if when(self) if callable(when) else len(self.pictures) - self._count >= when:
                self._count = len(self.pictures)
                return [(what, time.perf_counter()) for what in self.script.pop(0)[1:]]
        else:
            self.loop.leave()
        return []

    def keys(self):
        return [action.keys for action in self.world.actions]


def is_in(*modes):
    return lambda session: session.exchange.state.get("mode") in modes


def key(n, code="KeyW", down=True, t=1000.0):
    return Key(n, t + n, code, down)


def test_the_world_waits_for_its_player_and_for_one_who_left():
    stood = []
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (3, key(1)), (3, Left()),
                      (lambda s: is_in("menu")(s) and not stood.append(len(s.world.actions)), Joined()), (3,))
    assert {"w"} in session.keys()
    assert not any(session.keys()[stood[0]:]), "a player who left holds no key"
    assert len(session.keys()) > stood[0], "and who comes back plays on"


def test_a_tap_within_one_frame_counts_once():
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (2, key(1), key(2, down=False)), (4,))
    assert session.keys().count({"w"}) == 1
    shown = [keys_shown(picture.frame) for picture in session.pictures]
    assert shown.count({"w"}) == 1


def test_a_picture_answers_the_oldest_input_that_is_new_in_it():
    session = Session(FakeWorld(), (is_in("menu"), Joined()),
                      (2, key(7, "KeyB"), key(8), key(9, "KeyD")), (3, key(10, down=False)), (3,))
    answered = [picture.answers for picture in session.pictures if picture.answers]
    assert [answer.n for answer in answered] == [8, 10], "KeyB does nothing here"
    first = next(picture for picture in session.pictures if picture.answers)
    assert keys_shown(first.frame) == {"w", "d"} and first.answers.t == 1008.0


def test_losing_the_focus_releases_and_pauses_and_a_click_goes_on():
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (2, key(1)), (2, Away(True)),
                      (is_in("menu"), Away(False)), (is_in("menu"), Do("resume")), (3,))
    assert {"w"} in session.keys() and session.keys()[-1] == frozenset()


def test_mouse_button_and_stick_are_played():
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (2, Move(1, 1, 50, 3), Button(2, 1, 0, True)),
                      (2, Button(3, 1, 0, False), Stick(4, 1, "left", 0, -1)), (3,))
    assert max(action.look[0] for action in session.world.actions) == pytest.approx(6.0)
    assert {"mouse_left"} in session.keys() and session.keys()[-1] == {"w"}


def test_commands_by_key_and_by_button():
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (2, key(1, "KeyP"), key(2, "KeyP", False)),
                      (is_in("paused"), Do("single_step")), (1, Do("pause")), (2, Scene("two")),
                      (2, Scene("nowhere"), Do("next_scene")), (2, key(3, "F1"), key(4, "F11"), Do("escape")),
                      (is_in("menu"), Do("reset")), (1,))
    resets = [scene for what, scene, _ in session.world.calls if what == "reset"]
    assert resets == ["one", "two", "one", "one"]


def test_rewinding_lasts_as_long_as_its_key():
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (20, key(1, "Backspace")),
                      (lambda s: (s.exchange.state["rewound"] or 0) > 0.2, key(2, "Backspace", False)),
                      (is_in("playing"),), (3,))
    assert any(state["mode"] == "rewinding" for state in session.states)


def test_a_text_reaches_the_world():
    session = Session(FakeWorld(prompt="red"), (is_in("menu"), Joined()), (2, Text("blue")),
                      (lambda s: s.exchange.state["prompt"] == "blue",), (2,))
    assert session.world.info["prompt"] == "blue" and session.exchange.world["reads_text"]


def test_a_text_of_a_page_names_no_file_of_the_machine():
    session = Session(FakeWorld(prompt="red"), (is_in("menu"), Joined()), (2, Text("/etc/rows.SafeTensors")),
                      (8,))
    assert session.world.info["prompt"] == "red"


def test_a_recording_can_be_downloaded_once_it_is_whole(tmp_path):
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (5, key(1)), (5, Do("record")),
                      (lambda s: s.exchange.downloads,), record_in=tmp_path)
    names = sorted(session.exchange.downloads)
    assert [name.rpartition(".")[2] for name in names] == ["json", "mp4"]
    clip = read_clip(next(path for path in session.exchange.downloads.values() if path.suffix == ".mp4"))
    assert len(clip.sidecar["frames"]) >= 5
    assert session.exchange.state["clips"] == [name for name in names if name.endswith(".mp4")]


def test_a_world_that_stops_says_why_and_starts_again():
    session = Session(FakeWorld(fail_at=3), (is_in("menu"), Joined()), (is_in("stopped"), Do("reset")), (4,))
    assert any("plug it in again" in state["failure"] for state in session.states)
    assert len(session.world.actions) > 3


def test_what_only_a_window_has_is_not_listed_at_the_page_and_its_keys_do_nothing():
    session = Session(FakeWorld(), (is_in("menu"), Joined()), (2, key(1, "F6"), key(2, "F7"), key(3, "KeyG")),
                      (3,))
    facts = session.exchange.world
    listed = {says for rows in facts["help"] for _, says in rows}
    assert "save this place" in listed and not listed & {"saved places", "clips", "the real game"}
    assert not {"F6", "F7"} & facts["commands"].keys()
    assert not any(state["notice"] for state in session.states)
