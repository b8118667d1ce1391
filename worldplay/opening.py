"""Open a learned world: its folder and the parts it shares with others become networks on a device."""
import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode

from worldplay import attention_backend, catalog, checkpoint, prompts, runtime, zoo
from worldplay.checkpoint import WorldConfig
from worldplay.cost import codec_of, encoding_memory_of, memory_of, rendering_memory_of
from worldplay.engine import DreamWorld
from worldplay.models.attention import AttentionShape
from worldplay.models.codec import ImageCodec
from worldplay.models.taehv import TAEHV
from worldplay.models.transformer import Transformer
from worldplay.models.wan_vae import WanVAE, WanVAEConfig
from worldplay.world import WorldError

log = logging.getLogger(__name__)

_KERNELS = 2**29  # bytes of libraries and of kernels' own workspace, and of gaps in the allocator; not measured


def load_world(name=None, *, device="auto", steps=None, seed=0, prompt=None):
    """Open a learned world to play.

    name    a folder, or a name in ./checkpoints, the package data or the user cache; None is the default world
    device  as runtime.pick_device takes it: "auto" takes a GPU where there is one
    steps   1, 2 or 4 sampling steps per frame; None takes the world's own
    seed    of all its randomness
    prompt  what a world that reads text shows, or a .safetensors file with its text rows (prompts.load_prompt_file);
            None takes the world's own

        Raises WorldError where the world or a part of it cannot be found or read or has no room on the GPU,
        ValueError for a wrong device or steps, or a prompt that the world does not read.
    """
    folder, config = read_config(name)
    if prompt is not None and not config.transformer.text_dim:
        raise ValueError(f"--prompt: {config.name} reads no text; leave it out")
    device, reason = runtime.pick_device(device)
    check_room(config, device)
    parts = Parts(config, device)
    codec = parts.codec(folder)
    if config.transformer.text_dim:
        prompt = config.prompt if prompt is None else prompt
        rows = parts.text_rows(prompt)  # first: the encoder is larger than the world, and gone before it comes
    path = folder / "model.safetensors"
    transformer = _filled(lambda: Transformer(config.transformer), checkpoint.load_weights(path), path)
    world = _open(config, transformer, codec, parts, device, reason, steps, seed, folder)
    if config.transformer.text_dim:
        world.set_prompt(prompt, rows)
    return world


def random_configs(name=None, *, steps=None):
    """The WorldConfigs that are timed under a name: of a world that is here or published, or several of a shape.

    steps  1, 2 or 4 sampling steps: those of them alone, or in place of the world's own; None changes nothing
    """
    if name in catalog.SHAPES:
        configs = [WorldConfig.from_json(fields, name) for fields in catalog.SHAPES[name]]
        return [config for config in configs if steps in (None, config.steps)]
    try:
        _, config = read_config(name)
    except WorldError as error:
        if error.kind != "not_found" or name not in catalog.WORLDS:
            raise
        config = WorldConfig.from_json(catalog.WORLDS[name].config, name)
    return [config if steps is None else replace(config, steps=steps)]


def random_world(config, *, device="auto", seed=0):
    """The world of a WorldConfig with random weights, for timing.

        Raises WorldError where it has no room on the GPU, ValueError for a wrong device.
    """
    torch.manual_seed(seed)
    device, reason = runtime.pick_device(device)
    check_room(config, device)
    transformer, codec = _random_transformer(config.transformer, device), codec_of(config, device=device)
    world = _open(config, transformer, codec, None, device, reason, None, seed, None)
    if config.transformer.text_dim:
        world.set_prompt("random", torch.randn(config.transformer.text_len, config.transformer.text_dim))
    return world


def same_networks(world, config):
    """The world of another WorldConfig, of the same sizes, on the networks and with the text of this one."""
    attention = _attention(config, world.device, world.dtype)
    other = DreamWorld(config, world.transformer, world.codec, device=world.device, dtype=world.dtype,
                       dtype_reason=world.info["dtype_reason"], seed=world.seed)
    other.text, other.info["attention"] = world.text, attention
    return other


def check_room(config, device, *, held=0):
    """Raise WorldError("device") where playing the world of a WorldConfig takes more memory than the GPU has left.

    held  bytes of it that are there already
    """
    found = runtime.memory(device)
    if found is None or config.codec is not None:  # a world with a codec of its own fits anywhere
        return
    left, total = found
    parts = memory_of(config, runtime.pick_dtype(device)[0])
    needed = sum(parts.values()) + _KERNELS
    if needed - held <= left:
        return
    remedy = ("close other programs that use the GPU" if needed <= total else "this GPU is too small for it") + (
        ", or play it with --device cpu, far from real time")
    raise WorldError("device", f"{config.name} needs {_gib(needed)} of GPU memory (weights {_gib(parts['weights'])}, keys "
                     f"and values of {config.window} latents {_gib(parts['keys_values'])}, the rest while it runs), and "
                     f"{_gib(left)} of {_gib(total)} are free; {remedy}")


class Parts:
    """What a world takes from elsewhere than its own folder."""

    def __init__(self, config, device):
        self.config, self.device = config, device

    def codec_file(self, folder):
        """Where the weights of its codec lie."""
        if self.config.codec is not None:
            return folder / "codec.safetensors"
        return self.part("codec") / "model.safetensors"

    def codec(self, folder):
        """The codec that its frames are decoded with, on the CPU."""
        path = self.codec_file(folder)
        if self.config.codec is not None:
            return _filled(lambda: ImageCodec(self.config.codec), checkpoint.load_weights(path), path)
        codec = _empty(TAEHV)
        checkpoint.load_into(codec, codec.fit(checkpoint.load_weights(path)), path, assign=True)
        return codec

    def encoder(self, num_frames):
        """The full VideoCodec, to encode a start of so many frames; None where it is not here or finds no room."""
        world = catalog.WORLDS.get(self.config.name)
        if world and not world.image_start:
            log.info("%s was not trained to go on from a picture: it makes of it what it can", self.config.name)
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
        checkpoint.load_into(vae, checkpoint.load_weights(path), path, assign=True)
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
        """Raise WorldError where the full codec is not here, or a GPU has less left than the bytes that count() says."""
        self.part("vae")
        runtime.release_memory(self.device)  # what play has left over counts as free
        found = runtime.memory(self.device)
        if found is None:
            return
        (left, total), needed = found, count() + _KERNELS
        if needed > left:
            raise WorldError("device", f"the full codec needs {_gib(needed)} of GPU memory, and {_gib(left)} of "
                             f"{_gib(total)} are free; close other programs that use the GPU")

    def part(self, role):
        """Folder of the shared part that plays a role; WorldError("not_found") where there is none."""
        if role not in self.config.parts:
            raise WorldError("not_found", f"the config.json of {self.config.name} names no part for its {role}; "
                             f'add "{role}" to "parts" there, with one of {", ".join(catalog.PARTS)}')
        return zoo.find_part(self.config.parts[role])


def read_config(name):
    """(folder, WorldConfig) of a world, as `load_world` finds it and with its errors."""
    folder = Path(zoo.find(name))
    return folder, WorldConfig.from_json(checkpoint.read_json(folder / "config.json"), folder / "config.json")


def _random_transformer(sizes, device):
    """None of its weights is zero, as some are where training begins: zeros are quicker to multiply."""
    with device:
        transformer = Transformer(sizes)
    for p in transformer.parameters():
        if p.ndim > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.02)
    return transformer


def _gib(num_bytes):
    return f"{num_bytes / 2**30:.1f} GiB"


def _filled(make, tensors, where):
    """The network that make() builds, its weights these tensors themselves: nothing is drawn or copied first."""
    module = _empty(make)
    checkpoint.load_into(module, tensors, where, assign=True)
    return module


def _empty(make):
    """The network that make() builds, its weights shapes alone."""
    with torch.device("meta"), _NothingDrawn():
        return make()


def _open(config, transformer, codec, parts, device, device_reason, steps, seed, folder):
    dtype, dtype_reason = runtime.pick_dtype(device)
    attention = _attention(config, device, dtype)
    log.info("%s on %s (%s), %s (%s), attention by %s", config.name, device.type, device_reason,
             str(dtype).removeprefix("torch."), dtype_reason, attention)
    world = DreamWorld(config, transformer, codec, device=device, dtype=dtype, dtype_reason=dtype_reason, steps=steps,
                       seed=seed, folder=folder, parts=parts)
    world.info["attention"] = attention
    return world


def _attention(config, device, dtype):
    """Name of what attention runs by once the window is full."""
    sizes = config.transformer
    tokens = sizes.num_tokens(*config.latent_shape[1:])
    shape = AttentionShape(device.type, dtype, sizes.num_heads, sizes.head_dim, config.frames_per_chunk * tokens,
                           config.window * tokens)
    return attention_backend.choose(shape, device)


class _NothingDrawn(TorchFunctionMode):
    """Inside, torch.nn.init leaves weights alone: for one normal number on the meta device torch imports its compiler,
    which takes longer than all else of opening a small world.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))
