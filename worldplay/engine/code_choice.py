"""Which code runs a world's passes: native where it fits, on a processor, or compiled."""
from worldplay.engine import compiled
from worldplay.engine.compiled import CompiledCode, Passes
from worldplay.engine.native import code as native
from worldplay.engine.native.passes import fits


def code_of(config, dtype, device, transformer=None, **how):
    """The Code for the world of a WorldConfig, its weights in dtype; it is made or loaded from now on.

    transformer  that it will be installed in, fused for inference; None: it is made only
    how          see Code
    """
    dtype = str(dtype).removeprefix("torch.")
    if is_native(config, device):
        return native.NativeCode(dtype, transformer, **how)
    sizes = config.transformer
    return CompiledCode(Passes(
        config=sizes, num_frames=config.frames_per_chunk, window=config.window,
        num_tokens=sizes.num_tokens(*config.latent_shape[1:]), dtype=dtype, device=device.type),
        **how)


def is_native(config, device):
    """Whether the code of a WorldConfig is native: made in seconds, where compiled code takes minutes."""
    return device.type == "cpu" and fits(config.transformer)


def is_chosen(config, device):
    """Whether play takes the code unasked: on a processor only where it is native."""
    return device.type != "cpu" or is_native(config, device)


def uninstall(transformer):
    """Undo Code.install of either kind: all passes of the transformer run eager again."""
    compiled.uninstall(transformer)
    native.uninstall(transformer)
