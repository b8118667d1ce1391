"""What every test starts from: no log handler, no log level and no exception hook of an earlier command."""
import logging
import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_log(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger("worldplay"), "handlers", [])
    logging.getLogger("worldplay").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def code_cache(tmp_path_factory):
    """A user's cache folder with the code of the toy world, made by the other process once for all files."""
    from tests.engine.toy_code import passes
    from worldplay.engine.compiled import CompiledCode
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
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
