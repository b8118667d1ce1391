"""The check of a new GPU: parts apart from each other, bounded in time, on a page whatever fails."""
import json

import psutil
import pytest

from tests.cli.test_commands import run
from worldplay.eval.gpu_check import Part, page, parts, run_gpu_check


def code(name, text, seconds=60.0, **options):
    return Part(name, ("-c", text), seconds, **options)


FAKES = [code("works", "import json; print(json.dumps({'fps': 61.25, 'ms': [1, 2]}))"),
         code("raises", "raise RuntimeError('CUDA error: an illegal memory access')"),
         code("dies", "import os; print('before', flush=True); os._exit(9)"),
         code("garbage", "print('no json')"),
         code("hangs", "import subprocess, sys; print('begun', flush=True); "
                       "subprocess.run([sys.executable, '-c', 'while True: pass'])", seconds=1.0),
         code("text", "print('3 passed')", says_json=False)]


def test_a_part_that_fails_hangs_or_dies_leaves_the_others(tmp_path):
    report = run_gpu_check(tmp_path, device="cpu", parts=lambda device: FAKES)
    assert {part["name"]: part["state"] for part in report["parts"]} == {
        "works": "done", "raises": "failed", "dies": "failed", "garbage": "failed", "hangs": "out of time",
        "text": "done"}
    works, raises, dies, garbage, hangs, text = report["parts"]
    assert works["figures"] == {"fps": 61.25, "ms": [1, 2]}
    assert raises["said"][-1] == "RuntimeError: CUDA error: an illegal memory access"
    assert dies["said"] == ["before"] and hangs["said"] == ["begun"] and text["said"] == ["3 passed"]
    assert json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8")) == report
    written = (tmp_path / "gpu-check.md").read_text(encoding="utf-8")
    assert written == page(report) and "| fps | 61.25 |" in written and "## hangs: out of time" in written


def test_a_child_that_ends_before_it_is_stopped_breaks_nothing(tmp_path, monkeypatch):
    class Ended:
        def kill(self):
            raise psutil.NoSuchProcess(0)
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [Ended()])
    hangs = code("hangs", "while True: pass", seconds=0.2)
    report = run_gpu_check(tmp_path, device="cpu", parts=lambda device: [hangs])
    assert [part["state"] for part in report["parts"]] == ["out of time"]


def test_what_time_does_not_reach_is_said(tmp_path):
    report = run_gpu_check(tmp_path, device="cpu", seconds=0.5, parts=lambda device: FAKES)
    assert {part["state"] for part in report["parts"]} == {"not reached"}


def test_all_parts_of_a_gpu_fit_and_a_processor_rehearses_them():
    assert [part.seconds for part in parts("cuda")] == [part.seconds for part in parts("cpu")]
    for device in ("cuda", "cpu"):
        for part in parts(device):
            assert part.arguments[0] == "-m" and (device in part.arguments or not part.says_json)


@pytest.mark.parametrize("more", [("--gpu-check",), ("--out", "x"), ("--gpu-check", "--out", "x", "--random"),
                                  ("--gpu-check", "--out", "x", "--path", "eager")])
def test_what_would_have_no_effect_is_refused(more, capsys):
    assert run("bench", *more) != 0
    assert "gpu-check" in capsys.readouterr().err
