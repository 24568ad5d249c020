"""How many rows the batches of an Arrow file have, by their headers: nothing is unpacked.

As the columnar format's specification has it (https://arrow.apache.org/docs/format/Columnar.html): a message is a
header, which is a FlatBuffer, and a body; the file format is the stream's behind eight bytes. What a header claims is
held against its body.
"""

from typing import BinaryIO

import pyarrow as pa
from flatbuffers import encode, number_types
from flatbuffers.table import Table

from jaxbio.data.array_entries import most_unpacked
from jaxbio.data.recordings.recording import RecordingError

_FILE_MARK = 8  # bytes before the first message of the file format
# Places in tables of Message.fbs: of a message its header, of a batch's header its length.
_HEADER, _LENGTH = 8, 4


def count_rows(file: BinaryIO, schema: pa.Schema, is_file: bool, path: str) -> int:
    """Return the rows of all batches; raises RecordingError where one claims far more bytes than its body has."""
    row_bytes = sum(field.type.bit_width for field in schema if pa.types.is_primitive(field.type)) / 8
    file.seek(_FILE_MARK if is_file else 0)
    rows = 0
    for message in pa.ipc.MessageReader.open_stream(file):
        if message.type != "record batch":
            continue
        length = _length_of(message.metadata.to_pybytes())
        if not 0 <= length * row_bytes <= most_unpacked(message.body.size):
            detail = f"a batch claims {length:,} rows in {message.body.size:,} bytes"
            raise RecordingError("unreadable_file", path, detail)
        rows += length
    return rows


def _length_of(header: bytes) -> int:
    message = Table(header, encode.Get(number_types.UOffsetTFlags.packer_type, header, 0))
    batch = Table(header, message.Indirect(message.Pos + message.Offset(_HEADER)))
    place = batch.Offset(_LENGTH)
    return batch.Get(number_types.Int64Flags, batch.Pos + place) if place else 0
