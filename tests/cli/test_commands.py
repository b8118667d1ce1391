"""The command lines: their help as committed text, exit statuses, and what stands on which stream."""
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests import ROOT
from worldplay.action import ActionSpace
from worldplay.cli.commands import COMMANDS, main
from worldplay.cli.options import report
from worldplay.errors import WorldError
from worldplay.files import write_json
from worldplay.worlds import zoo

GOLDEN = Path(__file__).parent / "golden"
HELP = {"worldplay": ["--help"], "play": ["play", "--help"],
        **{name: [name, "--help"] for name in COMMANDS},
        "dataset_pack": ["dataset", "pack", "--help"],
        "dataset_import": ["dataset", "import", "--help"],
        "dataset_verify": ["dataset", "verify", "--help"], "dataset_info": ["dataset", "info", "--help"],
        "clip_export": ["clip", "export", "--help"], "clip_info": ["clip", "info", "--help"]}
SPACE = ActionSpace(("w", "a"), 12.0, look_axes=1)


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    """An empty folder to stand in, nothing packaged, and state and cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "_PACKAGED", tmp_path / "packaged")
    zoo._warn_once.cache_clear()
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # commands replace it; give it back


def run(*argv):
    """Exit status of a command line; bad usage leaves through SystemExit."""
    try:
        return main(list(argv))
    except SystemExit as error:
        return error.code


def add_world(place, name, **changes):
    folder = place / name
    folder.mkdir(parents=True)
    """The card of the world that ships, with these keys instead, and no weights."""
    fields = json.loads((ROOT / "checkpoints/doom-maze/config.json").read_text())
    fields["transformer"]["action_channels"] = 3
    fields |= {"name": name, "action_space": SPACE.to_json()} | changes
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def help_text(argv):
    """The help as plain lines: no boxes, no runs of blanks."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(*argv) == 0
    plain = out.getvalue().encode("ascii", "ignore").decode()
    lines = (re.sub(r"\s+", " ", re.sub(r"^\+-*|-*\+$|^\||\|$", "", line)).strip()
             for line in plain.splitlines() if set(line) - set("| -"))
    return "".join(line + "\n" for line in lines if line)


# Help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HELP)
def test_help_is_the_committed_text(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    file = GOLDEN / f"help_{name}.txt"
    assert help_text(HELP[name]) == file.read_text(encoding="utf-8"), \
        f"the command line changed; if that is meant, delete {file} and run python -m tests.cli.test_commands"


def test_golden_holds_nothing_else():
    assert {file.name for file in GOLDEN.iterdir()} == {f"help_{name}.txt" for name in HELP}


# Statuses and streams ---------------------------------------------------------------------------------------


def test_version(capsys):
    assert run("--version") == 0 == run("eval", "--version")
    assert re.fullmatch(r"(worldplay \d+\.\d+\.\d+\n){2}", capsys.readouterr().out)


@pytest.mark.parametrize("argv, status, words", [
    (["eval", "nowhere"], 1, "world 'nowhere': unknown"),
    (["bench", "nowhere"], 1, "world 'nowhere': unknown"),
    (["eval"], 1, "no default world"),
    (["bench", "--random"], 1, "no default world"),
    (["bench", "packaged/toy", "--frames", "9"], 2, "--frames 9: expected at least 10"),
    (["bench", "packaged/toy", "--batch", "4", "--loaded"], 2, "--batch plays as written and measures itself "
                                                               "alone: leave out --loaded"),
    (["bench", "wan-1.3b", "--random", "--batch", "2"], 2, "--batch: a Wan-size random world is no figure"),
    (["replay", "nothing.mp4"], 1, "nothing.json is missing"),
    (["dataset", "pack", "nothing", "--out", "x"], 2, "1 of 1 clips cannot be packed, and nothing was "),
    (["dataset", "import", "nothing.mp4", "--out", "x"], 2, "nothing.mp4: no such video"),
    (["record-desktop", "--out", "x"], 2, "say what to record: --window TITLE, or --region"),
    (["dataset", "info", "nothing"], 2, "no finished data set"),
    (["dataset", "verify", "nothing"], 2, "no finished data set"),
    (["collect", "nowhere", "--frames", "5", "--out", "x"], 1, "environment 'nowhere': unknown"),
    (["collect", "doom-maze", "--frames", "0", "--out", "x"], 2, "--frames 0: expected at least"),
    (["collect", "doom-maze", "--frames", "9", "--out", "x", "--seed", "-1"], 2, "--seed -1: expected"),
])
def test_an_error_is_one_line_that_names_the_log(argv, status, words, capsys, tmp_path):
    add_world(tmp_path / "packaged", "toy")  # a card and no weights: whoever opened it would say that first
    assert run(*argv) == status
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.strip() and "|" not in line]  # progress bars aside
    assert out == "" and len(lines) == 1 and words in lines[0] and ".log)" in lines[0]


@pytest.mark.parametrize("argv", [["eval", "--qick"], ["fly"], [], ["collect", "doom-maze"],
                                  ["bench", "--frames", "x"]])
def test_bad_usage_is_status_2(argv, capsys):
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err and "Traceback" not in err


def test_worlds_lists_what_can_be_opened(tmp_path, capsys):
    add_world(tmp_path / "checkpoints", "maze")
    (tmp_path / "checkpoints" / "default").write_text("maze\n")
    assert run("worlds") == 0
    out = capsys.readouterr().out
    assert "maze (default): 160x120, 17.5 frames/s, keys w a mouse(yaw)" in out and "checkpoints/maze" in out
    assert run("worlds", "--json") == 0
    world, = json.loads(capsys.readouterr().out)["worlds"]
    assert world["name"] == "maze" and world["is_default"] and world["frame_size"] == [120, 160]


def test_a_figure_of_nothing_is_no_line(capsys):
    assert report({"frames": 10, "frame_ms_at": {}}, as_json=False) is None
    assert capsys.readouterr().out.split() == ["frames", "10"]


# Finding worlds ---------------------------------------------------------------------------------------------


def test_a_world_is_found_as_path_then_here_then_packaged_then_cached(tmp_path):
    places = tmp_path / "checkpoints", tmp_path / "packaged", tmp_path / "cache" / "worldplay" / "worlds"
    for i, place in reversed(list(enumerate(places))):
        folder = add_world(place, "maze")
        assert zoo.find("maze").resolve() == folder, f"place {i} comes before those after it"
    run_folder = add_world(tmp_path, "maze")
    assert zoo.find("maze").resolve() == run_folder == zoo.find(str(run_folder))


def test_the_default_is_named_by_the_first_default_file(tmp_path):
    packaged = add_world(tmp_path / "packaged", "arena")
    (tmp_path / "packaged" / "default").write_text("arena\n")
    assert zoo.find() == packaged
    here = add_world(tmp_path / "checkpoints", "maze")
    (tmp_path / "checkpoints" / "default").write_text("maze\n")
    assert zoo.find(None).resolve() == here


@pytest.mark.parametrize("name, kind, words", [
    ("doom-mase", "not_found", "did you mean 'doom-maze'"),
    ("zzz", "not_found", "there are doom-maze"),
    ("empty", "bad_checkpoint", "config.json is missing"),
])
def test_a_name_that_is_not_found_says_what_there_is(name, kind, words, tmp_path):
    add_world(tmp_path / "checkpoints", "doom-maze")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorldError, match=words) as caught:
        zoo.find(name)
    assert caught.value.kind == kind


@pytest.mark.parametrize("text, says", [
    ("{", "is not valid JSON"), ("", "is not valid JSON"), ("3", "describes no world"),
    ('"action_space"', "describes no world"), ('["action_space"]', "describes no world"),
    ('{"model_type": "bert"}', "describes no world"), ('{"action_space": 3}', "does not describe a world"),
])
def test_a_stray_folder_of_checkpoints_is_passed_over_and_said_once(text, says, tmp_path, capsys):
    add_world(tmp_path / "packaged", "maze")
    (tmp_path / "packaged" / "default").write_text("maze\n")
    (add_world(tmp_path / "checkpoints", "stray") / "config.json").write_text(text)
    (tmp_path / "checkpoints" / "default").write_bytes(b"\xff last-epoch")
    assert zoo.find() == tmp_path / "packaged" / "maze"
    assert run("worlds", "--json") == 0
    out, err = capsys.readouterr()
    assert [world["name"] for world in json.loads(out)["worlds"] if world["is_default"]] == ["maze"]
    assert err.count(f"checkpoints/stray/config.json {says}") == 1 and err.count("\n") <= 2


def test_what_worlds_say_of_themselves_is_read_once_until_it_changes(tmp_path, monkeypatch):
    for name in ("maze", "arena"):
        add_world(tmp_path / "packaged", name)
    (tmp_path / "packaged" / "default").write_text("maze\n")
    read, read_text = [], Path.read_text

    def listen(path, **options):
        read.append(path)
        return read_text(path, **options)
    monkeypatch.setattr(Path, "read_text", listen)
    zoo.check_playable(None)
    zoo.find()
    assert zoo.is_here("arena") and [card.fps for card in zoo.cards()] == [17.5, 17.5] and zoo.published()
    configs = [path.parent.name for path in read if path.name == "config.json"]
    assert sorted(configs) == ["arena", "maze"]
    write_json(tmp_path / "packaged" / "maze" / "config.json", json.loads(
        (tmp_path / "packaged" / "maze" / "config.json").read_text()) | {"fps": 35.0})
    assert [card.fps for card in zoo.cards()] == [17.5, 35.0]


def test_a_default_that_names_no_world_is_passed_over(tmp_path, caplog):
    packaged = add_world(tmp_path / "packaged", "arena")
    (tmp_path / "packaged" / "default").write_text("arena\n")
    add_world(tmp_path, "gone")  # a folder to stand in has no say in what the default is
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "default").write_text("gone\n")
    assert zoo.find() == zoo.find() == packaged
    assert [record.message for record in caplog.records] == [
        "checkpoints/default names 'gone', which is no world here; it is passed over"]


def write_golden():
    """Write the texts that are missing; a changed text is a changed command line, which needs a reason."""
    os.environ["COLUMNS"] = "100"
    GOLDEN.mkdir(exist_ok=True)
    for name, argv in HELP.items():
        file = GOLDEN / f"help_{name}.txt"
        if not file.exists():
            file.write_text(help_text(argv), encoding="utf-8")
            print(f"wrote {file}")


if __name__ == "__main__":
    write_golden()
