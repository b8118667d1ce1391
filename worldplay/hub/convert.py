"""Published weights into safetensors and back: no pickle is run, and no file is ever whole in memory."""
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

# what wrappers of a module leave in the names of its parameters
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
    """Where a tensor lies in a file: its first number is at byte `offset`; strides count numbers, None: row by row."""
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
    prefer_ema  which one of the weights is taken where the file holds averaged and raw ones
    progress    function of the bytes just read
    Returns     the key that was taken, "generator_ema", "generator" or "model"; None for a bare state dict

        Raises WorldError("bad_checkpoint") for a file that is no checkpoint, would run code, or holds other names,
        shapes or kinds of numbers.
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

    num_tensors, num_params  what it must have; None: not known
    source, target, progress, errors: as for `convert_transformer`
    """
    _, stored = read_index(source)
    counts = len(stored), sum(x.num_values for x in stored.values())
    for what, count, wanted in zip(("tensors", "parameters"), counts, (num_tensors, num_params)):
        if wanted not in (None, count):
            raise _bad(source, f"holds {count} {what} instead of {wanted}", _OTHERS)
    write_safetensors(target, stored, source, None, progress)


def export_transformer(weights, path):
    """Write a Transformer's state dict as published code reads it: {"generator_ema": {"model.NAME": tensor}}."""
    with replacing(path) as temporary:
        torch.save({"generator_ema": {f"model.{name}": x.detach().cpu() for name, x in weights.items()}}, temporary)


def transformer_shapes(config):
    """name -> shape of every published weight of a transformer of these sizes."""
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in Transformer(config).state_dict().items()}


def plain_name(name):
    """A parameter's name without what wrappers add to it, at any depth."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


# Reading ----------------------------------------------------------------------------------------------------


def read_index(path, keys=("generator_ema", "generator", "model")):
    """(key, name -> StoredTensor) of a .pt or .safetensors file, of which only the tables are read.

    keys  top-level keys of the state dict, the first that is there counts; without one the file is the state dict

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
    """Bytes at which the records of a zip archive begin."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise _bad(path, f"was packed again by another program ({packed[0]} is compressed)", _AGAIN)
            return {_record(file, info.header_offset) for info in archive.infolist()}
    except FileNotFoundError:
        raise _bad(path, "is missing", _AGAIN) from None
    except zipfile.BadZipFile as error:
        with open(path, "rb") as file:
            start = file.read(15)
        raise _bad(path, f"is no PyTorch checkpoint, or only the beginning of one ({error}; it begins with {start!r})",
                   _AGAIN) from None


def _record(file, header):
    """Where the content of a zip record begins whose own header is at byte `header`."""
    file.seek(header + 26)
    return header + 30 + sum(int.from_bytes(file.read(2), "little") for _ in ("name", "extra field"))


def _load_tables(path):
    """What torch.save wrote, its tensors without their numbers."""
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
        raise _bad(path, f"holds {name!s:.60}, of type {type(x).__name__}, among its tensors", "expected a state dict")
    if x.layout != torch.strided or x.dtype not in _DTYPE_NAMES:
        raise _bad(path, f"holds {name} as {_text(x.dtype)} ({_text(x.layout)})", "such tensors are not read")
    begin = x.untyped_storage()._checkpoint_offset  # torch works it out from the layout that it writes itself
    if begin not in records:
        raise _bad(path, f"was packed again by another program ({name} is not where torch.save puts it)", _AGAIN)
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
        return {name: StoredTensor(tuple(row["shape"]), _DTYPES[row["dtype"]], 8 + length + row["data_offsets"][0])
                for name, row in header.items()}
    except FileNotFoundError:
        raise _bad(path, "is missing", _AGAIN) from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _bad(path, f"is no safetensors file ({error})", _AGAIN) from None


# Writing ----------------------------------------------------------------------------------------------------


def write_safetensors(target, stored, source, dtype=None, progress=None):
    """Write tensors of the file `source` to the safetensors file `target`, a piece at a time.

    The library's own writer wants all tensors of a file at once, which for these files is more memory than the
    machines have that play them.

    stored    name -> StoredTensor
    dtype     what all become; None keeps each one's
    progress  function of the bytes just read

        Raises WorldError("bad_checkpoint") where `source` ends early, OSError where `target` cannot be written.
    """
    order = sorted(stored, key=lambda name: (-(dtype or stored[name].dtype).itemsize, name))  # keeps all aligned
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
    """Cast one tensor from file to file."""
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
