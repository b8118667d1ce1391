"""Cores: limits count, OpenMP is set up before torch, threads follow what others leave."""
import os
import subprocess
import sys
from collections import namedtuple

import pytest

from tests import ROOT
from worldplay import cores

V1 = ("2:cpu,cpuacct:/pod/box", "sys/fs/cgroup/cpu,cpuacct")


def groups(root, line, files):
    """A folder with the control groups of a process: {file: text}."""
    for name, text in {"proc/self/cgroup": f"5:memory:/elsewhere\n{line}", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize("line, files, limit", [
    ("0::/", {}, 8),
    ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
    ("0::/", {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
    ("0::/", {"sys/fs/cgroup/cpu.max": "270000 100000"}, 2),
    ("0::/", {"sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
    ("0::/", {"sys/fs/cgroup/cpu.max": "9900000 100000"}, 8),
    ("0::/", {"sys/fs/cgroup/cpu.max": "half of it"}, 8),
    ("0::/a/b", {"sys/fs/cgroup/a/cpu.max": "200000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 2),
    ("0::/of/the/host", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    (V1[0], {f"{V1[1]}/pod/box/cpu.cfs_quota_us": "-1", f"{V1[1]}/pod/box/cpu.cfs_period_us": "100000"}, 8),
    (V1[0], {f"{V1[1]}/pod/cpu.cfs_quota_us": "400000", f"{V1[1]}/pod/cpu.cfs_period_us": "100000"}, 4),
    ("3:cpuset:/pod", {"sys/fs/cgroup/cpuset/pod/cpu.max": "100000 100000"}, 8),
])
def test_the_time_limit_of_a_control_group_counts(line, files, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_affinity", lambda: set(range(8)))
    assert cores.allowed_cores(groups(tmp_path, line, files)) == limit


def test_without_control_groups_all_cores_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_affinity", lambda: {3, 5})
    assert cores.allowed_cores(tmp_path) == 2


def test_the_affinity_of_the_process_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5}, raising=False)
    assert cores.allowed_cores(tmp_path) == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.allowed_cores(tmp_path) == 6, "a system without affinity"
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.allowed_cores(tmp_path) == 1


# Before torch


ENTRIES = {
    "play.py": "runpy.run_path('play.py', run_name='__main__')",
    "train_world.py": "runpy.run_path('train_world.py', run_name='__main__')",
    "worldplay": "runpy.run_module('worldplay', run_name='__main__')",
    "load_world": "import worldplay; worldplay.load_world()",
}
ARGUMENTS = {"play.py": ["--headless", "--script", "w*1", "--out", "OUT/x.mp4"], "worldplay": ["bench"]}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("given, seen", [(None, f"1 {cores.SPIN_ROUNDS}"), ("5", "5 5")])
def test_openmp_is_set_up_before_torch_is_imported(entry, given, seen, tmp_path):
    """A stand-in for torch that says what it finds at its import; the process may use one of two cores."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "import os; print('threads', os.environ.get('OMP_NUM_THREADS'), os.environ.get('GOMP_SPINCOUNT'), "
        "flush=True); os._exit(0)")
    arguments = [word.replace("OUT", str(tmp_path)) for word in ARGUMENTS.get(entry, [])]
    program = f"""
import os, runpy, sys
for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
    os.environ.pop(name, None)
os.environ.update({({'OMP_NUM_THREADS': given, 'GOMP_SPINCOUNT': given} if given else {})!r})
sys.argv = [{entry!r}, *{arguments!r}]
from worldplay import cores
assert 'torch' not in sys.modules
cores._affinity, cores.allowed_cores = lambda: {{0, 1}}, lambda: 1
{ENTRIES[entry]}
"""
    state = {name: str(tmp_path) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
    assert _run(program, state, first=tmp_path) == f"threads {seen}"


def _run(program, env, first=None):
    """What a program prints, run in this checkout; `first`: a folder of modules before all others."""
    path = os.pathsep.join(str(place) for place in (first, ROOT) if place)
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                            env=os.environ | env | {"PYTHONPATH": path})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_nothing_is_set_without_a_limit_or_after_torch(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "THREADS_ARE_GIVEN", False)
    monkeypatch.setattr(cores, "_affinity", lambda: {0, 1})
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(cores, "allowed_cores", lambda: 2)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    cores.prepare()
    assert "OMP_NUM_THREADS" not in os.environ, "OpenMP counts the cores itself"
    assert os.environ["GOMP_SPINCOUNT"] == "7", "what is set stays"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    with monkeypatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        cores.prepare()
        assert "GOMP_SPINCOUNT" not in os.environ, "it would undo the user's policy"
    monkeypatch.setattr(cores, "allowed_cores", lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", None)
    cores.prepare()
    assert not {"OMP_NUM_THREADS", "GOMP_SPINCOUNT"} & os.environ.keys(), "it would be too late"


# While others use the cores


def test_others_are_what_is_neither_idle_nor_ours(monkeypatch):
    monkeypatch.setattr(cores, "_affinity", lambda: {0, 1})
    #                 now, idle, all, own
    times = iter([(0.0, 10.0, 100.0, 1.0), (2.0, 11.0, 104.0, 2.0), (4.0, 15.0, 108.0, 2.0),
                  (6.0, 15.0, 108.0, 3.0)])
    monkeypatch.setattr(cores, "_core_times", lambda: next(times))
    others = cores.OtherPrograms()
    assert others.cores() == pytest.approx(1.0), "of 4 seconds of two cores 1 was idle, 1 ours"
    assert others.cores() == 0.0
    assert others.cores() == 0.0, "a system that does not count them says nothing of others"


def test_the_times_of_this_machine_are_read():
    now, idle, total, own = cores._core_times()
    assert total >= idle >= 0 and total > 0 and own > 0
    assert 0 <= cores.OtherPrograms().cores() <= len(cores._affinity())


@pytest.mark.parametrize("own, idle", [(0, 30.0), (5, 10.0)])
def test_programs_that_give_way_leave_their_cores_to_a_program_that_does_not(own, idle, monkeypatch):
    monkeypatch.setattr(cores, "_affinity", lambda: {0})
    monkeypatch.setattr(os, "nice", lambda by: own)
    times = namedtuple("Times", ("user", "nice", "idle", "iowait"))(50.0, 20.0, 7.0, 3.0)
    monkeypatch.setattr(cores.psutil, "cpu_times", lambda percpu: [times])
    assert cores._core_times()[1:3] == (idle, 80.0)


class Machine:
    """Cores of which others use `others`, and a clock that stands still between looks."""

    def __init__(self, most, visible=None):
        self.now, self.others = 0.0, 0.0
        self.choice = cores.ThreadChoice(most, visible=visible or most, measure=lambda: self.others,
                                         clock=lambda: self.now)

    def after(self, seconds, *, others):
        """The choice once others have used so many cores for so long."""
        self.others, end = others, self.now + seconds
        while self.now < end:
            self.now += 0.1
            self.choice.look()
        return self.choice.threads


@pytest.mark.parametrize("most, others, threads", [
    (2, 0.0, 2), (2, 0.4, 2), (2, 0.7, 1), (2, 1.0, 1), (2, 2.0, 1), (1, 1.0, 1),
    (8, 0.4, 8), (8, 1.0, 7), (8, 3.2, 5), (8, 8.0, 1)])
def test_as_many_threads_as_cores_are_left(most, others, threads):
    assert cores.threads_beside(others, most, visible=most) == threads, "in one look"
    machine = Machine(most)
    assert machine.after(1.0, others=others) == threads
    assert machine.after(60.0, others=others) == threads, "and it stays so"
    assert machine.after(10.0, others=0.0) == most, "once it is quiet all are used again"


def test_a_core_must_be_free_for_a_while_before_it_is_used_again():
    machine = Machine(2)
    assert machine.after(1.0, others=1.0) == 1
    for _ in range(10):  # others that come and go
        assert machine.after(0.8 * cores.QUIET_FOR, others=0.1) == 1
        assert machine.after(1.0, others=1.0) == 1
    assert machine.after(cores.QUIET_FOR + 2 * cores.LOOK_EVERY, others=0.1) == 2


def test_between_the_two_bounds_the_number_stays():
    machine = Machine(2)
    assert machine.after(30.0, others=0.4) == 2
    machine.after(1.0, others=1.0)
    assert machine.after(30.0, others=0.4) == 1


def test_cores_beyond_those_allowed_are_left_to_the_others():
    machine = Machine(2, visible=64)
    assert machine.after(30.0, others=61.0) == 2
    assert machine.after(30.0, others=63.0) == 1
