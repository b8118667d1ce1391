"""Compiled code for the parts of a pass between its attentions: made by another process, kept on disk."""
import gc
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
import torch
from torch import nn
from torch.func import functional_call

import worldplay
from worldplay import runtime
from worldplay.errors import WorldError
from worldplay.models import block
from worldplay.models.attention import prope, rope
from worldplay.models.attention.prope import Branches
from worldplay.models.block import Block
from worldplay.models.configs import TransformerConfig

log = logging.getLogger(__name__)

_SOURCES = (__file__, block.__file__, rope.__file__, prope.__file__)  # what the code is made of
_MERGE = "self_attn.o.", "self_attn.prope_o."
_WEIGHTS = {"qkv": ("self_attn.fused.",),
            "text_queries": (*_MERGE, "norm3.", "cross_attn.q.", "cross_attn.norm_q."),
            "feed_forward": (*_MERGE, "cross_attn.o.", "ffn.")}  # of a block, beside its modulation
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_loading = threading.Lock()  # that variable is the whole process's
# The number of threads is that of whoever runs it; shapes are compared before, once a part instead of once a
# weight.
_OPTIONS = {"config_patches": {"cpp.dynamic_threads": True, "size_asserts": False}}
_ROOM = 2**31  # bytes of the GPU's memory that the other process takes beside play: estimated, not measured
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the norm of what a part gives


@dataclass(frozen=True, kw_only=True)
class Passes:
    """What decides the code for the passes of a world, one sample at a time.

    config      TransformerConfig
    num_frames  latents of a chunk; num_tokens: of each; window: latents seen at once, the chunk included
    dtype       of the weights, "bfloat16" or "float32"; device: type of the device they are on
    """
    config: TransformerConfig
    num_frames: int
    num_tokens: int
    window: int
    dtype: str
    device: str

    def folder(self):
        """Where the code is kept in the user's cache, under a name for all that it depends on."""
        sizes = asdict(self.config) | {"num_layers": 1}  # all blocks run the same code
        facts = [sizes, self.parts(), self.dtype, torch.__version__, sys.implementation.cache_tag,
                 runtime.instructions(torch.device(self.device)),
                 [Path(file).read_text(encoding="utf-8") for file in _SOURCES]]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return platformdirs.user_cache_path("worldplay", appauthor=False) / "compiled" / name

    def is_made(self):
        """Whether every part is there; each is kept once it is whole and has been compared."""
        folder = self.folder()
        return all((folder / name).is_file() for name in self.parts())

    def parts(self):
        """name -> shapes of what a part is given beside weights, of a Block and, with a camera, of Branches.

        On a processor Branches stay as they are: channels that lie two by two and four by four are no vectors
        to its compiler, and the code takes more than twice as long (1.41 ms, 0.56 as written; 480 tokens, 2
        heads, one thread).
        """
        return self.block_parts() | (self.branch_parts() if self.config.has_camera
                                     and self.device != "cpu" else {})

    def block_parts(self):
        """`parts` of a Block."""
        c, t, p, k = self.config, self.num_frames, self.num_tokens, self.config.num_heads
        x, modulation, heads = (1, t, p, c.dim), (1, t, 6, c.dim), (1, t, p, k, c.head_dim)
        turn = c.head_dim // 2, 2
        found = (1, t, p, 2 * k, c.head_dim) if c.has_camera else heads
        parts = {"qkv": (x, modulation) if c.has_camera else (x, modulation, (1, t, p, 1, *turn))}
        if c.text_dim:
            return parts | {"text_queries": (x, found, modulation), "feed_forward": (x, heads, modulation)}
        return parts | {"feed_forward": (x, found, modulation)}

    def branch_parts(self):
        """`parts` of Branches, the window full."""
        k, d, tokens = self.config.num_heads, self.config.head_dim, self.num_tokens
        past = self.window * tokens
        own, cameras = (1, self.num_frames, tokens, k, d), (1, self.num_frames, 4, 4)
        return {"queries": (own, (1, self.num_frames, tokens, 1, d // 2, 2), cameras),
                "keys_values": ((1, k, past, d), (1, k, past, d), (1, 1, past, d // 2, 2),
                                (1, self.window, 4, 4)),
                "output": (cameras, own)}


class CompiledCode:
    """The code for some Passes: loaded, being made, or impossible here."""

    def __init__(self, passes):
        """Begins to load the code, and has another process make it first where it is not there yet.

        problem  why there can be no code; "" as long as there may be
        """
        self.passes, self.problem = passes, ""
        self._parts, self._process, self._is_closed = {}, None, False
        # an import cannot be interrupted
        self._thread = threading.Thread(target=self._run, name="code", daemon=True)
        self._thread.start()

    def is_ready(self):
        """Whether it can be installed; while it cannot, `problem` says whether it ever will."""
        return not self._thread.is_alive() and not self.problem

    def wait(self):
        """Wait until it can be installed.

            Raises WorldError("device") where there can be none.
        """
        self._thread.join()
        if self.problem:
            raise WorldError("device", f"there is no compiled code here ({self.problem}); --path eager needs "
                             "none")

    def install(self, transformer):
        """Let a transformer that is fused for inference run by the code; inputs of other shapes run as
        written.
        """
        shapes = self.passes.parts()
        for each in transformer.blocks:
            for name in _WEIGHTS.keys() & shapes.keys():
                setattr(each, name, _Compiled(self._parts[name], [*_weights(each, name).values()],
                                              getattr(each, name),
                                              shapes[name]))
        plain = Branches()._asdict()
        if shapes.keys() >= plain.keys():
            transformer.branches = Branches(**{name: _Compiled(self._parts[name], [], plain[name],
                                                               shapes[name])
                                               for name in plain})

    def close(self):
        """Give up what is still being made."""
        self._is_closed = True
        if self._process is not None:
            self._process.terminate()
            self._thread.join()

    def _run(self):
        try:
            # what it takes to load code, too
            can, reason = runtime.pick_compile(torch.device(self.passes.device))
            if not can:
                raise ChildProcessError(reason)
            if not self.passes.is_made():
                self._make()
            self._parts = self._loaded()
        except Exception as error:
            log.debug("there is no code", exc_info=error)
            self.problem = _line(error)

    def _loaded(self):
        folder = self.passes.folder()
        try:
            with _loading:
                return {name: _load(folder / name) for name in self.passes.parts()}
        except OSError as error:  # of a folder that cannot be written, as torch's loader does
            raise OSError(f"{folder}: {error.strerror or error}") from error
        except Exception as error:  # whatever a torn or foreign file makes of torch's loader
            raise ValueError(f"{folder} cannot be loaded ({_line(error)}), delete that folder") from error

    def _make(self):
        if not runtime.has_room(torch.device(self.passes.device), _ROOM):
            raise ChildProcessError(f"compiling takes {_ROOM / 2**30:.0f} GiB of GPU memory; less is free")
        log.info("code for this world is being compiled, and kept for the next time")
        with tempfile.TemporaryFile() as said:
            # Where this package lies comes first on its path: there may be another one installed, or a
            # random.py here.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worldplay.engine.compiled", json.dumps(asdict(self.passes))],
                stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, cwd=Path(worldplay.__file__).parent.parent)
            if self._is_closed:
                self._process.terminate()
            self._process.wait()
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
        if not self.passes.is_made():
            log.debug("the code was not compiled:\n%s", words)
            raise ChildProcessError(words.splitlines()[-1] if words else "its process ended without a word")


def _line(error):
    return (str(error) or type(error).__name__).splitlines()[0]


def uninstall(transformer):
    """Let a transformer run as it is written again."""
    for each in transformer.blocks:
        for name in _WEIGHTS:
            each.__dict__.pop(name, None)
    transformer.branches = Branches()


class _Compiled:
    """One part, with its weights, in the place of what it was compiled of."""

    def __init__(self, code, weights, plain, shapes):
        self.code, self.weights, self.plain, self.shapes = code, weights, plain, shapes

    def __call__(self, *inputs):
        given = [x for x in inputs if x is not None]
        if any(x.shape != shape for x, shape in zip(given, self.shapes)):
            return self.plain(*inputs)
        out = self.code(*self.weights, *(x.contiguous() for x in given))  # the code knows no strides
        return out[0] if len(out) == 1 else out


def _load(path):
    """The function of weights and inputs that is kept in a file."""
    # A collection amid all that the compiler's import brings would hold the interpreter's lock, and the
    # window still.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        import torch._inductor
        with _cache_beside(path):
            return torch._inductor.CompiledArtifact.load(path=str(path), format="binary")
    finally:
        if is_collecting:
            gc.freeze()
            gc.enable()


@contextmanager
def _cache_beside(path):
    """Inside, torch's compiler keeps its own files, which a loaded part needs again, in the folder beside a
    part.
    """
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(path.parent / "files")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CACHE]
        else:
            os.environ[_CACHE] = before


def _weights(each, part):
    prefixes = "modulation", *_WEIGHTS[part]
    return {name: x for name, x in each.state_dict().items() if name.startswith(prefixes)}


# The other process ------------------------------------------------------------------------------------------


def compile_code(passes):
    """Compile every part, compare it with what it was compiled of on random numbers, and keep it.

    A process that is ended meanwhile leaves whole parts and what torch's compiler goes on from; two at once
    agree.

        Raises ArithmeticError where a part gives something else, OSError where it cannot be kept.
    """
    folder = passes.folder()
    if passes.device == "cpu" and " " in str(folder):
        raise OSError(f"torch's compiler takes no blank in {folder}; let XDG_CACHE_HOME name another place")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for name, shapes in passes.parts().items():
            if not (folder / name).is_file():
                _compile_part(passes, name, shapes, folder / name)


def _compile_part(passes, name, shapes, path):
    part = _Part(passes, name)
    device, dtype = torch.device(passes.device), getattr(torch, passes.dtype)
    numbers = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=numbers).mul(shape[-1] ** -0.5).to(device, dtype)
               for shape in part.weights.values()]
    # rotations and cameras are float32, whatever the weights are
    inputs = [torch.randn(shape, generator=numbers).to(device, torch.float32 if shape[-1] < 5 else dtype)
              for shape in shapes]
    graph = torch.export.export(part, (weights, *inputs)).graph_module
    expected = part(weights, *inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    with _cache_beside(path):
        code = torch._inductor.standalone_compile(graph, [*weights, *inputs], options=_OPTIONS)
        for x, right in zip(code(*weights, *inputs), expected, strict=True):
            error = float((x.float() - right.float()).norm() / right.float().norm())
            if not error < _TOLERANCE[passes.dtype]:
                raise ArithmeticError(f"compiled {name} is off by {error:.2g}")
        code.save(path=str(path), format="binary")


class _Part(nn.Module):
    """A part of a Block or of Branches as a function of its weights and inputs."""

    def __init__(self, passes, name):
        super().__init__()
        self.name, self.weights, self._blocks = name, {}, ()
        if name not in _WEIGHTS:
            return
        with torch.device("meta"):
            whole = _Named(Block(passes.config), name)
        whole.block.self_attn.fuse()
        self._blocks = (whole,)  # in a tuple: its weights are given, none is a part's own
        self.weights = {f"block.{key}": x.shape for key, x in _weights(whole.block, name).items()}

    def forward(self, weights, *inputs):
        if not self._blocks:
            return getattr(Branches(), self.name)(*inputs)
        return functional_call(self._blocks[0], dict(zip(self.weights, weights)), inputs)


class _Named(nn.Module):
    """One method of a block."""

    def __init__(self, each, name):
        super().__init__()
        self.block, self.name = each, name

    def forward(self, *inputs):
        if self.name == "qkv" and len(inputs) == 2:
            inputs = *inputs, None  # with a camera the cache turns what it reads
        return getattr(self.block, self.name)(*inputs)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)  # somebody plays meanwhile
    fields = json.loads(sys.argv[1])
    try:
        compile_code(Passes(**fields | {"config": TransformerConfig(**fields["config"])}))
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {_line(error)}")  # the last line is what its parent passes on
