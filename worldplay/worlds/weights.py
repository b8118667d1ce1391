"""The weights of a world on disk: safetensors, sharded or not, always renamed into place."""
import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

from safetensors import SafetensorError

from worldplay.errors import WorldError, remedy
from worldplay.files import read_json, replacing, write_json
from worldplay.models.weights import check_shapes, fingerprint, is_finite
from worldplay.worlds.digests import digests

MAX_SHARD_BYTES = 15 * 2**20

_FLOATS = {"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16"}  # number types that weights may have


def save_weights(path, tensors, dtype=None):
    """Write tensors to `path` (NAME.safetensors), in shards of at most MAX_SHARD_BYTES with an index beside them.

    A reader gets the weights of before or these, never some of each, also after a save that was cut off: each shard
    has its content's hash in its name, and the index that says which shards belong together is replaced when all of
    them are written.

    tensors  name -> tensor; floating ones are cast to dtype when given
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file
    path = Path(path)
    tensors = {name: x.detach().to("cpu", dtype if dtype and x.is_floating_point() else x.dtype).contiguous()
               for name, x in tensors.items()}
    split = split_torch_state_dict_into_shards(tensors, max_shard_size=MAX_SHARD_BYTES)
    if not split.is_sharded:
        with replacing(path) as temporary:
            save_file(tensors, temporary)
        _index(path).unlink(missing_ok=True)
        _remove_shards(path, keep=())
        return
    weight_map = {}
    for i, names in enumerate(split.filename_to_tensors.values(), 1):
        number = f"{i:05d}-of-{len(split.filename_to_tensors):05d}"
        weight_map |= dict.fromkeys(names, _write_shard(path, number, {name: tensors[name] for name in names}))
    write_json(_index(path), {"weight_map": weight_map})
    path.unlink(missing_ok=True)
    _remove_shards(path, keep=set(weight_map.values()))


def _write_shard(path, number, tensors):
    """Write one shard of `path`; returns its name, which says its content."""
    from safetensors.torch import save
    content = save(tensors)
    name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:12]}-{number}.safetensors"
    with replacing(path.with_name(name)) as temporary:
        temporary.write_bytes(content)
    return name


def _remove_shards(path, keep):
    for shard in path.parent.glob(f"{path.stem}-*-of-*.safetensors"):
        if shard.name not in keep:
            shard.unlink()


def _index(path):
    return path.with_suffix(".safetensors.index.json")


def load_weights(path):
    """name -> tensor of a file or sharded set that `save_weights` wrote; WorldError("bad_checkpoint") if it is torn."""
    from safetensors.torch import load_file
    path = Path(path)
    files = _files(path)
    while True:
        tensors = {}
        try:
            for file in files:
                tensors.update(load_file(file))
            return tensors
        except FileNotFoundError:
            before, files = files, _files(path)
            if files == before:
                raise WorldError("bad_checkpoint", f"{file} is missing; {remedy(file)}") from None
            # else a save has replaced them meanwhile
        except (SafetensorError, OSError) as error:
            raise WorldError("bad_checkpoint", f"{file} cannot be read ({error}): it is truncated or no "
                             f"safetensors file; {remedy(file)}") from None


def _files(path):
    """The files that hold the weights `path`: those that its index names, or itself where it has none."""
    index = _index(path)
    if not index.exists():
        return [path]
    try:
        return sorted({path.with_name(name) for name in read_json(index)["weight_map"].values()})
    except (KeyError, TypeError, AttributeError, ValueError):
        raise WorldError("bad_checkpoint", f"{index} is no table of weights; {remedy(index)}") from None


def load_into(module, tensors, where, *, assign=False):
    """Copy tensors into module.

    tensors  name -> tensor
    where    the file they come from, for messages
    assign   the module takes the tensors themselves, with their number type, instead

        Raises WorldError("bad_checkpoint") naming the first keys or shapes that do not fit, or a tensor that holds
        another kind of numbers than the module's, or NaN or infinite ones.
    """
    has_card = Path(where).with_name("config.json").is_file()
    wanted = module.state_dict()
    check_shapes({name: x.shape for name, x in tensors.items()}, {name: x.shape for name, x in wanted.items()}, where,
                 "its config.json belongs to other weights" if has_card else remedy(where))
    for name, x in tensors.items():
        if wanted[name].is_floating_point() != (str(x.dtype) in _FLOATS):
            expected = "floating point" if wanted[name].is_floating_point() else "whole numbers"
            raise WorldError("bad_checkpoint", f"{where} holds {name} as {str(x.dtype).removeprefix('torch.')}, "
                             f"expected {expected}; {remedy(where)}")
        if not is_finite(x):
            raise WorldError("bad_checkpoint", f"{where}: {name} holds NaN or infinite numbers; {remedy(where)}")
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
    files, digest = [folder / "config.json"], hashlib.sha256()
    for path in (folder / "model.safetensors", *([folder / "codec.safetensors"] if config.codec is not None else [])):
        files += [*_files(path), *([_index(path)] if _index(path).exists() else [])]
    for file, content in digests(sorted(files)).items():
        digest.update(file.name.encode() + bytes.fromhex(content))
    if config.codec is None:
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
    return chosen | {"transformer": _chosen(config.transformer)}


def _chosen(sizes):
    given = {each.name: (getattr(sizes, each.name), each.default) for each in fields(sizes)}
    return {name: value for name, (value, default) in given.items() if value != default}
