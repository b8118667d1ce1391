"""The report of a world: its names, its pictures, and which worlds are measured on what."""
import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import worldplay
from tests.eval.turning import HEIGHT, WIDTH, TurningGame, TurningWorld, material, texture
from worldplay.action import ActionSpace
from worldplay.errors import WorldError
from worldplay.eval import blocked, pictures, report, revisit
from worldplay.eval.compare import difference
from worldplay.eval.verdict import left_out_lines, markdown
from worldplay.world import check_world


def test_the_synthetic_world_keeps_the_contract():
    check_world(TurningWorld())


def test_report_has_the_names_scripts_rely_on(streams, tmp_path):
    made = material(streams, TurningWorld())
    figures = report.evaluate(made)
    names = {"psnr", "ssim", "n", "repeat_last_psnr", "shifted_last_psnr", "shuffled_actions_psnr",
             "codec_psnr", "interval", "by_stream"}
    for part in (figures, figures["tester"]):
        assert set(part["next_frame"]) == set(part["moving"]) == names
        assert set(part["rollout_psnr"]) == set(part["rollout_psnr_interval"]) == {"1", "4", "16"}
        assert set(part["sharpness"]) == {"1", "2", "4", "8"}
    assert 0 <= figures["turn_sign_accuracy"] <= 1
    for name in ("drift", "survival", "revisit", "blocked"):
        assert name in figures and name not in figures["tester"]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    other = figures | {"difference": difference(figures, figures)}
    table = markdown(figures | {"quick": True, "compare": other, "device_name": "", "context_sigma": 0.1})
    assert table.count("turning, explorer") == 2 and "| moving shuffled_actions_psnr |" in table
    figures["tester"]["turn_sign_accuracy"] = None
    page = markdown(figures | {"device_name": "", "context_sigma": 0.1})
    assert "| turn_sign_accuracy | 1.000 |  |" in page
    report._write_pictures(made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"contact_sheet.png", "side_by_side.mp4"}


def test_progress_is_planned_exactly(streams):
    done = []
    made = material(streams, TurningWorld(), advance=done.append, num_dreams=5, num_targets=7,
                    walks=(100, 150, 100))
    report.evaluate(made)
    # the turning player cannot walk, so the runs against walls and the ways back find nothing to measure
    unfound = sum(made.work(2, 4 + frames, 4, is_free=True) + 2 * 2 * compared for frames, compared in (
        *blocked.trials(made.source), revisit.trials(made.source)[1]))
    assert sum(done) == report.planned_work(made) - unfound
    assert max(done) < 0.2 * sum(done), "no long silence"


def test_figures_that_need_a_game_are_left_out_with_a_line(streams):
    source = TurningGame()
    source.is_game = False
    figures = report.evaluate(material(streams, TurningWorld(), source=source))
    assert not {"blocked", "revisit"} & set(figures) and "drift" in figures
    page = markdown(figures | {"device_name": "", "context_sigma": 0.1})
    assert "Left out: blocked and revisit, which need a real game" in page


@pytest.fixture(scope="module")
def measured(streams):
    return report.evaluate(material(streams, TurningWorld()))


@pytest.mark.parametrize("end", [KeyboardInterrupt, ZeroDivisionError, RuntimeError])
def test_the_report_is_there_before_delays_are_measured(measured, streams, tmp_path, monkeypatch, end):
    config = SimpleNamespace(name="turning", env="turning")
    monkeypatch.setattr(report, "read_config", lambda name: (None, config))
    monkeypatch.setattr(report, "_own_game", lambda config: TurningGame())
    monkeypatch.setattr(worldplay, "load_world", lambda *_, **__: TurningWorld())
    monkeypatch.setattr(report, "prepare", lambda *_, **__: [material(streams, TurningWorld())] * 2)
    found = []
    monkeypatch.setattr(report, "evaluate", lambda material: measured | {"left_out": ["fvd, of few clips"]})

    def latency(world):
        found.append({path.name for path in tmp_path.iterdir()})
        raise end
    expected = nullcontext() if end is RuntimeError else pytest.raises(end)
    with expected:
        report.run_eval("turning", out=tmp_path, compare="turning", latency=latency)
    assert {"report.md", "report.json", "report.html"} < found[0]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["left_out"] == ["fvd, of few clips"] + ["latency: RuntimeError"] * (end is RuntimeError)
    assert written["compare"]["left_out"] == written["left_out"]


def test_what_the_other_world_lacks_is_said_too():
    ours = {"world": "ours", "left_out": ["fvd, of few clips", "latency: no screen"]}
    theirs = {"world": "theirs", "left_out": ["fvd, of few clips", "latency: no memory"]}
    assert left_out_lines(ours | {"compare": theirs}) == [
        "Left out: fvd, of few clips.", "Left out of ours: latency: no screen.",
        "Left out of theirs: latency: no memory."]
    assert left_out_lines(ours)[1] == "Left out: latency: no screen."


def test_contact_sheet_holds_its_frames():
    frames = np.stack([texture(seed) for seed in range(3)])
    sheet = pictures.contact_sheet([("real", frames), ("dream", frames[::-1])], ["1", "4", "16"])
    assert np.array_equal(sheet[-HEIGHT - 2:-2, -WIDTH - 2:-2], frames[0])
    assert np.array_equal(sheet[14:14 + HEIGHT, 64:64 + WIDTH], frames[0])


def test_only_worlds_that_show_the_same_frames_are_measured():
    other = TurningWorld()
    other.fps = other.fps / 2
    with pytest.raises(ValueError, match="differ in frame rate"):
        report.prepare([TurningWorld(), other], TurningGame(), report.QUICK, is_own=True)


def test_a_world_of_another_version_of_its_game_is_refused():
    other = TurningWorld()
    other.action_space = ActionSpace(("w",), 12.0, look_axes=1)
    with pytest.raises(ValueError, match="another version of turning"):
        report.prepare([other], TurningGame(), report.QUICK, is_own=True)


def test_compared_worlds_share_the_streams_of_the_source(streams, monkeypatch):
    other, asked, source = TurningWorld(), [], TurningGame()
    other.action_space = ActionSpace(("w", "q"), 12.0, look_axes=1)
    other.info = other.info | {"env": "another", "window": 9}
    source.streams = lambda player, num, *, context, horizon: asked.append(context) or streams[player]
    ours, theirs = report.prepare([TurningWorld(), other], source, report.QUICK, is_own=True)
    assert asked == [9] * 2, "as many frames before as the larger window holds"
    for player in source.players:
        mine, its = ours.streams[player], theirs.streams[player]
        assert mine.frames is its.frames is streams[player].frames
        assert np.array_equal(mine.actions, streams[player].actions)
        assert np.array_equal(its.actions[..., 0], streams[player].actions[..., 0])
        assert not its.actions[..., 1].any()
        np.testing.assert_allclose(its.actions[..., 2], streams[player].actions[..., 4], atol=1e-6)


@pytest.mark.parametrize("env, words", [
    (None, "no environment that is here.*--against FOLDER"), ("square", "no environment .*--against FOLDER"),
    ("gym:Square-v0", "trained on gym:Square-v0: a game of Gymnasium has no held-out play.*RUN/data")])
def test_for_a_world_without_a_game_the_error_names_the_remedy(monkeypatch, env, words):
    config = SimpleNamespace(name="square", env=env, codec="an image codec")
    monkeypatch.setattr(report, "read_config", lambda name: (None, config))
    with pytest.raises(WorldError, match=words):
        report.run_eval("square")
