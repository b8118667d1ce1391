"""A browser's names of keys and buttons are the window's."""
from worldplay.client.bindings import BINDINGS
from worldplay.client.inputs import is_pad, keys, pad
from worldplay.serve import protocol
from worldplay.serve.keys import BUTTONS, CODES, strengths


def test_every_usual_control_can_be_used_in_a_browser():
    known = {*CODES.values(), *BUTTONS.values(), *(pad(name) for name in protocol.PAD_BUTTONS),
             *(code for side in ("left", "right")
               for code, _ in strengths(protocol.Stick(1, 1, side, 1, 1), 0.1))}
    for binding in BINDINGS:
        for code in binding.inputs:
            assert code in known, (binding.name, code, is_pad(code))


def test_messages_become_strengths():
    assert strengths(protocol.Key(1, 1, "KeyW", True), 0.1) == [(keys("W")[0], 1.0)]
    assert strengths(protocol.Key(1, 1, "Unheard", True), 0.1) == []
    assert strengths(protocol.Button(1, 1, 0, False), 0.1) == [(("button", 1), 0.0)]
    assert strengths(protocol.Move(1, 1, 3, 3), 0.1) == []
    stick = dict(strengths(protocol.Stick(1, 1, "left", 0.0, -1.0), 0.1))
    assert stick[pad("lefty-")] == 1.0 and sum(stick.values()) == 1.0
    assert not any(dict(strengths(protocol.Stick(1, 1, "left", 0.05, 0.05), 0.1)).values()), "the dead zone"
