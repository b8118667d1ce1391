"""Compiled code for what a pass computes around its attentions: built in a subprocess, cached on disk."""
import gc
import hashlib
import json
import os
import sys
import threading
import traceback
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call

from worldplay import runtime
from worldplay.engine.code import Code, first_line
from worldplay.models import block
from worldplay.models.attention import prope, rope
from worldplay.models.attention.prope import Branches
from worldplay.models.block import Block
from worldplay.models.configs import TransformerConfig
from worldplay.worlds.zoo import user_cache

_SOURCES = (__file__, block.__file__, rope.__file__, prope.__file__)  # files that decide the compiled code
# names of a block's parameters that each part reads, beside the modulation
_MERGE = "self_attn.o.", "self_attn.prope_o."
_WEIGHTS = {"qkv": ("self_attn.fused.",),
            "text_queries": (*_MERGE, "norm3.", "cross_attn.q.", "cross_attn.norm_q."),
            "feed_forward": (*_MERGE, "cross_attn.o.", "ffn.")}
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_environment = threading.Lock()  # held while code is loaded: _CACHE is set for the whole process
# dynamic_threads: the number of threads is read when the code runs. size_asserts: _Compiled compares the
# shapes of the inputs itself, which takes less time than one assertion for each weight.
_OPTIONS = {"config_patches": {"cpp.dynamic_threads": True, "size_asserts": False}}
_COMPILER_MEMORY = 2**31  # bytes of GPU memory that the subprocess needs: estimated, not measured
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # largest relative error of a part's output, in its norm


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The sizes that the compiled code of a world depends on; the batch is one sample.

    config      TransformerConfig
    num_frames  latents of a chunk; num_tokens: tokens of a latent; window: latents in it, the chunk included
    dtype       of the weights, "bfloat16" or "float32"; device: its type, torch.device.type
    """
    config: TransformerConfig
    num_frames: int
    num_tokens: int
    window: int
    dtype: str
    device: str

    def folder(self):
        """Folder of the code in the user's cache, named by a hash of everything that the code depends on."""
        sizes = asdict(self.config) | {"num_layers": 1}  # all blocks run the same code
        facts = [sizes, self.parts(), self.dtype, torch.__version__, sys.implementation.cache_tag,
                 runtime.instructions(torch.device(self.device)),
                 [Path(file).read_text(encoding="utf-8") for file in _SOURCES]]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return user_cache() / "compiled" / name

    def is_cached(self):
        """Whether the code of every part is in the folder; only code that passed its comparison is saved."""
        folder = self.folder()
        return all((folder / name).is_file() for name in self.parts())

    def parts(self):
        """name -> shapes of the inputs, without weights, of each compiled method of Block and of Branches.

        Branches, which only a transformer with a camera uses, are not compiled on a CPU: its compiler does
        not vectorise operations on groups of two and four channels, and the code took more than twice as long
        (1.41 ms instead of 0.56 for 480 tokens, 2 heads, one thread).
        """
        return self.block_parts() | (self.branch_parts() if self.config.has_camera
                                     and self.device != "cpu" else {})

    def block_parts(self):
        """`parts` of a Block."""
        c, t, p, k = self.config, self.num_frames, self.num_tokens, self.config.num_heads
        x, modulation, heads = (1, t, p, c.dim), (1, t, 6, c.dim), (1, t, p, k, c.head_dim)
        rotary = 1, t, p, 1, c.head_dim // 2, 2
        attended = (1, t, p, 2 * k, c.head_dim) if c.has_camera else heads
        parts = {"qkv": (x, modulation) if c.has_camera else (x, modulation, rotary)}
        if c.text_dim:
            return parts | {"text_queries": (x, attended, modulation), "feed_forward": (x, heads, modulation)}
        return parts | {"feed_forward": (x, attended, modulation)}

    def branch_parts(self):
        """`parts` of Branches once the window is full."""
        k, d, tokens = self.config.num_heads, self.config.head_dim, self.num_tokens
        keys = self.window * tokens
        own, cameras = (1, self.num_frames, tokens, k, d), (1, self.num_frames, 4, 4)
        return {"queries": (own, (1, self.num_frames, tokens, 1, d // 2, 2), cameras),
                "keys_values": ((1, k, keys, d), (1, k, keys, d), (1, 1, keys, d // 2, 2),
                                (1, self.window, 4, 4)),
                "output": (cameras, own)}


class CompiledCode(Code):
    """Compiled code for one Passes, in place of what blocks compute around their attentions."""
    module, kind = __name__, "compiled"

    def __init__(self, passes, **how):
        """As Code; passes: of the world."""
        self.passes, self._parts = passes, {}
        super().__init__(**how)

    def install(self, transformer):
        """Replace methods of a transformer that is fused for inference by the code, until `uninstall`.

        Inputs of other shapes than those compiled for run eager.
        """
        shapes = self.passes.parts()
        for layer in transformer.blocks:
            for name in _WEIGHTS.keys() & shapes.keys():
                setattr(layer, name, _Compiled(self._parts[name], [*_weights(layer, name).values()],
                                               getattr(layer, name), shapes[name]))
        eager = Branches()._asdict()
        if shapes.keys() >= eager.keys():
            transformer.branches = Branches(**{
                name: _Compiled(self._parts[name], [], eager[name], shapes[name]) for name in eager})

    def folder(self):
        """As Passes.folder."""
        return self.passes.folder()

    def hindrance(self):
        """Why there can be no code on this machine, "" where there can."""
        can, reason = runtime.pick_compile(torch.device(self.passes.device))
        return "" if can else reason

    def is_cached(self):
        """As Passes.is_cached."""
        return self.passes.is_cached()

    def load(self):
        """Load the parts; OSError or ValueError where that fails."""
        self._parts = self._load_parts()

    def room(self):
        """Why nothing can be compiled at present, "" where it can."""
        if runtime.has_room(torch.device(self.passes.device), _COMPILER_MEMORY):
            return ""
        return f"compiling takes {_COMPILER_MEMORY / 2**30:.0f} GiB of GPU memory; less is free"

    def recipe(self):
        """The Passes as JSON, for `module`."""
        return asdict(self.passes)

    def _load_parts(self):
        folder = self.passes.folder()
        try:
            with _environment:
                return {name: _load(folder / name) for name in self.passes.parts()}
        except OSError as error:  # torch's loader writes files too, and the folder may be read-only
            raise OSError(f"{folder}: {error.strerror or error}") from error
        except Exception as error:  # torch's loader raises many types for a damaged file
            problem = first_line(error)
            raise ValueError(f"{folder} cannot be loaded ({problem}), delete that folder") from error


def uninstall(transformer):
    """Undo CompiledCode.install: all passes of the transformer run eager again."""
    for layer in transformer.blocks:
        for name in _WEIGHTS:
            layer.__dict__.pop(name, None)
    transformer.branches = Branches()


class _Compiled:
    """A compiled method with its weights: called as the eager one, which it calls for other input shapes."""

    def __init__(self, code, weights, eager, shapes):
        self.code, self.weights, self.eager, self.shapes = code, weights, eager, shapes

    def __call__(self, *inputs):
        tensors = [x for x in inputs if x is not None]
        if any(x.shape != shape for x, shape in zip(tensors, self.shapes)):
            return self.eager(*inputs)
        out = self.code(*self.weights, *(x.contiguous() for x in tensors))  # compiled for contiguous inputs
        return out[0] if len(out) == 1 else out


def _load(path):
    """The function of weights and inputs that is saved in a file."""
    # Importing the compiler allocates so many objects that a garbage collection meanwhile holds the GIL long
    # enough to stall the window.
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
    """Inside, torch's compiler keeps its own files, which loading a part needs again, beside the part."""
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = str(path.parent / "files")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CACHE]
        else:
            os.environ[_CACHE] = before


def _weights(layer, part):
    """name -> tensor of the weights of a Block that a part reads."""
    prefixes = "modulation", *_WEIGHTS[part]
    return {name: x for name, x in layer.state_dict().items() if name.startswith(prefixes)}


# In the subprocess ------------------------------------------------------------------------------------------


def compile_code(passes):
    """Compile every part that is not cached yet, compare its output with the eager one's, and save it.

    If the process is killed, the parts saved so far and torch's own cache remain for the next one. Two
    processes at once write the same files.

        Raises ArithmeticError where an output differs by more than _TOLERANCE, OSError where code cannot be
        saved.
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
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).mul(shape[-1] ** -0.5).to(device, dtype)
               for shape in part.weights.values()]
    # rotations and cameras are float32, whatever the weights are
    inputs = [torch.randn(shape, generator=generator).to(device, torch.float32 if shape[-1] < 5 else dtype)
              for shape in shapes]
    graph = torch.export.export(part, (weights, *inputs)).graph_module
    expected = part(weights, *inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    with _cache_beside(path):
        code = torch._inductor.standalone_compile(graph, [*weights, *inputs], options=_OPTIONS)
        for x, eager in zip(code(*weights, *inputs), expected, strict=True):
            error = float((x.float() - eager.float()).norm() / eager.float().norm())
            if not error < _TOLERANCE[passes.dtype]:
                raise ArithmeticError(f"compiled {name} is off by {error:.2g}")
        code.save(path=str(path), format="binary")


class _Part(nn.Module):
    """A method of Block or of Branches as a function of its weights and inputs, for torch.export."""

    def __init__(self, passes, name):
        super().__init__()
        self.name, self.weights, self._blocks = name, {}, ()
        if name not in _WEIGHTS:
            return
        with torch.device("meta"):
            method = _BlockMethod(Block(passes.config), name)
        method.block.self_attn.fuse()
        self._blocks = (method,)  # in a tuple, so that it is no submodule: weights come as inputs
        self.weights = {f"block.{key}": x.shape for key, x in _weights(method.block, name).items()}

    def forward(self, weights, *inputs):
        if not self._blocks:
            return getattr(Branches(), self.name)(*inputs)
        return functional_call(self._blocks[0], dict(zip(self.weights, weights)), inputs)


class _BlockMethod(nn.Module):
    """A Block whose forward is the method called `name`."""

    def __init__(self, layer, name):
        super().__init__()
        self.block, self.name = layer, name

    def forward(self, *inputs):
        if self.name == "qkv" and len(inputs) == 2:
            inputs = *inputs, None  # rotary: with a camera, queries and keys are rotated in the attention
        return getattr(self.block, self.name)(*inputs)


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    try:
        compile_code(Passes(**fields | {"config": TransformerConfig(**fields["config"])}))
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {first_line(error)}")  # the parent process shows the last line
