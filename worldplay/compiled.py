"""Compiled code for the parts of a pass between its attentions: made by another process, kept, and taken over."""
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
import torch
from torch import nn
from torch.func import functional_call

from worldplay import runtime
from worldplay.models import block, position, prope
from worldplay.models.block import Block
from worldplay.models.prope import Branches
from worldplay.models.transformer import TransformerConfig
from worldplay.world import WorldError

log = logging.getLogger(__name__)

_SOURCES = (__file__, block.__file__, position.__file__, prope.__file__)  # what the code is made of
_MERGE = "self_attn.o.", "self_attn.prope_o."
_WEIGHTS = {"ask": ("self_attn.fused.",), "ask_text": (*_MERGE, "norm3.", "cross_attn.q.", "cross_attn.norm_q."),
            "finish": (*_MERGE, "cross_attn.o.", "ffn.")}  # of a block, beside its modulation
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
        facts = [sizes, self.parts(), self.dtype, torch.__version__, runtime.instructions(torch.device(self.device)),
                 [Path(file).read_text(encoding="utf-8") for file in _SOURCES]]
        name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return platformdirs.user_cache_path("worldplay", appauthor=False) / "compiled" / name

    def parts(self):
        """name -> shapes of what a part is given beside weights, of a Block and, with a camera, of Branches.

        On a processor Branches stay as they are: channels that lie two by two and four by four are no vectors to its
        compiler, and the code takes more than twice as long (1390 us, 560 as written, of a past of 480 tokens).
        """
        return self.block_parts() | (self.branch_parts() if self.config.has_camera and self.device != "cpu" else {})

    def block_parts(self):
        """`parts` of a Block."""
        c, t, p, k = self.config, self.num_frames, self.num_tokens, self.config.num_heads
        x, modulation, heads, turn = (1, t, p, c.dim), (1, t, 6, c.dim), (1, t, p, k, c.head_dim), (c.head_dim // 2, 2)
        found = (1, t, p, 2 * k, c.head_dim) if c.has_camera else heads
        parts = {"ask": (x, modulation) if c.has_camera else (x, modulation, (1, t, p, 1, *turn))}
        if c.text_dim:
            return parts | {"ask_text": (x, found, modulation), "finish": (x, heads, modulation)}
        return parts | {"finish": (x, found, modulation)}

    def branch_parts(self):
        """`parts` of Branches, the window full."""
        k, d, tokens, past = self.config.num_heads, self.config.head_dim, self.num_tokens, self.window * self.num_tokens
        own, cameras = (1, self.num_frames, tokens, k, d), (1, self.num_frames, 4, 4)
        return {"queries": (own, (1, self.num_frames, tokens, 1, d // 2, 2), cameras),
                "pasts": ((1, k, past, d), (1, k, past, d), (1, 1, past, d // 2, 2), (1, self.window, 4, 4)),
                "found": (cameras, own)}


class CompiledCode:
    """The code for some Passes: it is there, being made, or not to be had."""

    def __init__(self, passes):
        """Has another process make the code where it is not there yet; `problem` says why that cannot be."""
        self.passes, self.problem, self._process = passes, "", None
        if passes.folder().is_dir():
            return
        can, reason = runtime.pick_compile(torch.device(passes.device))
        if not can:
            self.problem = reason
            return
        log.info("code for this world is being compiled, and kept for the next time")
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen([sys.executable, "-m", "worldplay.compiled", json.dumps(asdict(passes))],
                                         stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said)

    def is_ready(self):
        """Whether the code is there; while it is not, `problem` says whether it ever will be."""
        if self._process is not None and self._process.poll() is not None:
            self._take_end()
        return self._process is None and not self.problem

    def wait(self):
        """Wait until it is there.

            Raises WorldError("device") where it is not to be had.
        """
        if self._process is not None:
            self._process.wait()
        if not self.is_ready():
            raise WorldError("device", f"no code can be compiled here ({self.problem}); play without it (--path eager)")

    def install(self, transformer):
        """Let a transformer that is fused for inference run by the code; inputs of other shapes run as written.

            Raises WorldError("device") where the code cannot be read.
        """
        parts, folder = self.passes.parts(), self.passes.folder()
        try:
            loaded = {name: _load(folder / f"{name}.pt2") for name in parts}
        except RuntimeError as error:
            raise WorldError("device", f"the compiled code in {folder} cannot be read ({str(error).splitlines()[0]}); "
                             "delete that folder") from None
        for each in transformer.blocks:
            for name in _WEIGHTS.keys() & parts.keys():
                setattr(each, name, _Compiled(loaded[name], [*_weights(each, name).values()], getattr(each, name),
                                              parts[name]))
        if loaded.keys() >= Branches()._asdict().keys():
            transformer.branches = Branches(**{name: _Compiled(loaded[name], [], plain, parts[name])
                                               for name, plain in Branches()._asdict().items()})

    def close(self):
        """Give up what is still being made."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._take_end()

    def _take_end(self):
        self._process = None
        if not self.passes.folder().is_dir():
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()
            log.debug("the code was not compiled:\n%s", said)
            self.problem = said.splitlines()[-1] if said else "its process ended without a word"


def uninstall(transformer):
    """Let a transformer run as it is written again."""
    for each in transformer.blocks:
        for name in _WEIGHTS:
            each.__dict__.pop(name, None)
    transformer.branches = Branches()


class _Compiled:
    """One part, with its weights, in the place of what it was compiled of."""

    def __init__(self, loader, weights, plain, shapes):
        self.loader, self.weights, self.plain, self.shapes = loader, weights, plain, shapes

    def __call__(self, *inputs):
        given = [x for x in inputs if x is not None]
        if any(x.shape != shape for x, shape in zip(given, self.shapes)):
            return self.plain(*inputs)
        out = self.loader.run([*self.weights, *(x.contiguous() for x in given)])  # the code knows no strides
        return out[0] if len(out) == 1 else out


def _load(path):
    # What torch._inductor.aoti_load_package wraps: that imports the compiler, seconds during which no window answers,
    # and reads the description of the inputs again at every call.
    return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", True, 1, -1)


def _weights(each, part):
    return {name: x for name, x in each.state_dict().items() if name.startswith(("modulation", *_WEIGHTS[part]))}


# The other process ------------------------------------------------------------------------------------------


def compile_code(passes):
    """Compile every part, compare it with what it was compiled of on random numbers, and keep them all.

        Raises ArithmeticError where a part gives something else.
    """
    folder = passes.folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with torch.no_grad():
            for name, shapes in passes.parts().items():
                _compile_part(passes, name, shapes, draft / f"{name}.pt2")
        if not folder.is_dir():  # otherwise another process was quicker
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _compile_part(passes, name, shapes, path):
    part = _Part(passes, name)
    device, dtype = torch.device(passes.device), getattr(torch, passes.dtype)
    numbers = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=numbers).mul(shape[-1] ** -0.5).to(device, dtype) for shape in part.weights.values()]
    # rotations and cameras are float32, whatever the weights are
    inputs = [torch.randn(shape, generator=numbers).to(device, torch.float32 if shape[-1] < 5 else dtype)
              for shape in shapes]
    exported = torch.export.export(part, (weights, *inputs))
    # the number of threads is that of whoever runs it
    torch._inductor.aoti_compile_and_package(exported, package_path=str(path),
                                             inductor_configs={"cpp.dynamic_threads": True})
    expected = part(weights, *inputs)
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    for x, right in zip(_load(path).run([*weights, *inputs]), expected, strict=True):
        error = float((x.float() - right.float()).norm() / right.float().norm())
        if not error < _TOLERANCE[passes.dtype]:
            raise ArithmeticError(f"compiled {name} is off by {error:.2g}")


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
        if self.name == "ask" and len(inputs) == 2:
            inputs = *inputs, None  # with a camera the cache turns what it reads
        return getattr(self.block, self.name)(*inputs)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)  # somebody plays meanwhile
    fields = json.loads(sys.argv[1])
    compile_code(Passes(**fields | {"config": TransformerConfig(**fields["config"])}))
