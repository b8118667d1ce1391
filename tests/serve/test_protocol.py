"""What a page may say: every message is understood whole, and anything else is refused with a reason."""
import json
import random

import pytest

from worldplay.serve import protocol
from worldplay.serve.protocol import parse

GOOD = [
    ({"k": "key", "n": 1, "t": 2.5, "code": "KeyW", "down": True}, protocol.Key(1, 2.5, "KeyW", True)),
    ({"k": "button", "n": 1, "t": 2, "button": 2, "down": False}, protocol.Button(1, 2, 2, False)),
    ({"k": "move", "n": 1, "t": 2, "x": -3, "y": 0.5}, protocol.Move(1, 2, -3, 0.5)),
    ({"k": "pad", "n": 1, "t": 2, "name": "a", "strength": 1}, protocol.Pad(1, 2, "a", 1)),
    ({"k": "stick", "n": 1, "t": 2, "side": "left", "x": -1, "y": 1}, protocol.Stick(1, 2, "left", -1, 1)),
    ({"k": "away", "away": True}, protocol.Away(True)), ({"k": "do", "what": "reset"}, protocol.Do("reset")),
    ({"k": "scene", "name": "hall"}, protocol.Scene("hall")), ({"k": "take"}, protocol.Take()),
    ({"k": "text", "text": "a caf\u00e9"}, protocol.Text("a caf\u00e9")), ({"k": "hello"}, protocol.Hello()),
    ({"k": "ack", "picture": 7}, protocol.Ack(7)), ({"k": "shown", "ms": 12.5}, protocol.Shown(12.5)),
]


@pytest.mark.parametrize("fields, message", GOOD, ids=[fields["k"] for fields, _ in GOOD])
def test_every_message_is_understood(fields, message):
    assert parse(json.dumps(fields)) == message


@pytest.mark.parametrize("text", [
    "", "{", "[]", "7", "null", '"key"', "{}", '{"k": "quit"}', '{"k": ["key"]}', '{"k": "ack"}',
    '{"k": "ack", "picture": -1}', '{"k": "ack", "picture": true}', '{"k": "ack", "picture": 1, "more": 1}',
    '{"k": "move", "n": 1, "t": 1, "x": NaN, "y": 0}', '{"k": "move", "n": 1, "t": 1, "x": 1e300, "y": 0}',
    '{"k": "do", "what": "__init__"}', '{"k": "do", "what": ["reset"]}', '{"k": "text", "text": "a\\u0000b"}',
    '{"k": "key", "n": 4294967296, "t": 1, "code": "KeyW", "down": true}', "[" * 100_000,
    '{"k": "move", "n": 1, "t": 1, "x": 1' + 400 * "0" + ', "y": 0}'])
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match="^a message [^\n]*$"):
        parse(text)


def test_a_text_of_the_longest_length_fits_into_a_message():
    assert len(json.dumps({"k": "text", "text": "\u4e16" * protocol.MAX_TEXT})) < protocol.MAX_BYTES
    with pytest.raises(ValueError):
        parse(json.dumps({"k": "text", "text": "a" * (protocol.MAX_TEXT + 1)}))


def test_a_hundred_thousand_random_messages_are_understood_or_refused():
    draw = random.Random(5)
    texts, values = [json.dumps(fields) for fields, _ in GOOD], [
        None, True, -1, 0, 1e400, 2**70, "", "KeyW", "\ud800", [], {}, [[]], "x" * 5000]
    num_good = 0
    for i in range(100_000):
        if i % 3 == 0:  # characters exchanged
            text = list(draw.choice(texts))
            for _ in range(draw.randrange(4)):
                text[draw.randrange(len(text))] = chr(draw.randrange(1, 300))
            text = "".join(text)
        elif i % 3 == 1:  # fields exchanged
            fields = dict(draw.choice(GOOD)[0])
            fields[draw.choice([*fields, "z"])] = draw.choice(values)
            text = json.dumps(fields)
        else:
            text = "".join(chr(draw.randrange(128)) for _ in range(draw.randrange(40)))
        try:
            assert isinstance(parse(text), tuple(kind for kind, _ in protocol._KINDS.values()))
            num_good += 1
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 120
    assert 1000 < num_good < 60_000


def test_the_header_says_which_input_a_picture_answers():
    data = protocol.header(2**32 + 5, 9, protocol.Key(3, 123.25, "KeyW", True)) + b"jpeg"
    assert protocol.read_header(data) == ((5, 9, 3, 123.25), b"jpeg")
    assert protocol.read_header(protocol.header(1, 1, None))[0][2:] == (0, 0.0)
