"""Columns of Parquet and Arrow files as NumPy arrays, batch by batch: which there are, and their values.

Arrow files may be of its file format (Feather too) or its stream format.

    kinds, rows, metadata = look_into(path)
    columns = read_columns(path, ("PLETH",), rows)      # float32, NaN where null
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxbio.data.array_entries import most_unpacked
from jaxbio.data.recordings.arrow_messages import count_rows
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of

_PARQUET, _ARROW, _STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"  # what files begin with
_BATCH = 2**16  # rows
_MOST_HELD = 2**29  # bytes of the columns of a file, which are held whole
_LARGEST_PART = 2**29  # bytes of a column that come together


class Look(NamedTuple):
    """What a file has: its columns and their types, how many rows, and what it says of itself."""

    types: dict[str, pa.DataType]
    rows: int
    metadata: dict[str, str]


def look_into(path: str) -> Look:
    """Return what a file has; raises RecordingError where it is neither Parquet nor Arrow, or damaged."""
    with _opened(path) as (schema, rows, _):
        said = {_text(key): _text(value) for key, value in (schema.metadata or {}).items()}
        return Look({field.name: field.type for field in schema}, rows, said)


def is_signal(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a signal."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def read_columns(path: str, names: Sequence[str], rows: int, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Return columns whole, as float32 or float64, NaN where null; of dates and times POSIX seconds."""
    itemsize = np.dtype(dtype).itemsize
    if rows * len(names) * itemsize > _MOST_HELD:
        detail = f"{len(names)} columns of {rows:,} rows come to more than {_MOST_HELD:,} bytes: split it"
        raise RecordingError("unreadable_file", path, detail)
    values: dict[str, np.ndarray] = {name: np.empty(rows, dtype) for name in names}
    at = 0
    with _opened(path, names) as (_, _, batches):
        for batch in batches:
            for name in names:
                part = _numbers(batch.column(batch.schema.get_field_index(name)))
                values[name][at : at + len(part)] = part[: rows - at]
            at += len(batch)
    if at < rows:
        raise RecordingError("truncated_file", path, f"has {at:,} of the {rows:,} rows it was listed with")
    return values


@contextlib.contextmanager
def _opened(path: str, names: Sequence[str] | None = None) -> Iterator[tuple[pa.Schema, int, Iterable[pa.RecordBatch]]]:
    """Yield schema, number of rows, and the batches of the columns `names`, of which none is read yet."""
    with open_regular(path) as file:
        if size_of(file) == 0:
            raise RecordingError("empty_file", path, "no bytes")
        check_written(file, path)
        begin = file.read(8)
        file.seek(0)
        try:
            if begin.startswith(_PARQUET):
                yield _open_parquet(file, names, path)
            elif begin.startswith((_ARROW, _STREAM)):
                yield _open_arrow(file, names, begin.startswith(_ARROW), path)
            else:
                raise RecordingError("not_a_recording", path, "begins neither as Parquet does nor as Arrow")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {str(error)[:200]}") from error


def _open_parquet(
    file: BinaryIO, names: Sequence[str] | None, path: str
) -> tuple[pa.Schema, int, Iterable[pa.RecordBatch]]:
    parquet = pq.ParquetFile(file)
    metadata, size = parquet.metadata, size_of(file)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in map(group.column, range(group.num_columns)):
            allowed = min(_LARGEST_PART, most_unpacked(min(size, column.total_compressed_size)))
            if column.total_uncompressed_size > allowed:
                detail = f"{column.path_in_schema!r} unpacks into {column.total_uncompressed_size:,} bytes"
                raise RecordingError("unreadable_file", path, detail)
    return parquet.schema_arrow, metadata.num_rows, parquet.iter_batches(_BATCH, columns=names)


def _open_arrow(
    file: BinaryIO, names: Sequence[str] | None, is_file: bool, path: str
) -> tuple[pa.Schema, int, Iterable[pa.RecordBatch]]:
    open_again = pa.ipc.open_file if is_file else pa.ipc.open_stream
    schema = open_again(file).schema
    rows = count_rows(file, schema, is_file, path)
    wanted = [schema.get_field_index(name) for name in (schema.names if names is None else names)]
    file.seek(0)
    arrow = open_again(file, options=pa.ipc.IpcReadOptions(included_fields=wanted))
    return schema, rows, map(arrow.get_batch, range(arrow.num_record_batches)) if is_file else arrow


def _numbers(column: pa.Array) -> np.ndarray:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ns"))
    if pa.types.is_timestamp(column.type):
        ticks_N = column.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return ticks_N / {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
