"""The weights of a world on disk: safetensors, sharded or not, always renamed into place."""
import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

from safetensors import SafetensorError

from worldplay.errors import WorldError, remedy
from worldplay.files import read_json, replacing, write_json
from worldplay.models.weights import check_shapes, fingerprint
from worldplay.worlds.config import VideoWorldConfig

MAX_SHARD_BYTES = 15 * 2**20


def save_weights(path, tensors, dtype=None):
    """Write tensors to `path` (NAME.safetensors), in shards of at most MAX_SHARD_BYTES with an index beside them.

    tensors  name -> tensor; floating ones are cast to dtype when given
    """
    path = Path(path)
    tensors = {name: x.detach().to("cpu", dtype if dtype and x.is_floating_point() else x.dtype).contiguous()
               for name, x in tensors.items()}
    shards = _shards(tensors)
    if len(shards) == 1:
        names = []
        _write(path, shards[0])
        path.with_suffix(".safetensors.index.json").unlink(missing_ok=True)
    else:
        names = [f"{path.stem}-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        for name, shard in zip(names, shards):
            _write(path.with_name(name), shard)
        weight_map = {key: name for name, shard in zip(names, shards) for key in shard}
        write_json(path.with_suffix(".safetensors.index.json"), {"weight_map": weight_map})
        path.unlink(missing_ok=True)
    for old in path.parent.glob(f"{path.stem}-*-of-*.safetensors"):
        if old.name not in names:  # those of before, which whoever broke off here could still read
            old.unlink()


def load_weights(path):
    """name -> tensor of a file or sharded set that `save_weights` wrote; WorldError("bad_checkpoint") if it is torn."""
    from safetensors.torch import load_file
    path = Path(path)
    index = path.with_suffix(".safetensors.index.json")
    if index.exists():
        try:
            files = sorted({path.with_name(name) for name in read_json(index)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError, ValueError):
            raise WorldError("bad_checkpoint", f"{index} is no table of weights; {remedy(index)}") from None
    else:
        files = [path]
    tensors = {}
    for file in files:
        try:
            tensors.update(load_file(file))
        except FileNotFoundError:
            raise WorldError("bad_checkpoint", f"{file} is missing; {remedy(file)}") from None
        except (SafetensorError, OSError) as error:
            raise WorldError("bad_checkpoint", f"{file} cannot be read ({error}): it is truncated or no "
                             f"safetensors file; {remedy(file)}") from None
    return tensors


def load_into(module, tensors, where, *, assign=False):
    """Copy tensors into module; WorldError("bad_checkpoint") naming the first keys or shapes that do not fit.

    assign  the module takes the tensors themselves, with their number type, instead
    """
    has_card = Path(where).with_name("config.json").is_file()
    check_shapes({name: x.shape for name, x in tensors.items()},
                 {name: x.shape for name, x in module.state_dict().items()}, where,
                 "its config.json belongs to other weights" if has_card else remedy(where))
    module.load_state_dict(tensors, assign=assign)


def world_hash(folder, config, codec):
    """Short hex digest of what decides the frames of a world under given actions, text rows, steps and seed.

    config  its WorldConfig; codec: file of the codec that decodes them

    A world that was trained here is all of its files, and the codec that it shares with others. One that was fetched
    has a card beside its weights, whose words may change and grow: of that only what makes another frame counts
    (_deciding).
    """
    folder = Path(folder)
    if (folder / "lock.json").is_file():
        told = [_deciding(config), fingerprint(folder / "model.safetensors"), fingerprint(codec)]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=asdict).encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name.startswith(("config.json", "model", "codec")):
            digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    if isinstance(config, VideoWorldConfig):
        digest.update(fingerprint(codec).encode())
    return digest.hexdigest()[:16]


# fields of a WorldConfig that leave its frames as they are: words, what a clip says itself (steps, text), and names
# of files whose content counts
_NOT_DECIDING = {"name", "env", "fps", "steps", "prompt", "parts", "lossy_codec"}


def _deciding(config):
    """Fields of a WorldConfig that decide its frames.

    Those at their defaults are left out: one that is added later, its default being what was before, changes nothing.
    """
    chosen = {name: value for name, value in _chosen(config).items() if name not in _NOT_DECIDING}
    return chosen | {"codec": config.to_json()["codec"], "transformer": _chosen(config.transformer)}


def _chosen(sizes):
    given = {each.name: (getattr(sizes, each.name), each.default) for each in fields(sizes)}
    return {name: value for name, (value, default) in given.items() if value != default}


def _shards(tensors):
    shards, size = [{}], 0
    for name, x in tensors.items():
        if size and size + x.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = x
        size += x.nbytes
    return shards


def _write(path, tensors):
    from safetensors.torch import save_file
    with replacing(path) as temporary:
        save_file(tensors, temporary)
