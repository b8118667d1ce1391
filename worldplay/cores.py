"""Processor cores: how many this process may use, and how many other programs leave it."""
import math
import os
import sys
import time
from pathlib import Path

import psutil

# Whether the user has set the number of torch's threads; read before `prepare` adds to these variables.
THREADS_ARE_GIVEN = bool({"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys())

LOOK_EVERY = 0.5   # seconds over which the use of the cores is averaged
# Rounds for which a thread that is done waits awake for the others before it sleeps (OpenMP of GNU, whose own
# number is 300,000). Long waits take the cores from other programs and from the thread that is waited for;
# measured in docs/results/2026-11-26-busy-machine.md.
SPIN_ROUNDS = 10_000
QUIET_FOR = 3.0    # seconds that a core has to be free before another thread is begun
BUSY = 0.5         # of a core used by others: one thread less
FREE = 0.3         # of a core used by others at most: it counts as free; showing the window uses some


def allowed_cores(root=Path("/")):
    """Cores this process may keep busy: its affinity, or fewer where a control group limits its time.

    root  the folder with proc/ and sys/, of Linux
    """
    return max(1, math.floor(min(len(_affinity()), _time_limit(root))))


def prepare():
    """Call before torch is imported: how many threads OpenMP begins, and how long they wait for each other.

    Alone it counts visible cores. Threads beyond what a control group grants use it up by waiting for each
    other, and then all of them are stopped. Variables that are set already stay, and nothing is changed once
    torch is there.
    """
    if "torch" in sys.modules:
        return
    cores = allowed_cores()
    if not THREADS_ARE_GIVEN and cores < len(_affinity()):
        os.environ["OMP_NUM_THREADS"] = str(cores)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_ROUNDS))


def _affinity():
    """Numbers of the cores that the system may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _time_limit(root):
    """Cores' worth of time that control groups (Linux, version 1 and 2) grant; infinity without a limit."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    limit = math.inf
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        folder = mount / path.lstrip("/")
        # In a container the path may be the host's, which is not visible; the limit is then at the mount.
        for place in (folder, *folder.parents[:len(folder.parts) - len(mount.parts)]):
            limit = min(limit, _limit_of_group(place))
    return limit


def _limit_of_group(folder):
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")
                             for name in ("quota", "period"))
        return math.inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def threads_beside(others, most, visible=None):
    """One thread for every core that others leave, between 1 and `most`.

    others   cores that they use, a number with a fraction
    visible  cores shared with them; None: those that the system may run this process on
    """
    free = (len(_affinity()) if visible is None else visible) - others
    return min(most, max(1, math.floor(free + 1 - BUSY)))


class OtherPrograms:
    """Measures how many of the visible cores others than this process keep busy, from call to call.

    Programs of low priority (`nice`) do not count: they give way, and the one that makes code for this world
    is among them.
    """

    def __init__(self):
        self._last = _core_times()

    def cores(self):
        """Cores' worth of time since the last call that was neither idle nor ours; time that the host of a
        virtual machine gave to others is in it."""
        (then, idle_then, all_then, own_then), self._last = self._last, _core_times()
        now, idle, total, own = self._last
        if now <= then or total <= all_then:  # a system that does not count
            return 0.0
        return max(0.0, len(_affinity()) - (idle - idle_then + own - own_then) / (now - then))


def _core_times():
    """(now, idle, all, own) seconds: of the clock, of all visible cores, and of this process's threads; idle
    is what they spent on programs of low priority too.
    """
    cores, has_priority = _affinity(), not hasattr(os, "nice") or os.nice(0) <= 0
    times = [each for i, each in enumerate(psutil.cpu_times(percpu=True)) if i in cores]
    idle = sum(each.idle + getattr(each, "iowait", 0.0)
               + (getattr(each, "nice", 0.0) if has_priority else 0.0) for each in times)
    return time.perf_counter(), idle, sum(sum(each) for each in times), time.process_time()


class ThreadChoice:
    """How many threads to compute with: one for every core that other programs leave, between 1 and `most`.

    threads  the choice of the last `look`
    others   cores that others used when it was made

    Fewer are chosen at the first look that finds a core taken, more only after QUIET_FOR seconds in which
    every look found it free. Each thread of an operation waits for the others at its end, many times a frame,
    so one that shares its core with another program holds up all of them: fewer threads are then faster.
    """

    def __init__(self, most, *, visible=None, measure=None, clock=time.perf_counter):
        """visible: cores shared with the others; measure() -> how many they used since its last call."""
        self.most, self.threads, self.others = most, most, 0.0
        self._visible = len(_affinity()) if visible is None else visible
        self._measure, self._clock = measure or OtherPrograms().cores, clock
        self._looked, self._quiet_since = clock(), None

    def look(self):
        """Call often, between pieces of work; returns `threads`."""
        now = self._clock()
        if now - self._looked < LOOK_EVERY:
            return self.threads
        self._looked, self.others = now, self._measure()
        free = self._visible - self.others
        if free <= self.threads - BUSY and self.threads > 1:
            self.threads = threads_beside(self.others, self.most, self._visible)
            self._quiet_since = None
        elif self.threads < self.most and free >= self.threads + 1 - FREE:
            self._quiet_since = self._looked if self._quiet_since is None else self._quiet_since
            if now - self._quiet_since >= QUIET_FOR:
                self.threads, self._quiet_since = min(self.most, math.floor(free + FREE)), None
        else:
            self._quiet_since = None
        return self.threads


# Of what other programs use while a command starts, above all while torch is loaded.
SINCE_START = OtherPrograms()
