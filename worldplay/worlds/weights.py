"""The weights of a world on disk: saved so that readers never mix two saves, checked when they are loaded."""
import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path

from safetensors import SafetensorError

from worldplay.errors import WorldError, remedy
from worldplay.files import read_json, replacing, write_json
from worldplay.models.weights import check_shapes, fingerprint, is_finite
from worldplay.worlds.config import ImageWorldConfig
from worldplay.worlds.digests import digests

MAX_SHARD_BYTES = 15 * 2**20
SCALE = ".row_scale"  # after a matrix's name: what the int8 numbers of each of its rows are multiplied by

# number types that weights may have
_FLOATS = {"torch.float64", "torch.float32", "torch.float16", "torch.bfloat16"}


def save_weights(path, tensors, dtype=None):
    """Write tensors to `path`, NAME.safetensors, or to shards of at most MAX_SHARD_BYTES with an index.

    A reader gets the previous weights or the new ones and never a mixture, even after an interrupted save:
    the name of a shard contains the hash of its content, the index lists the shards that belong together, and
    it is replaced when all new shards are written. Then the previous ones are deleted.

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
        shard = _write_shard(path, number, {name: tensors[name] for name in names})
        weight_map |= dict.fromkeys(names, shard)
    write_json(_index(path), {"weight_map": weight_map})
    path.unlink(missing_ok=True)
    _remove_shards(path, keep=set(weight_map.values()))


def _write_shard(path, number, tensors):
    """Write one shard of the weights `path`; returns its file name."""
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


def in_bytes(tensors):
    """Weights with every matrix as int8 beside a scale for each of its rows; `load_weights` undoes it.

    Of a row's largest number no weight is off by more than 1/254, which changed the frames of the worlds
    measured by 0.03 dB at most (docs/results/2026-11-27-byte-weights.md).
    """
    packed = {}
    for name, x in tensors.items():
        if x.dim() < 2 or not x.is_floating_point():
            packed[name] = x
            continue
        rows = x.float().flatten(1)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
        packed[name] = (rows / scale).round().char().reshape(x.shape)
        packed[name + SCALE] = scale.reshape(-1, *[1] * (x.dim() - 1))
    return packed


def _out_of_bytes(tensors):
    return {name: x.float() * tensors[name + SCALE] if name + SCALE in tensors else x
            for name, x in tensors.items() if not name.endswith(SCALE)}


def load_weights(path):
    """name -> tensor, of weights that `save_weights` wrote; those `in_bytes` as float32.

        Raises WorldError("bad_checkpoint") naming a file that is missing or damaged.
    """
    from safetensors.torch import load_file
    path = Path(path)
    files = _files(path)
    while True:
        tensors = {}
        try:
            for file in files:
                tensors.update(load_file(file))
            return _out_of_bytes(tensors)
        except FileNotFoundError:
            before, files = files, _files(path)
            if files == before:
                raise WorldError("bad_checkpoint", f"{file} is missing; {remedy(file)}") from None
            # else a save has replaced them in the meantime
        except (SafetensorError, OSError) as error:
            raise WorldError("bad_checkpoint", f"{file} cannot be read ({error}): it is truncated or no "
                             f"safetensors file; {remedy(file)}") from None


def _files(path):
    """The files that hold the weights `path`: the shards in its index, or itself where there is no index."""
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

        Raises WorldError("bad_checkpoint") naming the first keys or shapes that do not fit, or a tensor with
        whole numbers in place of floating point, or with NaN or infinity in it.
    """
    has_card = Path(where).with_name("config.json").is_file()
    wanted = module.state_dict()
    shapes = [{name: x.shape for name, x in state.items()} for state in (tensors, wanted)]
    check_shapes(*shapes, where, "its config.json belongs to other weights" if has_card else remedy(where))
    for name, x in tensors.items():
        if wanted[name].is_floating_point() != (str(x.dtype) in _FLOATS):
            expected = "floating point" if wanted[name].is_floating_point() else "whole numbers"
            kind = str(x.dtype).removeprefix("torch.")
            raise WorldError("bad_checkpoint",
                             f"{where} holds {name} as {kind}, expected {expected}; {remedy(where)}")
        if not is_finite(x):
            raise WorldError("bad_checkpoint",
                             f"{where}: {name} holds NaN or infinite numbers; {remedy(where)}")
    module.load_state_dict(tensors, assign=assign)


def world_hash(folder, config, codec):
    """Short hex digest of all that determines a world's frames, given the actions, text rows, steps and seed.

    config  its WorldConfig
    codec   the file of the codec that decodes its latents

    Of a world that was trained here it covers config.json, the weights and the codec, byte by byte. The
    config.json of a fetched world may change with the catalog: of that only the fields that determine frames
    are covered.
    """
    folder = Path(folder)
    if (folder / "lock.json").is_file():
        covered = [_frame_fields(config), fingerprint(folder / "model.safetensors"), fingerprint(codec)]
        return hashlib.sha256(json.dumps(covered, sort_keys=True, default=asdict).encode()).hexdigest()[:16]
    files, digest = [folder / "config.json"], hashlib.sha256()
    has_own_codec = isinstance(config, ImageWorldConfig)
    for role in ("model", "codec") if has_own_codec else ("model",):
        path = folder / f"{role}.safetensors"
        files += [*_files(path), *([_index(path)] if _index(path).exists() else [])]
    for file, content in digests(sorted(files)).items():
        digest.update(file.name.encode() + bytes.fromhex(content))
    if not has_own_codec:
        digest.update(fingerprint(codec).encode())
    return digest.hexdigest()[:16]


# fields of a WorldConfig that do not determine its frames: descriptions, what a clip records itself (steps,
# prompt), and names of files whose content is hashed
_OTHER_FIELDS = {"name", "env", "fps", "steps", "prompt", "parts", "lossy_codec", "look"}


def _frame_fields(config):
    """The fields of a WorldConfig that determine its frames, without those at their defaults.

    So a field that is added later changes no hash, as long as its default is the previous behaviour.
    """
    chosen = {name: value for name, value in _not_default(config).items() if name not in _OTHER_FIELDS}
    return chosen | {"codec": config.to_json()["codec"], "transformer": _not_default(config.transformer)}


def _not_default(sizes):
    given = {each.name: (getattr(sizes, each.name), each.default) for each in fields(sizes)}
    return {name: value for name, (value, default) in given.items() if value != default}
