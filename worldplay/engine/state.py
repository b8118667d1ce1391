"""The state of a world in play: all that decides the frames to come, and its form in a file."""
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from worldplay.camera import CameraRig
from worldplay.models.attention.kv_cache import KVCache

# what numpy has no name for lies in a file as whole numbers of the same size
_AS_WHOLE = {torch.bfloat16: torch.int16}


@dataclass
class PlayState:
    """What a DreamWorld changes as it plays; a snapshot is a clone of it.

    cache            KVCache of the past
    controls         what the actions so far add up to, as the world's controls keep it
                     (worldplay.engine.controls)
    seed             of all noise
    text             keys and values of the prompt for every block (Transformer.encode_text); None without a
                     text
    prompt           its words, None without
    decoder          what the codec remembers of the latents that it has decoded; None before the first
    frame            index of the next latent
    first_generated  index of the first latent after the start, whose chunk takes first_steps sampling steps
    has_begun        whether there is a start to go on from
    is_mid_step      whether a chunk is being shown that is not in the cache yet
    """
    cache: KVCache
    controls: Any
    seed: int
    text: list | None = None
    prompt: str | None = None
    decoder: Any = None
    frame: int = 0
    first_generated: int = 0
    has_begun: bool = False
    is_mid_step: bool = False

    @property
    def nbytes(self):
        """Bytes of memory that a clone takes."""
        return self.cache.nbytes

    def clone(self):
        """An independent copy; of its values only the cache is ever written to."""
        return replace(self, cache=self.cache.clone())


# how the fields of a PlayState lie in a file
_TREES, _PLAIN = ("controls", "text", "decoder"), ("seed", "prompt", "frame", "first_generated", "has_begun")


def pack_state(state):
    """(fields of JSON, {name: numpy array}) of a PlayState between two steps; `unpack_state` takes them back.

    Tensors are copied to the host as they are, so that a state comes back bit by bit.
    """
    arrays = {}
    trees = {"cache": state.cache.contents(), **{name: getattr(state, name) for name in _TREES}}
    fields = {name: getattr(state, name) for name in _PLAIN}
    return fields | {name: _to_json(tree, arrays) for name, tree in trees.items()}, arrays


def unpack_state(fields, arrays, like):
    """The PlayState that `pack_state` packed, on the device of `like` and with its number types.

    like  a new PlayState of the world

        Raises ValueError, KeyError or TypeError where the two do not belong together or to the world.
    """
    trees = {name: _from_json(fields[name], arrays) for name in ("cache", *_TREES)}
    for name in ("text", "decoder"):
        trees[name] = tree_map(like.cache.like, trees[name])
    if type(trees["controls"]) is not type(like.controls):
        raise ValueError(f"controls are {type(trees['controls']).__name__}")
    cache = like.cache.filled(trees.pop("cache"))
    return replace(like, cache=cache, **trees, **{name: fields[name] for name in _PLAIN})


def _to_json(tree, arrays):
    """A tree of tensors, arrays, numbers and containers as JSON; what is large goes into `arrays`."""
    match tree:
        case None | bool() | int() | float() | str():
            return tree
        case CameraRig():
            return {"rig": _to_json(tree.pose, arrays)}
        case torch.Tensor():
            whole = tree.view(_AS_WHOLE[tree.dtype]) if tree.dtype in _AS_WHOLE else tree
            number, arrays[str(len(arrays))] = str(len(arrays)), whole.cpu().contiguous().numpy()
            return {"tensor": number, "dtype": str(tree.dtype).removeprefix("torch.")}
        case np.ndarray():
            arrays[str(len(arrays))] = tree
            return {"array": str(len(arrays) - 1)}
        case list() | tuple():
            return {"list" if isinstance(tree, list) else "tuple":
                    [_to_json(each, arrays) for each in tree]}
        case dict():
            return {"dict": [[key, _to_json(each, arrays)] for key, each in tree.items()]}
    raise TypeError(f"a {type(tree).__name__} in the state of a world has no form in a file")


def _from_json(fields, arrays):
    if not isinstance(fields, dict):
        return fields
    [(kind, value)] = [(kind, value) for kind, value in fields.items() if kind != "dtype"]
    match kind:
        case "rig":
            return CameraRig(_from_json(value, arrays))
        case "tensor":
            dtype = getattr(torch, fields["dtype"])
            tensor = torch.from_numpy(np.array(arrays[value]))
            return tensor.view(dtype) if dtype in _AS_WHOLE else tensor
        case "array":
            return np.array(arrays[value])
        case "list" | "tuple":
            return (list if kind == "list" else tuple)(_from_json(each, arrays) for each in value)
        case "dict":
            return {key: _from_json(each, arrays) for key, each in value}
    raise ValueError(f"unknown kind {kind!r:.20} of value")
