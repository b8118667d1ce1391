"""Only the copy of the finished frame waits for the device, shown on a device without values."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.engine import test_dream, test_dream_wan
from tests.parity import video_codec
from worldplay import camera
from worldplay.action import Action
from worldplay.engine.dream import DreamWorld
from worldplay.engine.networks import META
from worldplay.models.codecs.image import ImageCodec
from worldplay.models.transformer import Transformer

# on a GPU their result's shape or value is needed by the host
DATA_DEPENDENT = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "item",
                  "bincount")


class Waits(TorchDispatchMode):
    """Notes what would wait for a GPU; copies to the host are made of zeros, because there are no values.

    fetched  what was copied to the host; waits: everything else
    """

    def __init__(self):
        super().__init__()
        self.fetched, self.waits, self.made = [], [], MadeOnHost(self)

    def __enter__(self):
        self.made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.made.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function._schema.name.removeprefix("aten::")
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        is_there = any(x.device == META for x in tensors)
        by_mask = name.startswith("index") and any(x.dtype == torch.bool for x in tensors[1:])
        if is_there and (name.startswith(DATA_DEPENDENT) or by_mask):
            self.waits.append(name)
        if name in ("to", "_to_copy", "copy_"):
            return self._copy(function, name, args, kwargs)
        if is_there and any(x.device != META and x.ndim for x in tensors):
            self.waits.append(f"{name} of tensors here and there")
        return function(*args, **kwargs)

    def _copy(self, function, name, args, kwargs):
        given = dict(zip((argument.name for argument in function._schema.arguments), args)) | kwargs
        source = given["src" if name == "copy_" else "self"]
        target = given["self"].device if name == "copy_" else given.get("device") or given.get("other",
                                                                                               source).device
        if source.device == META and torch.device(target) != META:
            self.fetched.append(source)
            return torch.zeros(source.shape, dtype=given.get("dtype") or source.dtype)
        if source.device != META and torch.device(target) == META and not given.get("non_blocking"):
            self.waits.append(f"{name} to the device")
        return function(*args, **kwargs)


class MadeOnHost(TorchFunctionMode):
    """Notes tensors made of Python's numbers for the device: they are made here and copied, which is waited
    for.
    """

    def __init__(self, waits):
        self.noted = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and out.device == META and not (
                isinstance(args[0], torch.Tensor) and args[0].device == META):
            self.noted.waits.append(function.__name__)
        return out


def on_meta(config, codec):
    with META:
        transformer = Transformer(config.transformer)
    world = DreamWorld(config, transformer, codec.to(META), device=META, dtype=torch.bfloat16,
                       dtype_reason="test")
    if config.transformer.text_dim:
        world.set_prompt("a hall", test_dream_wan.ROWS)
    return world


def wan(**fields):
    return on_meta(replace(test_dream_wan.CONFIG, **fields), video_codec("taehv"))


def text_only():
    return wan(transformer=replace(test_dream_wan.MODEL, has_camera=False), intrinsics=None, sink=1,
               sink_position="before_window", action_space=test_dream_wan.TEXT_SPACE)


def shipped():
    return on_meta(test_dream.CONFIG, ImageCodec(test_dream.CONFIG.codec))


@pytest.mark.parametrize("make", [
    wan, lambda: wan(sink=1, sink_position="before_window"),
    lambda: wan(frames_per_chunk=2, window=6, steps=4),
    lambda: wan(context_sigma=0.1), text_only, shipped],
    ids=["camera", "sink", "chunks", "noised", "text", "actions"])
def test_only_the_finished_frame_is_waited_for(make, monkeypatch):
    monkeypatch.setattr(camera, "REACH", 0.4)  # so that world coordinates are rebased within these steps
    world = make()
    keys = Action({"w"}) if world.action_space.keys else Action()
    with Waits() as noted:
        world.reset()
        begun = len(noted.fetched)
        for _ in range(12):
            list(world.step(keys))
    assert sorted(set(noted.waits)) == []
    fetched = noted.fetched[begun:]
    state = world.state
    if world.config.transformer.has_camera:
        distance = np.linalg.norm(state.controls.pose[:3, 3])
        assert distance <= 0.4 < 12 * camera.STEP, "world coordinates were rebased"
    assert len(fetched) == (state.frame - world.config.frames_per_chunk if begun
                            else state.frame - state.first_generated)
    # and whether it is finite
    size = 3 * world.frame_size[0] * world.frame_size[1] * world.codec.frames_per_latent
    assert {x.dtype for x in fetched} == {torch.uint8} and {x.numel() for x in fetched} == {size + 1}


@pytest.mark.parametrize("wait", [
    lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x.tolist(),
    lambda x: x + torch.tensor([1.0], device=META),
    lambda x: x[torch.arange(2)], lambda x: torch.zeros(3).to(META), lambda x: x.copy_(torch.zeros(3)),
    lambda x: torch.as_tensor(2.0, device=META), lambda x: bool((x > 0).any()), lambda x: x[x > 0]])
def test_what_waits_is_noticed(wait):
    x = torch.zeros(3, device=META)
    with Waits() as noted:
        try:
            wait(x)
        except (RuntimeError, NotImplementedError):  # of a device without values
            pass
    assert noted.waits or noted.fetched
