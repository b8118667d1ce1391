"""The codec, text encoder and VAE of a world, which it may share with other worlds."""
import logging
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from worldplay import runtime
from worldplay.engine import prompts
from worldplay.engine.cost import encoding_memory_of, memory_of, rendering_memory_of
from worldplay.errors import WorldError
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.codecs.taehv import TAEHV
from worldplay.models.codecs.wan_vae import WanVAE, WanVAEConfig
from worldplay.worlds import catalog, zoo
from worldplay.worlds.config import ImageWorldConfig
from worldplay.worlds.weights import load_into, load_weights

log = logging.getLogger(__name__)

# bytes of GPU memory for libraries, kernels' workspaces and the allocator's fragmentation: estimated
_OVERHEAD = 2**29


def check_room(config, device, *, held=0):
    """Raise WorldError("device") where the world of a WorldConfig needs more memory than the GPU has free.

    held  bytes of the world that are on the GPU already
    """
    memory = runtime.memory(device)
    if memory is None or isinstance(config, ImageWorldConfig):  # which fits anywhere
        return
    left, total = memory
    parts = memory_of(config, runtime.pick_dtype(device)[0])
    needed = sum(parts.values()) + _OVERHEAD
    if needed - held <= left:
        return
    remedy = "close other programs that use the GPU" if needed <= total else "this GPU is too small for it"
    remedy += ", or play it with --device cpu, far from real time"
    weights, keys_values = (_gib(parts[name]) for name in ("weights", "keys_values"))
    raise WorldError("device", f"{config.name} needs {_gib(needed)} of GPU memory (weights {weights}, keys "
                     f"and values of {config.window} latents {keys_values}, the rest while it runs), and "
                     f"{_gib(left)} of {_gib(total)} are free; {remedy}")


class Parts:
    """Opens the codec, VAE and text encoder of a WorldConfig for a device; it keeps none of them."""

    def __init__(self, config, device):
        self.config, self.device = config, device

    def codec_file(self, folder):
        """Path of the weights of the world's codec; folder: of the world."""
        if isinstance(self.config, ImageWorldConfig):
            return folder / "codec.safetensors"
        return self.part("codec") / "model.safetensors"

    def codec(self, folder):
        """The codec that decodes the world's frames in play, on the CPU."""
        path = self.codec_file(folder)
        if isinstance(self.config, ImageWorldConfig):
            return load_network(lambda: ImageCodec(self.config.codec), load_weights(path), path)
        codec = _on_meta(TAEHV)
        load_into(codec, codec.fit(load_weights(path)), path, assign=True)
        return codec

    def encoder(self, num_frames):
        """The full VAE, to encode a start of num_frames; None where it is not installed or too large."""
        world = catalog.WORLDS.get(self.config.name)
        if world and not world.image_start:
            log.info("%s was not trained to start from a picture; what follows may look worse",
                     self.config.name)
        dtype, _ = runtime.pick_dtype(self.device)
        try:
            self._check_full_codec(lambda: encoding_memory_of(self.config, num_frames, dtype))
        except WorldError as error:
            log.info("the start is encoded by the small codec: %s", error)
            return None
        return self.vae(dtype)

    def renderer(self):
        """The full VAE, to decode frames in more detail and far slower than the small codec.

            Raises WorldError("not_found") where it is not installed, "device" where memory is too small.
        """
        dtype, _ = runtime.pick_dtype(self.device)
        self._check_full_codec(lambda: rendering_memory_of(self.config, dtype))
        return self.vae(dtype)

    def vae(self, dtype):
        """The full VAE, whose latents the transformer was trained on, on the device in dtype.

            Raises WorldError("not_found") where it is not installed.
        """
        path = self.part("vae") / "model.safetensors"
        with _NoInitialisation():  # not on the meta device: its latent statistics are in no file
            vae = WanVAE(WanVAEConfig())
        load_into(vae, load_weights(path), path, assign=True)
        return vae.to(self.device, dtype).eval().requires_grad_(False)

    def text_rows(self, prompt):
        """Text encoder output [l text_dim] of a prompt, or of the .safetensors file that it names."""
        sizes = self.config.transformer
        if Path(prompt).suffix == ".safetensors":
            return prompts.load_prompt_file(prompt, text_dim=sizes.text_dim, text_len=sizes.text_len)
        try:
            encoder = self.part("text")
        except WorldError as error:
            raise WorldError(error.kind,
                             f"{error}, or play --prompt with a .safetensors file of text rows") from None
        return prompts.prompt_embeds(prompt, encoder, device=self.device)

    def all_text_rows(self, texts):
        """Yield the text encoder output of many prompts; the encoder is opened once."""
        return prompts.all_prompt_embeds(texts, self.part("text"), device=self.device)

    def _check_full_codec(self, count):
        """Raise WorldError where the full VAE is not installed, or a GPU has less free than count() bytes."""
        self.part("vae")
        runtime.release_memory(self.device)  # memory that torch has reserved and does not use is free
        memory = runtime.memory(self.device)
        if memory is None:
            return
        (left, total), needed = memory, count() + _OVERHEAD
        if needed > left:
            raise WorldError("device", f"the full codec needs {_gib(needed)} of GPU memory, and {_gib(left)} "
                             f"of {_gib(total)} are free; close other programs that use the GPU")

    def part(self, role):
        """Folder of the shared part for a role: "codec", "vae" or "text"; WorldError("not_found")."""
        if role not in self.config.parts:
            raise WorldError("not_found",
                             f"the config.json of {self.config.name} names no part for its {role}; "
                             f'add "{role}" to "parts" there, with one of {", ".join(catalog.PARTS)}')
        return zoo.find_part(self.config.parts[role])


def _gib(num_bytes):
    return f"{num_bytes / 2**30:.1f} GiB"


def load_network(build, tensors, where):
    """The network that build() returns with these tensors, name -> tensor, as its weights, without a copy.

        Raises WorldError("bad_checkpoint") naming the file `where` when names or shapes do not fit.
    """
    module = _on_meta(build)
    load_into(module, tensors, where, assign=True)
    return module


def _on_meta(build):
    """The network that build() returns, on the meta device."""
    with torch.device("meta"), _NoInitialisation():
        return build()


class _NoInitialisation(TorchFunctionMode):
    """Inside, functions of torch.nn.init do nothing: the first normal_ on the meta device imports torch's
    compiler, which takes longer than everything else in opening a small world.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))
