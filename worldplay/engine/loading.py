"""Open a learned world: its folder and the parts it shares with others become networks on a device."""
import logging
from dataclasses import replace
from pathlib import Path

import torch

from worldplay import runtime
from worldplay.engine import attention_backend
from worldplay.engine.dream import DreamWorld
from worldplay.engine.networks import codec_of
from worldplay.engine.parts import Parts, check_room, load_network
from worldplay.errors import WorldError
from worldplay.files import read_json
from worldplay.models.attention.kernels import AttentionShape
from worldplay.models.transformer import Transformer
from worldplay.worlds import catalog, zoo
from worldplay.worlds.config import WorldConfig
from worldplay.worlds.weights import load_weights, world_hash

log = logging.getLogger(__name__)


def load_world(name=None, *, device="auto", steps=None, seed=0, prompt=None):
    """Open a learned world to play.

    name    a folder, or a name in ./checkpoints, the package data or the user cache; None is the default
            world
    device  as runtime.pick_device takes it: "auto" takes a GPU where there is one
    steps   1, 2 or 4 sampling steps per frame; None takes the world's own
    seed    of all its randomness
    prompt  what a world that reads text shows, or a .safetensors file with its text rows
            (prompts.load_prompt_file); None takes the world's own

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
        # first: the encoder is larger than the world, and gone before it comes
        rows = parts.text_rows(prompt)
    path = folder / "model.safetensors"
    transformer = load_network(lambda: Transformer(config.transformer), load_weights(path), path)
    world = _open(config, transformer, codec, parts, device, reason, steps, seed, folder)
    if config.transformer.text_dim:
        world.set_prompt(prompt, rows)
    return world


def random_configs(name=None, *, steps=None):
    """The WorldConfigs that are timed under a name: of a world that is here or published, or several of a
    shape.

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
                       dtype_reason=world.info["dtype_reason"], seed=world.state.seed)
    other.state.text, other.state.prompt = world.state.text, world.state.prompt
    other.info["attention"] = attention
    return other


def read_config(name):
    """(folder, WorldConfig) of a world, as `load_world` finds it and with its errors."""
    folder = Path(zoo.find(name))
    return folder, WorldConfig.from_json(read_json(folder / "config.json"), folder / "config.json")


def hash_of(name=None):
    """info["world_hash"] of the world that `load_world` finds under a name, of its files alone.

        Raises WorldError where the world, or a part of it, is not here.
    """
    folder, config = read_config(name)
    return world_hash(folder, config, Parts(config, torch.device("cpu")).codec_file(folder))


def _random_transformer(sizes, device):
    """None of its weights is zero, as some are where training begins: zeros are quicker to multiply."""
    with device:
        transformer = Transformer(sizes)
    for p in transformer.parameters():
        if p.ndim > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.02)
    return transformer


def _open(config, transformer, codec, parts, device, device_reason, steps, seed, folder):
    dtype, dtype_reason = runtime.pick_dtype(device)
    attention = _attention(config, device, dtype)
    log.info("%s on %s (%s), %s (%s), attention by %s", config.name, device.type, device_reason,
             str(dtype).removeprefix("torch."), dtype_reason, attention)
    world = DreamWorld(config, transformer, codec, device=device, dtype=dtype, dtype_reason=dtype_reason,
                       steps=steps,
                       seed=seed, folder=folder, parts=parts)
    world.info["attention"] = attention
    return world


def _attention(config, device, dtype):
    """Name of what attention runs by once the window is full."""
    sizes = config.transformer
    tokens = sizes.num_tokens(*config.latent_shape[1:])
    shape = AttentionShape(device.type, dtype, sizes.num_heads, sizes.head_dim,
                           config.frames_per_chunk * tokens,
                           config.window * tokens)
    return attention_backend.choose(shape, device)


