"""The first minutes on a GPU: tests, ceilings and speeds, each in a process of its own, on one page."""
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from worldplay import runtime
from worldplay.files import replacing, writable_folder, write_json
from worldplay.log import track

SECONDS = 540.0
_SHOWN_LINES = 12  # of what a part that failed said last


@dataclass(frozen=True)
class Part:
    """One command of the check.

    name       of its figures
    arguments  of Python
    seconds    it may take at most
    says_json  whether it prints one JSON object; what others print is kept as text
    """
    name: str
    arguments: tuple[str, ...]
    seconds: float
    says_json: bool = True


def parts(device):
    """The Parts for a device, the most telling first; on a CPU, a rehearsal of small shapes."""
    def bench(name, *more, seconds):
        return Part(name, ("-m", "worldplay", "bench", *more, "--device", device, "--json"), seconds)
    is_rehearsal = device == "cpu"
    frames = ("--frames", "24" if is_rehearsal else "1000")
    wide = ("doom-maze", "--random", "--path", "eager", *frames) if is_rehearsal else ("wan-1.3b", "--random")
    return [bench("shipped world, eager", "--path", "eager", "--ceilings", *frames, seconds=90),
            Part("tests marked gpu", ("-m", "pytest", "-q", "-n", "0", "-m", "gpu", "tests/test_gpu.py"), 120,
                 says_json=False),
            bench("shipped world, compiled", "--path", "compiled", *frames, seconds=120),
            Part("graphs", ("-m", "worldplay.eval.graphs", device, frames[1]), 90),
            bench("Wan size, random weights" if not is_rehearsal else "random weights", *wide, seconds=300)]


def run_gpu_check(out, *, device="auto", seconds=SECONDS, parts=parts):
    """Run all parts within `seconds`, writing what is known after each; returns the report.

    out     folder of gpu-check.json and gpu-check.md; an earlier check there is replaced
    Returns dict: machine, seconds, parts: a list of dicts with name, command, seconds, state ("done",
            "failed", "out of time" or "not reached"), and figures or the last lines that it said

        Raises ValueError for a device that is not there.
    """
    out = Path(out)
    device, reason = runtime.pick_device(device)
    writable_folder(out, "the report")
    started, planned = time.monotonic(), parts(device.type)
    report = {"machine": f"{runtime.device_name(device)} ({reason})", "torch": torch.__version__,
              "seconds": 0.0, "parts": [{"name": part.name, "command": " ".join(("python", *part.arguments)),
                                         "state": "not reached"} for part in planned]}
    with track(planned, desc="check", unit="part") as bar:
        for row, part in zip(report["parts"], bar):
            left = seconds - (time.monotonic() - started)
            if left > 1:
                row |= _run(part, min(part.seconds, left))
            report["seconds"] = time.monotonic() - started
            write_json(out / "gpu-check.json", report)
            with replacing(out / "gpu-check.md") as temporary:
                temporary.write_text(page(report), encoding="utf-8")
    return report


def page(report):
    """The report as markdown."""
    lines = [f"# The first minutes on {report['machine']}", "", f"torch {report['torch']}, "
             f"{report['seconds']:.0f} s: `python -m worldplay bench --gpu-check --out DIR`", ""]
    for part in report["parts"]:
        took = f", {part['seconds']:.0f} s" if "seconds" in part else ""
        lines += [f"## {part['name']}: {part['state']}{took}", "", f"`{part['command']}`", ""]
        if "figures" in part:
            rows = (f"| {name} | {value} |" for name, value in _flat(part["figures"]))
            lines += ["| | |", "|---|---|", *rows, ""]
        if part.get("said"):
            lines += ["```", *part["said"], "```", ""]
    return "\n".join(lines)


def _run(part, seconds):
    """What became of a part: state, seconds, and its figures or the last lines that it said."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *part.arguments], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    try:
        printed, errors = process.communicate(timeout=seconds)
        state = "done" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):  # compilers too
            with suppress(psutil.NoSuchProcess):  # it may have ended meanwhile
                one.kill()
        printed, errors = process.communicate()
        state = "out of time"
    result = {"seconds": time.monotonic() - started, "state": state}
    if state == "done" and part.says_json:
        try:
            return result | {"figures": json.loads(printed)}
        except ValueError:
            result["state"] = "failed"
    lines = (printed + errors).replace("\r", "\n").splitlines()
    return result | {"said": [line.rstrip() for line in lines if line.strip()][-_SHOWN_LINES:]}


def _flat(figures, name=""):
    """Yield (name, value) of every leaf of nested dicts and lists, numbers to four digits."""
    items = figures.items() if isinstance(figures, dict) else enumerate(figures)
    for key, value in items:
        key = f"{name} {key}".strip()
        if isinstance(value, (dict, list)):
            yield from _flat(value, key)
        else:
            yield key, f"{value:.4g}" if isinstance(value, float) else value
