"""Parquet tables as arrays; whatever is wrong with a file is one line that names it."""
import numpy as np

from worldplay.errors import WorldError
from worldplay.files import replacing


def read_table(path, remedy, names=None):
    """The table in a Parquet file.

    names  of the columns to read, those that are missing left out; None is all

        Raises ValueError, which names the file and ends in `remedy`, where it is missing or unreadable.
    """
    pa, pq = libraries()
    if not path.is_file():
        raise ValueError(f"{path}: missing; {remedy}")
    try:
        with pq.ParquetFile(path) as file:
            return file.read(names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: unreadable ({str(error).splitlines()[0]}); {remedy}") from error


def column(table, name, path, remedy):
    """A column of numbers as an array [n], of lists of numbers, also nested ones, as [n c].

        Raises ValueError, which names the file, the field and where it can the row, where the column is
        missing, a value is null or no number, or lists have different lengths.
    """
    pa, _ = libraries()
    if name not in table.column_names:
        raise ValueError(f"{path}: field {name} is missing; {remedy}")
    values = _storage(table[name].combine_chunks())
    num_rows, width, is_list = len(values), 1, _is_list(values.type)

    def refuse(bad, problem):
        if len(bad):
            row = bad[0] // max(width, 1)
            raise ValueError(f"{path}, row {row}: field {name} {problem(bad[0])}; {remedy}")
    refuse(_nulls(values), lambda i: "is null")
    while _is_list(values.type):
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        refuse(np.flatnonzero(lengths != lengths[:1]),
               lambda i: f"has {lengths[i]} numbers, row 0 has {lengths[0]}")
        values = _storage(values.flatten())
        width *= int(lengths[0]) if len(lengths) else 0
        refuse(_nulls(values), lambda i: "holds a null")
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"{path}: field {name} holds {kind}, expected numbers; {remedy}")
    numbers = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(num_rows, width) if is_list else numbers


def binary_column(table, name, path, remedy):
    """A column of files, each bytes or as Hugging Face's datasets library keeps a picture; a pyarrow array.

        Raises ValueError, which names the file, the field and where it can the row, where the column is
        missing, or a file is not in the table itself.
    """
    pa, _ = libraries()
    if name not in table.column_names:
        raise ValueError(f"{path}: field {name} is missing; {remedy}")
    values = table[name]
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        values = pa.chunked_array([chunk.field("bytes") for chunk in values.chunks],
                                  values.type.field("bytes").type)
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        raise ValueError(f"{path}: field {name} holds {values.type}, expected picture files; {remedy}")
    missing = _nulls(values)
    if len(missing):
        raise ValueError(f"{path}, row {missing[0]}: field {name} has no picture file in the table; {remedy}")
    return values


def _storage(values):
    """The plain array under an extension type, such as those of Hugging Face's datasets library."""
    pa, _ = libraries()
    return values.storage if isinstance(values.type, pa.ExtensionType) else values


def _is_list(kind):
    pa, _ = libraries()
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _nulls(values):
    """Places at which an array is null."""
    return np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)) if values.null_count else []


def write_table(path, columns):
    """Write {name: array [n] or [n c]} as a Parquet file; rows of [n c] become lists of fixed size."""
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
