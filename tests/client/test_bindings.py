"""Bindings: changed, kept, in conflict, as presets; and the tables of the documents made from them."""
import pygame
import pytest

from tests import ROOT
from tests.client.fake_worlds import SPACE
from tests.client.test_devices import click, key, motion
from worldplay.action import Action, ActionSpace
from worldplay.client import inputs
from worldplay.client.bindings import BINDINGS, PRESETS, Bindings, controls_table
from worldplay.client.devices import KeyboardMouse
from worldplay.client.settings import Settings


def played(bindings, event, space=SPACE):
    device = KeyboardMouse(space, 0.1, bindings=bindings)
    device.feed(event)
    return device.poll().keys


def test_every_input_has_one_text_that_names_it_and_a_label():
    for binding in BINDINGS:
        for code in binding.inputs:
            assert inputs.named(inputs.text_of(code)) == code and inputs.label_of(code, {})
    for scancode in range(512):
        assert inputs.named(inputs.text_of(scancode)) == scancode and inputs.label_of(scancode, {})
    for text in ("key:", "key:NONE_SUCH", "key:9999", "mouse:0", "mouse:x", "pad:", "pad:lefty", 3, None):
        with pytest.raises(ValueError, match="expected for example key:W"):
            inputs.named(text)


def test_a_changed_key_takes_the_place_of_its_own_kind_alone_and_is_kept():
    bindings = Bindings()
    bindings.bind("w", pygame.KSCAN_UP)
    assert played(bindings, key(pygame.K_UP)) == {"w"} and played(bindings, key(pygame.K_w)) == set()
    assert inputs.pad("lefty-") in bindings.inputs("w"), "the gamepad stays as it was"
    bindings.bind("mouse_left", pygame.KSCAN_SPACE)
    again = Bindings(Settings(bindings=bindings.to_json()).bindings)
    assert again.changes == bindings.changes
    assert played(again, key(pygame.K_SPACE)) == {"mouse_left"} and played(again, click()) == set()
    again.restore("w")
    assert played(again, key(pygame.K_w)) == {"w"}


def test_of_two_that_want_one_key_the_latest_change_has_it_and_the_other_is_said():
    bindings = Bindings()
    bindings.bind("w", pygame.KSCAN_A)
    assert played(bindings, key(pygame.K_a)) == {"w"} and bindings.missing(SPACE) == ["a"]
    assert bindings.missing(SPACE, has_pad=True) == []
    bindings.bind("a", pygame.KSCAN_A)
    assert played(bindings, key(pygame.K_a)) == {"a"}
    bindings.bind("w", None)
    assert bindings.missing(SPACE, has_pad=True) == ["w"]
    assert ("no key", "forward") in bindings.help_rows(SPACE, {})[0]


def test_a_command_on_a_key_of_the_world_is_left_out_and_the_way_out_never_is():
    bindings = Bindings()
    bindings.bind("record", pygame.KSCAN_W)
    bindings.bind("w", pygame.KSCAN_ESCAPE)
    assert bindings.command_of(key(pygame.K_ESCAPE), SPACE) == "escape"
    assert bindings.command_of(key(pygame.K_w), SPACE) == "record", "W is no longer the world's"
    bindings.restore("w")
    assert bindings.command_of(key(pygame.K_w), SPACE) is None
    assert bindings.command_of(key(pygame.K_w), ActionSpace(("a",), 0.0, 0)) == "record"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_walks_turns_and_leaves_every_key_of_the_world_one_that_works(preset):
    bindings = Bindings()
    bindings.bind("w", None)
    bindings.take_preset(preset)
    assert bindings.preset == preset and bindings.missing(SPACE) == []
    table = bindings.played(SPACE)
    for name in ("w", "a", "s", "d", "mouse_left", "look_left", "look_right"):
        codes = [code for code in bindings.inputs(name) if not inputs.is_pad(code)]
        assert any(table.get(code) == name for code in codes), name


def test_the_layout_names_a_changed_key():
    bindings = Bindings()
    bindings.bind("w", pygame.KSCAN_Q)
    assert bindings.help_rows(SPACE, {pygame.KSCAN_Q: "A"})[0][0] == ("A", "forward")
    assert bindings.help_rows(SPACE, {}, is_pad=True)[0][0] == ("left stick up", "forward")


@pytest.mark.parametrize("document", ["README.md", "docs/play.md"])
def test_the_controls_of_the_documents_are_the_bindings(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    table = controls_table()
    assert table in text, f"{document} lists other controls; put this table there:\n{table}"


def test_motion_while_nothing_is_bound_is_harmless():
    bindings = Bindings({binding.name: [] for binding in BINDINGS if binding.name != "escape"})
    device = KeyboardMouse(SPACE, 0.1, bindings=bindings)
    for event in (key(pygame.K_w), click(), motion(10)):
        device.feed(event)
    assert device.poll() == Action(frozenset(), (1.0, 0.0)) and bindings.missing(SPACE) == list(SPACE.keys)
