"""Keyboard and mouse: holds, taps, summed motion, whose key it is, and the help that lists every binding."""
import pygame
import pytest

from tests.client.fake_worlds import SPACE
from worldplay.action import KEYS, Action, ActionSpace
from worldplay.client.bindings import BINDINGS, COMMANDS, WORLD_BINDINGS, Bindings
from worldplay.client.devices import CARRIED_FRAMES, KeyboardMouse
from worldplay.client.screen import Screen
from worldplay.client.window_commands import WindowCommands

NAMES = [name.removeprefix("KSCAN_") for name in dir(pygame) if name.startswith("KSCAN_")]
SCANCODES = {getattr(pygame, f"K_{name.lower() if len(name) == 1 else name}", None):
             getattr(pygame, f"KSCAN_{name}") for name in NAMES}  # of the US layout, by key code


def key(code, is_down=True, mod=0, scancode=None):
    """The event of a key of the US layout, or of another one if a scancode is given."""
    return pygame.event.Event(pygame.KEYDOWN if is_down else pygame.KEYUP, key=code, mod=mod,
                              scancode=SCANCODES.get(code, 0) if scancode is None else scancode)


def motion(x, y=0):
    return pygame.event.Event(pygame.MOUSEMOTION, rel=(x, y), pos=(0, 0), buttons=(0, 0, 0))


def click(is_down=True, button=1):
    kind = pygame.MOUSEBUTTONDOWN if is_down else pygame.MOUSEBUTTONUP
    return pygame.event.Event(kind, button=button, pos=(5, 5))


def test_a_key_held_counts_in_every_frame_and_a_tap_in_the_next_one():
    device = KeyboardMouse(SPACE, 0.1)
    device.feed(key(pygame.K_w))
    device.feed(key(pygame.K_d))
    device.feed(key(pygame.K_d, False))
    assert [device.poll().keys for _ in range(3)] == [{"w", "d"}, {"w"}, {"w"}]
    device.feed(key(pygame.K_w, False))
    assert device.poll() == Action()


# The places of W A S D and P with what they print.
LAYOUTS = {"ru": "\u0446\u0444\u044b\u0432\u0437", "gr": "\u03c2\u03b1\u03c3\u03b4\u03c0", "fr": "zqsdp",
           "kr": "\u3148\u3141\u3134\u3147\u3154", "us(dvorak)": ",aoel"}
PLACES = (pygame.KSCAN_W, pygame.KSCAN_A, pygame.KSCAN_S, pygame.KSCAN_D, pygame.KSCAN_P)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_keys_are_places_whatever_the_layout_prints_there(layout):
    device = KeyboardMouse(SPACE, 0.1)
    pressed = [key(ord(letter), scancode=place) for letter, place in zip(LAYOUTS[layout], PLACES)]
    for event in pressed:
        device.feed(event)
    assert device.poll().keys == {"w", "a", "s", "d"}
    assert [Bindings().command_of(event, SPACE) for event in pressed] == [None, None, None, None, "pause"]
    for letter, place in zip(LAYOUTS[layout], PLACES):
        device.feed(key(ord(letter), False, scancode=place))
    assert device.poll() == Action()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_key_held_over_a_change_of_the_layout_is_let_go(layout):
    device = KeyboardMouse(SPACE, 0.1)
    device.feed(key(pygame.K_w))
    device.poll()
    device.feed(key(ord(LAYOUTS[layout][0]), False, scancode=pygame.KSCAN_W))
    assert device.poll() == Action()


@pytest.mark.parametrize("name", ["shift", "ctrl", "alt"])
def test_letting_go_of_the_right_one_does_not_let_go_of_the_left_one(name):
    left, right = (getattr(pygame, f"K_{side}{name.upper()}") for side in "LR")
    device = KeyboardMouse(ActionSpace((name,), 5.0), 0.1)
    for event in (key(left), key(right), key(right, False)):
        device.feed(event)
    device.poll()
    assert device.poll().keys == {name}
    device.feed(key(left, False))
    assert device.poll() == Action()


def test_the_help_prints_what_the_layout_does():
    labels = {pygame.KSCAN_W: "Z", pygame.KSCAN_A: "Q", pygame.KSCAN_PERIOD: ":"}
    world, client = Bindings().help_rows(SPACE, labels)
    assert world[:4] == [("Z", "forward"), ("Q", "step left"), ("S", "back"), ("D", "step right")]
    assert (":", "one frame, then pause") in client and ("R", "start again") in client


def test_motion_is_summed_in_degrees():
    device = KeyboardMouse(SPACE, 0.1)
    for x in (5, 20, -3):
        device.feed(motion(x, 50))
    action = device.poll()
    assert action.look == (pytest.approx(2.2), 0.0), "yaw only in this world"
    assert device.poll() == Action()


def test_a_flick_beyond_the_limit_goes_on_for_two_frames_and_stops_when_the_hand_turns_back():
    device = KeyboardMouse(SPACE, 1.0)
    device.feed(motion(30))
    assert [device.poll().look[0] for _ in range(4)] == [12.0, 12.0, 6.0, 0.0], "nothing lost"
    device.feed(motion(1000))
    turned = [device.poll().look[0] for _ in range(6)]
    assert turned == [12.0] * (1 + CARRIED_FRAMES) + [0.0] * (5 - CARRIED_FRAMES), "and no lag"
    device.feed(motion(1000))
    assert device.poll().look[0] == 12.0
    device.feed(motion(-2))
    assert [device.poll().look[0] for _ in range(2)] == [-2.0, 0.0]


def test_release_all_leaves_nothing():
    device = KeyboardMouse(SPACE, 1.0)
    for event in (key(pygame.K_w), click(), motion(50)):
        device.feed(event)
    device.release_all()
    assert device.poll() == Action() and device.poll() == Action()


def test_only_keys_of_the_world_get_into_an_action():
    device = KeyboardMouse(ActionSpace(("w",), 5.0, 0), 1.0)
    for event in (key(pygame.K_w), key(pygame.K_x), click(), motion(3, 3)):
        device.feed(event)
    assert device.poll() == Action({"w"})


def test_the_input_time_is_that_of_the_oldest_new_input():
    device = KeyboardMouse(SPACE, 1.0)
    device.feed(key(pygame.K_w), now=1.0)
    device.feed(motion(1), now=2.0)
    device.feed(key(pygame.K_F3), now=0.5)
    device.poll()
    assert device.input_time == 1.0
    device.poll()
    assert device.input_time is None, "a key that was already held is no new input"


def test_a_world_that_uses_a_key_keeps_it_from_the_client():
    space = ActionSpace(("p", "tab", "w"), 5.0)
    command_of = Bindings().command_of
    assert command_of(key(pygame.K_p)) == "pause" == command_of(key(pygame.K_p), SPACE)
    assert command_of(key(pygame.K_p), space) is None and command_of(key(pygame.K_TAB), space) is None
    assert command_of(key(pygame.K_r), space) == "reset"
    labels = [label for label, _ in Bindings().help_rows(space, {})[1]]
    assert "P" not in labels and "Tab" not in labels and "R" in labels


def test_the_key_of_the_text_is_nobodys_and_listed_where_there_is_a_text():
    everything = ActionSpace(KEYS, 5.0)
    assert Bindings().command_of(key(pygame.K_F2), everything) == "prompt"
    assert ("F2", "change the text") in Bindings().help_rows(everything, {}, reads_text=True)[1]
    assert "F2" not in [label for label, _ in Bindings().help_rows(SPACE, {})[1]]


def test_every_canonical_key_has_a_binding_and_the_help_lists_every_binding():
    assert sorted(binding.name for binding in WORLD_BINDINGS) == sorted(KEYS)
    everything = ActionSpace(KEYS, 5.0)
    world, _ = Bindings().help_rows(everything, {})
    _, client = Bindings().help_rows(ActionSpace((), 5.0, 0), {}, reads_text=True)
    assert len(world) == len(WORLD_BINDINGS) + 1 and len(client) == len(COMMANDS), "and the mouse"
    assert len({binding.name for binding in BINDINGS}) == len(BINDINGS)
    codes = [code for binding in WORLD_BINDINGS for code in binding.inputs]
    assert len(codes) == len(set(codes))
    methods = [f"on_{command.name}" for command in COMMANDS]
    assert all(hasattr(WindowCommands, method) != hasattr(Screen, method) for method in methods)


def test_arrow_keys_turn_by_time_where_the_world_does_not_use_them():
    device = KeyboardMouse(SPACE, 0.1)
    device.feed(key(pygame.K_RIGHT), now=0.0)
    assert device.poll(0.05).look == (pytest.approx(120 * 0.05), 0.0)
    device.feed(key(pygame.K_RIGHT, False), now=0.06)
    assert device.poll(0.1).look[0] == pytest.approx(120 * 0.01) and device.poll(0.2) == Action()
    device.feed(key(pygame.K_LEFT), now=1.0)
    device.forget()
    assert device.poll(9.0).look[0] == 0.0, "what a pause took does not turn"
    assert device.poll(9.05).look[0] == pytest.approx(-120 * 0.05)
    taken = KeyboardMouse(ActionSpace(("left", "right"), 12.0, 1), 0.1)
    taken.feed(key(pygame.K_RIGHT), now=0.0)
    assert taken.poll(0.05) == Action({"right"})


def test_inverted_looks_the_other_way_up_and_a_toggled_key_stays_down():
    device = KeyboardMouse(ActionSpace(("shift", "w"), 12.0, 2), 1.0)
    device.is_inverted, device.toggled = True, frozenset({"shift"})
    device.feed(motion(2, 3))
    assert device.poll().look == (2.0, -3.0)
    for expected in ({"shift"}, set()):
        device.feed(key(pygame.K_LSHIFT))
        device.feed(key(pygame.K_LSHIFT, False))
        assert [device.poll().keys for _ in range(2)] == [expected] * 2
    device.feed(key(pygame.K_LSHIFT))
    device.release_all()
    assert device.poll() == Action(), "and the loss of the focus lets go of it"
