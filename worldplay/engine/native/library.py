"""The library of native code for a processor: built by its C++ compiler in seconds, checked, kept on disk."""
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from worldplay import runtime
from worldplay.worlds.zoo import user_cache

_SOURCES = "transformer.cpp", "product.h"
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fPIC")
_NAME = "passes.so"


@dataclass(frozen=True)
class Library:
    """Native code that multiplies in "bfloat16" or "float32"; one library serves worlds of all sizes."""
    dtype: str

    def folder(self):
        """Its folder in the user's cache, named by a hash of everything that the code depends on."""
        facts = [self.dtype, _FLAGS, runtime.instructions(torch.device("cpu")), runtime.extensions(),
                 torch.__version__, [_source(name).read_text(encoding="utf-8") for name in _SOURCES]]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return user_cache() / "compiled" / f"native-{name}"

    def is_cached(self):
        """Whether it is in the folder; only code that passed its comparison is."""
        return (self.folder() / _NAME).is_file()

    def load(self):
        """The library as ctypes has it; OSError where it cannot be loaded."""
        return ctypes.CDLL(str(self.folder() / _NAME))

    def build(self, check):
        """Compile it, have check(ctypes library) compare it, and keep it; a few seconds of one core.

            Raises ChildProcessError with the compiler's message, or what `check` raises.
        """
        folder = self.folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            work = Path(work)
            compiler = runtime.cpp_compiler()
            defines = ("-DBF16",) if self.dtype == "bfloat16" else ()
            source = str(_source("transformer.cpp"))
            _run([compiler, *_FLAGS, *defines, "-fopenmp", "-c", source, "-o", "passes.o"], work)
            # torch's own OpenMP, or two sets of threads would wait for each other's cores
            openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
            openmp = [str(openmp[0])] if openmp else ["-fopenmp"]
            _run([compiler, "-shared", "passes.o", *openmp, "-o", _NAME], work)
            check(ctypes.CDLL(str(work / _NAME)))
            os.replace(work / _NAME, folder / _NAME)


def _source(name):
    return Path(__file__).with_name(name)


def _run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        raise ChildProcessError(f"{command[0]}: {lines[0] if lines else 'it ended without a message'}")
