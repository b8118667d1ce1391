"""Native code in place of a transformer's passes, and the subprocess that builds and checks it."""
import json
import sys
import traceback

import torch

from worldplay import runtime
from worldplay.engine.code import Code, first_line
from worldplay.engine.native.library import Library
from worldplay.engine.native.passes import NativePasses
from worldplay.models.attention.kv_cache import KVCache
from worldplay.models.configs import TransformerConfig
from worldplay.models.transformer import Transformer, fuse_for_inference

NO_COMPILER = "g++ is not on the path"
_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # largest relative error of a result, in its norm


class NativeCode(Code):
    """Native code for worlds on a processor that `worldplay.engine.native.passes.fits`."""
    module, kind, loads_at_once = __name__, "native", True

    def __init__(self, dtype, transformer=None, **how):
        """dtype: of the weights, "bfloat16" or "float32"; how: see Code.

        transformer  that it will be installed in, fused for inference; None: it is made and loaded only
        """
        self._source, self._transformer, self._passes = Library(dtype), transformer, None
        super().__init__(**how)

    def install(self, transformer):
        """Replace `denoise` and `commit` of the transformer, until `uninstall`."""
        transformer.denoise, transformer.commit = self._passes.denoise, self._passes.commit

    def folder(self):
        """As Library.folder."""
        return self._source.folder()

    def hindrance(self):
        """Why there can be no code here: none is built yet, and there is no compiler."""
        return "" if self._source.is_cached() or runtime.cpp_compiler() else NO_COMPILER

    def is_cached(self):
        """As Library.is_cached."""
        return self._source.is_cached()

    def load(self):
        """Load the library and, where a transformer was given, pack its weights: what `install` puts in.

            Raises OSError, which names the folder to delete, where loading fails.
        """
        try:
            library = self._source.load()
        except OSError as error:
            raise OSError(f"{self._source.folder()} cannot be loaded ({first_line(error)}), delete that "
                          "folder") from error
        if self._transformer is not None:  # packing its weights takes a frame's time: not in play's thread
            self._passes = NativePasses(library, self._transformer)

    def room(self):
        """"": it takes no memory to speak of."""
        return ""

    def recipe(self):
        """The number type, for `module`."""
        return self._source.dtype


def uninstall(transformer):
    """Undo NativeCode.install."""
    for name in ("denoise", "commit"):
        transformer.__dict__.pop(name, None)


# In the subprocess ------------------------------------------------------------------------------------------


@torch.inference_mode()
def check(library, dtype):
    """Compare passes of a small random transformer with the written ones, in a window that fills up.

        Raises ArithmeticError where a result differs by more than _TOLERANCE.
    """
    config = TransformerConfig(dim=64, ffn_dim=96, num_heads=2, num_layers=2, in_channels=4, out_channels=4,
                               patch_size=(1, 3, 2), action_channels=3)
    torch.manual_seed(0)
    written = Transformer(config)
    for parameter in written.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    written = fuse_for_inference(written.to(getattr(torch, dtype)).eval().requires_grad_(False))
    native, caches = NativePasses(library, written), [
        KVCache(config, batch=1, num_frames=3, tokens_per_frame=15, dtype=written.dtype) for _ in range(2)]
    for frame in range(5):
        x, actions = torch.randn(1, 1, 4, 9, 10).to(written.dtype), torch.rand(1, 1, 3)
        results = []
        for passes, cache in zip((written, native), caches):
            chunk = written.prepare(cache, x.shape, frame=frame, actions=actions)
            results.append(passes.denoise(x, 0.7, cache, chunk).float())
            passes.commit(x, 0.1, cache, chunk)
        for expected, given in (results, [cache.past().float() for cache in caches]):
            error = float((given - expected).norm() / expected.norm())
            if not error < _TOLERANCE[dtype]:
                raise ArithmeticError(f"the native code is off by {error:.2g}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    source = Library(json.loads(sys.argv[1]))
    try:
        source.build(lambda library: check(library, source.dtype))
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"{type(error).__name__}: {first_line(error)}")  # the parent process shows the last line
