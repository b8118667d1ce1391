"""Published weights to safetensors and back, without running pickled code, in little memory."""
import json
import os
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from worldplay.errors import WorldError
from worldplay.files import replacing
from worldplay.models.transformer import Transformer
from worldplay.models.weights import check_shapes

# what module wrappers (FSDP, activation checkpointing, torch.compile) add to the names of parameters
WRAPPERS = {"model", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod"}

_PIECE = 2**24  # numbers that are read, cast and written at a time: 64 MiB of float32

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
           "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
           "BOOL": torch.bool}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_AGAIN = "fetch it again"
_OTHERS = "these are other weights than its card says"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is stored in a file.

    offset   of its first element, in bytes
    strides  in elements; None: contiguous
    """
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    strides: tuple[int, ...] | None = None

    @property
    def num_values(self):
        return torch.Size(self.shape).numel()


def convert_transformer(source, target, config, *, prefer_ema=True, progress=None):
    """Write a published transformer as one bfloat16 safetensors file with the names of ours.

    source      .pt (torch.save of state dicts) or .safetensors
    target      .safetensors; renamed into place when it is whole
    config      TransformerConfig of the sizes that it must have
    prefer_ema  whether EMA weights are preferred to raw ones where the file holds both
    progress    function of the number of bytes just read
    Returns     the key whose weights were taken, "generator_ema", "generator" or "model"; None for a bare
                state dict

        Raises WorldError("bad_checkpoint") for a file that is no checkpoint, would run code, or has other
        names, shapes or number types than the transformer.
    """
    found, stored = read_index(source, ("generator_ema", "generator", "model") if prefer_ema else
                               ("generator", "generator_ema", "model"))
    named = {}
    for name, tensor in stored.items():
        plain = plain_name(name)
        if plain in named:
            raise _bad(source, f"holds {plain} twice, once as {name}", "that is not one transformer")
        named[plain] = tensor
    check_shapes({name: x.shape for name, x in named.items()}, transformer_shapes(config), source,
                 _OTHERS)
    for name, tensor in named.items():
        if not tensor.dtype.is_floating_point:
            raise _bad(source, f"holds {name} as {_text(tensor.dtype)}", "expected floating point")
    write_safetensors(target, named, source, torch.bfloat16, progress)
    return found


def convert_part(source, target, *, num_tensors=None, num_params=None, progress=None):
    """Write a published state dict as one safetensors file, names and number types kept.

    num_tensors, num_params  how many it must have; None: not checked
    source, target, progress  as for `convert_transformer`

        Raises WorldError("bad_checkpoint") for a file that is no checkpoint, would run code, or has another
        number of tensors or parameters; names and shapes are not checked.
    """
    _, stored = read_index(source)
    counts = len(stored), sum(x.num_values for x in stored.values())
    for what, count, wanted in zip(("tensors", "parameters"), counts, (num_tensors, num_params)):
        if wanted not in (None, count):
            raise _bad(source, f"holds {count} {what} instead of {wanted}", _OTHERS)
    write_safetensors(target, stored, source, None, progress)


def export_transformer(weights, path):
    """Write a Transformer's state dict for published code: {"generator_ema": {"model.NAME": tensor}}."""
    state = {f"model.{name}": x.detach().cpu() for name, x in weights.items()}
    with replacing(path) as temporary:
        torch.save({"generator_ema": state}, temporary)


def transformer_shapes(config):
    """name -> shape of every published weight of a transformer of these sizes."""
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in Transformer(config).state_dict().items()}


def plain_name(name):
    """A parameter's name without what wrappers add to it, at any depth."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


# Reading ----------------------------------------------------------------------------------------------------


def read_index(path, keys=("generator_ema", "generator", "model")):
    """(key, name -> StoredTensor) of a .pt or .safetensors file; the tensors' data are not read.

    keys  top-level keys that a state dict may have, in the order of preference; where the file has none of
          them, key is None and the file is the state dict

        Raises WorldError("bad_checkpoint").
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return None, _safetensors_index(path)
    records = _records(path)
    loaded = _load_tables(path)
    if not isinstance(loaded, dict):
        raise _bad(path, f"holds a {type(loaded).__name__}", "expected a state dict")
    key = next((key for key in keys if isinstance(loaded.get(key), dict) and loaded[key]), None)
    tensors = loaded if key is None else loaded[key]
    return key, {name: _stored(path, name, x, records) for name, x in tensors.items()}


def _records(path):
    """Byte offsets at which the records of a zip archive begin."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            infos = archive.infolist()
            packed = [info.filename for info in infos if info.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise _bad(path, f"was packed again by another program ({packed[0]} is compressed)", _AGAIN)
            return {_record(file, info.header_offset) for info in infos}
    except FileNotFoundError:
        raise _bad(path, "is missing", _AGAIN) from None
    except zipfile.BadZipFile as error:
        with open(path, "rb") as file:
            start = file.read(15)
        raise _bad(path, "is no PyTorch checkpoint, or only the beginning of one "
                   f"({error}; it begins with {start!r})", _AGAIN) from None


def _record(file, header):
    """Byte offset of the content of a zip record, whose local header is at byte `header`."""
    file.seek(header + 26)
    return header + 30 + sum(int.from_bytes(file.read(2), "little") for _ in ("name", "extra field"))


def _load_tables(path):
    """What torch.save wrote, with meta tensors in place of tensors."""
    try:
        return torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"would run {code[1]}" if code else "holds more than tensors"
        raise _bad(path, f"{problem}; nothing of it was run", "take a checkpoint of tensors alone") from None
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, EOFError):
        raise _bad(path, "is a zip archive but no PyTorch checkpoint", _AGAIN) from None


def _stored(path, name, x, records):
    if not isinstance(x, torch.Tensor):
        raise _bad(path, f"holds {name!s:.60}, of type {type(x).__name__}, among its tensors",
                   "expected a state dict")
    if x.layout != torch.strided or x.dtype not in _DTYPE_NAMES:
        raise _bad(path, f"holds {name} as {_text(x.dtype)} ({_text(x.layout)})", "such tensors are not read")
    begin = x.untyped_storage()._checkpoint_offset  # torch computes it for the layout that torch.save writes
    if begin not in records:
        raise _bad(path, f"was packed again by another program ({name} is not where torch.save puts it)",
                   _AGAIN)
    offset = begin + x.storage_offset() * x.itemsize
    return StoredTensor(tuple(x.shape), x.dtype, offset, None if x.is_contiguous() else x.stride())


def _safetensors_index(path):
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > os.path.getsize(path):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: StoredTensor(tuple(row["shape"]), _DTYPES[row["dtype"]],
                                   8 + length + row["data_offsets"][0]) for name, row in header.items()}
    except FileNotFoundError:
        raise _bad(path, "is missing", _AGAIN) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _bad(path, f"is no safetensors file ({error})", _AGAIN) from None


# Writing ----------------------------------------------------------------------------------------------------


def write_safetensors(target, stored, source, dtype=None, progress=None):
    """Copy tensors from the file `source` to the safetensors file `target`, replaced when all is there.

    In pieces of _PIECE elements, a tensor that is not contiguous in one go: safetensors.torch.save_file needs
    all tensors in memory at once, cast already: 3 to 11 GB for these files.

    stored    name -> StoredTensor
    dtype     that all are cast to; None: each keeps its own
    progress  function of the number of bytes just read, of contiguous tensors

        Raises WorldError("bad_checkpoint") where `source` ends early, OSError where `target` cannot be
        written.
    """
    # the largest elements first, so that all tensors are aligned
    order = sorted(stored, key=lambda name: (-(dtype or stored[name].dtype).itemsize, name))
    with open(source, "rb") as file, replacing(target) as temporary, open(temporary, "wb") as out:
        out.write(_header({name: stored[name] for name in order}, dtype))
        for name in order:
            _copy(file, stored[name], out, dtype, progress, f"{source} ends within {name}")


def _header(stored, dtype):
    rows, end = {}, 0
    for name, x in stored.items():
        kind = dtype or x.dtype
        begin, end = end, end + x.num_values * kind.itemsize
        rows[name] = {"dtype": _DTYPE_NAMES[kind], "shape": x.shape, "data_offsets": [begin, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **rows}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy(file, x, out, dtype, progress, problem):
    """Read one tensor, cast it and write it, piece by piece unless it is not contiguous."""
    file.seek(x.offset)
    left = x.num_values
    if x.strides is not None:
        span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.strides))
        values = _read(file, span, x.dtype, problem).as_strided(x.shape, x.strides).reshape(-1)
        out.write(_bytes(values, dtype))
        left = 0
    while left:
        values = _read(file, min(left, _PIECE), x.dtype, problem)
        out.write(_bytes(values, dtype))
        left -= len(values)
        if progress:
            progress(values.nbytes)


def _read(file, count, dtype, problem):
    buffer = bytearray(count * dtype.itemsize)
    if file.readinto(buffer) < len(buffer):
        raise WorldError("bad_checkpoint", f"{problem}; {_AGAIN}")
    return torch.frombuffer(buffer, dtype=dtype)


def _bytes(values, dtype):
    return values.to(dtype or values.dtype).contiguous().view(torch.uint8).numpy()


def _bad(path, problem, remedy):
    return WorldError("bad_checkpoint", f"{path} {problem}; {remedy}")


def _text(name):
    return str(name).removeprefix("torch.")
