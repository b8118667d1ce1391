"""What a world takes from elsewhere than its own folder: codec, text encoder, full VAE."""
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

# bytes of libraries and of kernels' own workspace, and of gaps in the allocator; not measured
_KERNELS = 2**29


def check_room(config, device, *, held=0):
    """Raise WorldError("device") where playing the world of a WorldConfig takes more memory than the GPU has
    left.

    held  bytes of it that are there already
    """
    found = runtime.memory(device)
    if found is None or isinstance(config, ImageWorldConfig):  # which fits anywhere
        return
    left, total = found
    parts = memory_of(config, runtime.pick_dtype(device)[0])
    needed = sum(parts.values()) + _KERNELS
    if needed - held <= left:
        return
    remedy = "close other programs that use the GPU" if needed <= total else "this GPU is too small for it"
    remedy += ", or play it with --device cpu, far from real time"
    weights, keys_values = (_gib(parts[name]) for name in ("weights", "keys_values"))
    raise WorldError("device", f"{config.name} needs {_gib(needed)} of GPU memory (weights {weights}, keys "
                     f"and values of {config.window} latents {keys_values}, the rest while it runs), and "
                     f"{_gib(left)} of {_gib(total)} are free; {remedy}")


class Parts:
    """What a world takes from elsewhere than its own folder."""

    def __init__(self, config, device):
        self.config, self.device = config, device

    def codec_file(self, folder):
        """Where the weights of its codec lie."""
        if isinstance(self.config, ImageWorldConfig):
            return folder / "codec.safetensors"
        return self.part("codec") / "model.safetensors"

    def codec(self, folder):
        """The codec that its frames are decoded with, on the CPU."""
        path = self.codec_file(folder)
        if isinstance(self.config, ImageWorldConfig):
            return _filled(lambda: ImageCodec(self.config.codec), load_weights(path), path)
        codec = _empty(TAEHV)
        load_into(codec, codec.fit(load_weights(path)), path, assign=True)
        return codec

    def encoder(self, num_frames):
        """The full VideoCodec, to encode a start of so many frames; None where it is not here or finds no
        room.
        """
        world = catalog.WORLDS.get(self.config.name)
        if world and not world.image_start:
            log.info("%s was not trained to go on from a picture: it makes of it what it can",
                     self.config.name)
        dtype, _ = runtime.pick_dtype(self.device)
        try:
            self._check_full_codec(lambda: encoding_memory_of(self.config, num_frames, dtype))
        except WorldError as error:
            log.info("the start is encoded by the small codec: %s", error)
            return None
        return self.vae(dtype)

    def renderer(self):
        """The full VideoCodec to decode frames with, finer and far slower than the small one.

            Raises WorldError("not_found") where it is not here, "device" where it has no room.
        """
        dtype, _ = runtime.pick_dtype(self.device)
        self._check_full_codec(lambda: rendering_memory_of(self.config, dtype))
        return self.vae(dtype)

    def vae(self, dtype):
        """The full VideoCodec that its transformer has learnt the latents of, on the device.

            Raises WorldError("not_found") where it is not here.
        """
        path = self.part("vae") / "model.safetensors"
        with _NothingDrawn():  # not on the meta device: it has numbers of its own, that are in no file
            vae = WanVAE(WanVAEConfig())
        load_into(vae, load_weights(path), path, assign=True)
        return vae.to(self.device, dtype).eval().requires_grad_(False)

    def text_rows(self, prompt):
        """Text rows [l text_dim] of a prompt, or of the file of rows that it names."""
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
        """Yield the text rows of many prompts; the encoder is opened once."""
        return prompts.all_prompt_embeds(texts, self.part("text"), device=self.device)

    def _check_full_codec(self, count):
        """Raise WorldError where the full codec is not here, or a GPU has less left than the bytes that
        count() says.
        """
        self.part("vae")
        runtime.release_memory(self.device)  # what play has left over counts as free
        found = runtime.memory(self.device)
        if found is None:
            return
        (left, total), needed = found, count() + _KERNELS
        if needed > left:
            raise WorldError("device", f"the full codec needs {_gib(needed)} of GPU memory, and {_gib(left)} "
                             f"of {_gib(total)} are free; close other programs that use the GPU")

    def part(self, role):
        """Folder of the shared part that plays a role; WorldError("not_found") where there is none."""
        if role not in self.config.parts:
            raise WorldError("not_found",
                             f"the config.json of {self.config.name} names no part for its {role}; "
                             f'add "{role}" to "parts" there, with one of {", ".join(catalog.PARTS)}')
        return zoo.find_part(self.config.parts[role])


def _gib(num_bytes):
    return f"{num_bytes / 2**30:.1f} GiB"


def _filled(make, tensors, where):
    """The network that make() builds, its weights these tensors themselves: nothing is drawn or copied
    first.
    """
    module = _empty(make)
    load_into(module, tensors, where, assign=True)
    return module


def _empty(make):
    """The network that make() builds, its weights shapes alone."""
    with torch.device("meta"), _NothingDrawn():
        return make()


class _NothingDrawn(TorchFunctionMode):
    """Inside, torch.nn.init leaves weights alone: for one normal number on the meta device torch imports its
    compiler, which takes longer than all else of opening a small world.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))
