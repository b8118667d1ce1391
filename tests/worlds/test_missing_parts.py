"""A fetched world with a missing or damaged file: one line says what, where, and the command that helps."""
import re
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tests.hub.test_fetch import cache, hub  # noqa: F401  (fixtures)
from worldplay.cli.commands import main
from worldplay.engine.loading import load_world, read_config
from worldplay.engine.parts import Parts
from worldplay.errors import WorldError
from worldplay.hub.fetch import fetch
from worldplay.worlds import catalog, weights, zoo
from worldplay.worlds.weights import load_weights

WORLD, TEXT, CODEC, VAE = (f"{name}/model.safetensors" for name in (
    "worlds/second", "parts/text", "parts/codec", "parts/vae"))
CARD, TOKENIZER = "worlds/second/config.json", "parts/text/tokenizer.json"


@pytest.fixture
def second(hub, cache):
    """The world "second" with all its parts, and a file of text rows for it in the current folder."""
    fetch("second", with_vae=True)
    Path("rows.safetensors").write_bytes(save({"prompt_embeds": torch.ones(4, 12)}))
    return cache


def opened():
    load_world("second", device="cpu", prompt="rows.safetensors")


def parts():
    return Parts(read_config("second")[1], torch.device("cpu"))


def weights():
    load_weights(zoo.find("second") / "model.safetensors")


def listed():
    assert zoo.cards(), "it is passed over with a warning"


def said(ask, caplog):
    """The one line of what fails, or of what is only noted."""
    caplog.clear()
    with caplog.at_level("INFO", "worldplay"):
        try:
            ask()
        except WorldError as error:
            return str(error)
        except AssertionError:
            pass
    return caplog.records[-1].getMessage()


@pytest.mark.parametrize("file, content, ask, words", [
    (WORLD, None, weights, "is missing"), (WORLD, b"torn", weights, "cannot be read"),
    (CARD, b"{", lambda: read_config("second"), "is not valid JSON"),
    (CARD, b'{"action_space": 3}', lambda: read_config("second"), "does not describe a world"),
    (CARD, b'{"action_space": 3}', listed, "does not describe a world"),
    (CARD, None, lambda: zoo.find("second"), "world 'second' is published, but not on this machine"),
    (CODEC, None, opened, "is missing (codec)"), (CODEC, b"torn", opened, "cannot be read"),
    (CODEC, save({"x": torch.ones(1)}), opened, "misses decoder"),
    (TEXT, None, lambda: parts().text_rows("a hall"), "is missing (text)"),
    (TOKENIZER, None, lambda: parts().text_rows("a hall"), "is missing (text)"),
    (TEXT, b"torn", lambda: parts().text_rows("a hall"), "cannot be read"),
    (TOKENIZER, b"{", lambda: parts().text_rows("a hall"), "is no tokenizer"),
    (VAE, None, lambda: parts().encoder(1), "the start is encoded by the small codec: "),
    (VAE, b"torn", lambda: parts().encoder(1), "cannot be read")],
    ids=lambda x: x if isinstance(x, str) else "")
def test_the_line_says_what_and_where_and_its_command_helps(file, content, ask, words, second, caplog):
    path = second / file
    was = path.read_bytes()
    path.write_bytes(content) if content is not None else path.unlink()
    line = said(ask, caplog)
    assert words in line and "\n" not in line and "repository" not in line
    assert (str(path) in line) or file == CARD and content is None
    command = re.search(
        r"; (?P<delete>delete it, then )?python -m worldplay (?P<command>fetch [a-z]+) loads it", line)
    assert bool(command["delete"]) == path.exists()
    path.unlink(missing_ok=True)
    assert main(shlex.split(command["command"])) == 0
    assert path.read_bytes() == was


def test_what_takes_gibibytes_is_not_read_before_a_missing_codec_is_said(second, monkeypatch):
    (second / CODEC).unlink()
    monkeypatch.setattr(Parts, "text_rows", lambda *_: pytest.fail("the text encoder worked for nothing"))
    with pytest.raises(WorldError, match="fetch codec loads it"):
        load_world("second", device="cpu", prompt="a hall")


def test_a_text_may_be_told_by_rows_where_the_encoder_is_missing(second):
    (second / TEXT).unlink()
    with pytest.raises(WorldError, match="fetch text loads it, or play --prompt with a .safetensors file"):
        parts().text_rows("a hall")
    assert parts().text_rows("rows.safetensors").shape == (4, 12)


def test_a_part_that_no_config_names_is_said(second):
    config = read_config("second")[1]
    config.parts.pop("text")
    with pytest.raises(WorldError,
                       match="config.json of second names no part for its text; add .text. to .parts. there"):
        Parts(config, torch.device("cpu")).text_rows("a hall")


def test_a_part_alone_is_fetched_by_its_name(hub, cache, capsys):
    made = fetch("vae")
    assert made["folder"] == str(cache / "parts/vae") and (made["files"], made["was_complete"]) == (1, False)
    assert zoo.find_part("vae")
    assert not (cache / "parts/vae/config.json").exists() and not (cache / "worlds").exists()
    assert fetch("vae")["was_complete"] and set(catalog.PARTS) == {"text", "codec", "vae"}
    for flag in ("--vae", "--no-text"):
        assert main(["fetch", "text", flag]) == 2
        assert "text is a part; leave them out" in capsys.readouterr().err
