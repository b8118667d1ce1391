"""A bench on a busy machine: its figures and what they are held against, and loops that end with it."""
import numpy as np
import psutil
import pytest

from worldplay.action import ActionSpace
from worldplay.eval import busy


class World:
    """A world that is quick."""
    name, action_space, info = "quick", ActionSpace(("w",), 10.0, look_axes=1), {"threads": 1}

    class state:
        frame, first_generated = 1, 0

    class config:
        frames_per_chunk = 1

    class codec:
        frames_per_latent = 1

    def reset(self):
        pass

    def step(self, action):
        yield np.zeros((2, 2, 3), np.uint8)


def test_the_loaded_figures_and_their_share(monkeypatch):
    begun = []
    monkeypatch.setattr(busy, "allowed_cores", lambda: 2)
    monkeypatch.setattr(busy.latency, "frame_figures",
                        lambda seconds: {"fps": 8.0, "frame_ms": {"p50": 125.0}})

    class Process:
        def __init__(self, *args, **kwargs):
            begun.append(self)
            self.stdout, self.is_killed = self, False

        readline = __enter__ = lambda self: self

        def kill(self):
            self.is_killed = True

        def __exit__(self, *error):
            assert self.is_killed

    monkeypatch.setattr(busy.subprocess, "Popen", Process)
    figures = busy.bench_loaded(World(), {"fps": 20.0})
    assert figures.keys() == {"busy_loops", "frames", "fps", "frame_ms", "latency_ms", "threads",
                              "fair_share", "fps_ratio", "fair_ratio"}
    assert figures["busy_loops"] == len(begun) == 2 and figures["frames"] == busy.FRAMES
    shares = figures["fair_share"], figures["fps_ratio"], figures["fair_ratio"]
    assert shares == pytest.approx((0.5, 0.4, 0.8))


def test_a_loop_keeps_a_core_busy_and_ends_with_the_bench():
    others = {child.pid for child in psutil.Process().children()}

    def loops():
        return [child for child in psutil.Process().children() if child.pid not in others]
    with pytest.raises(KeyboardInterrupt), busy.busy_loops(1):
        (loop,) = loops()
        before = loop.cpu_times().user
        while loop.cpu_times().user <= before:  # it runs, as soon as it gets a core
            pass
        raise KeyboardInterrupt
    assert loops() == []


def test_a_loop_ends_when_nobody_holds_its_input():
    with busy.busy_loops(1):
        pass
    process = busy.subprocess.Popen([busy.sys.executable, "-c", busy._LOOP], stdin=busy.subprocess.PIPE,
                                    stdout=busy.subprocess.PIPE)
    process.stdout.readline()
    process.stdin.close()
    assert process.wait() == 0, "a bench that was killed leaves no loop behind"
    process.stdout.close()
