"""Parquet tables as arrays; whatever is wrong with a file is one line that names it."""
import numpy as np

from worldplay.errors import WorldError
from worldplay.files import replacing


def read_table(path, remedy):
    """The table in a Parquet file.

        Raises ValueError, which names the file and ends in `remedy`, where it is missing or unreadable.
    """
    pa, pq = libraries()
    if not path.is_file():
        raise ValueError(f"{path}: missing; {remedy}")
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: unreadable ({str(error).splitlines()[0]}); {remedy}") from error


def column(table, name, path, remedy):
    """A column of numbers as an array [n], of lists of numbers as [n c].

        Raises ValueError, which names the file, the field and where it can the row, where the column is
        missing, a value is null or no number, or lists have different lengths.
    """
    pa, _ = libraries()
    if name not in table.column_names:
        raise ValueError(f"{path}: field {name} is missing; {remedy}")
    values = table[name].combine_chunks()
    is_list = pa.types.is_list(values.type) or pa.types.is_large_list(values.type) \
        or pa.types.is_fixed_size_list(values.type)
    kind = values.type.value_type if is_list else values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"{path}: field {name} holds {kind}, expected numbers; {remedy}")
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise ValueError(f"{path}, row {row}: field {name} is null; {remedy}")
    if not is_list:
        return values.to_numpy(zero_copy_only=False)
    lengths = values.value_lengths().to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if len(lengths) else 0
    odd = np.flatnonzero(lengths != width)
    if len(odd):
        raise ValueError(f"{path}, row {odd[0]}: field {name} has {lengths[odd[0]]} numbers, row 0 has "
                         f"{width}; {remedy}")
    flat = values.flatten()
    if flat.null_count:
        row = flat.is_null().to_pylist().index(True) // max(width, 1)
        raise ValueError(f"{path}, row {row}: field {name} holds a null; {remedy}")
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), width)


def write_table(path, columns):
    """Write arrays, [n] or [n c] (as lists of fixed size), as a Parquet file."""
    pa, pq = libraries()
    arrays = {name: pa.array(values) if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values, np.float32).reshape(-1)), values.shape[1])
        for name, values in columns.items()}
    with replacing(path) as temporary:
        pq.write_table(pa.table(arrays), temporary)


def libraries():
    """(pyarrow, pyarrow.parquet); WorldError that says what to run where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise WorldError("not_found", f"data sets need {error.name}, which is not installed: "
                                      'run pip install ".[data]" in the checkout') from None
    return pyarrow, pyarrow.parquet
