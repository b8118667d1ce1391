"""What every test starts from: no log handler, no log level and no exception hook of an earlier command."""
import logging
import os
import sys

import pytest
from filelock import FileLock

# Networks here are so small that a second thread waits more than it works, and the processes have the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config):
    """Processes for `-n auto`: up to four for the whole suite, none beside this one for a part of it."""
    from worldplay.cores import allowed_cores
    is_whole = list(config.args) == config.getini("testpaths") and not config.option.keyword
    return min(allowed_cores(), 4) if is_whole else 0


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger("worldplay"), "handlers", [])
    logging.getLogger("worldplay").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def code_is_made_at_ordinary_priority(monkeypatch):
    """What gives way has no time at all on a machine that is busy with tests."""
    from worldplay.engine import code
    monkeypatch.setattr(code, "_give_way", lambda pid: None)


@pytest.fixture(scope="session")
def code_cache(tmp_path_factory):
    """A user's cache folder with the code of the toy world, made by the other process once for all files."""
    from tests.engine.toy_code import passes
    from worldplay.engine.compiled import CompiledCode
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # every process has a folder of its own there
    cache = shared / "code_cache"
    with FileLock(shared / "code_cache.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        CompiledCode(passes()).wait()
    return cache


@pytest.fixture(scope="session")
def native_cache(tmp_path_factory):
    """A user's cache folder with the native code of every number type that this processor multiplies."""
    import torch

    from worldplay import runtime
    from worldplay.engine.native.code import check
    from worldplay.engine.native.library import Library
    cache = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        for dtype in {"float32", str(runtime.pick_dtype(torch.device("cpu"))[0]).removeprefix("torch.")}:
            Library(dtype).build(lambda library, dtype=dtype: check(library, dtype))
    return cache
