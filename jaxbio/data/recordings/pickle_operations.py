"""The operations of a pickle, one by one, as its file has them: names and arguments, nothing carried out.

Long texts and byte strings are not read: where they lie is their argument. See `pickletools` for what operations mean.

    for name, argument in operations_of(file, path): ...
"""

import pickletools
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import size_of

# How the bytes of an argument stand in the file.
PLAIN, UTF8, ESCAPED = "plain", "utf8", "escaped"
_CODING = {"STRING": ESCAPED, **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), UTF8)}
_COUNTS = {-2: "<B", -3: "<i", -4: "<I", -5: "<Q"}  # how long an argument is, by what pickletools calls that
_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_SHORT = 2**12  # bytes of an argument that is read
_MOST = 2**22  # operations: arrays take some twenty each
_BLOCK = 2**20


class Bytes(NamedTuple):
    """A text or byte string: `length` bytes of the file from `begin`, in this `coding`; `short` has them if few."""

    begin: int
    length: int
    coding: str
    short: bytes | None

    @property
    def text(self) -> str:
        """It as a text; empty where it is long."""
        return (self.short or b"").decode("utf-8", "replace")


def operations_of(file: BinaryIO, path: str) -> Iterator[tuple[str, Any]]:
    """Yield name and argument of each operation up to STOP.

    An argument is a number, a `Bytes`, or (of names) a text. Raises RecordingError for what is no pickle, for one that
    ends before it stops, and for one of too many operations.
    """
    size = size_of(file)
    for _ in range(_MOST):
        code = file.read(1)
        known = _OPERATIONS.get(code)
        if known is None:
            detail = "is no pickle" if code else "ends before the pickle does"
            raise RecordingError("unreadable_file", path, f"{detail} (byte {file.tell():,})")
        if known.arg is None:
            yield known.name, None
        elif known.arg.n in _COUNTS:
            yield known.name, _counted(file, known.name, _COUNTS[known.arg.n], size, path)
        elif known.name == "STRING":
            yield known.name, _line(file)
        elif known.arg.n == pickletools.UP_TO_NEWLINE and known.name != "GLOBAL":
            yield known.name, _number(file.readline(_SHORT), known.name, path)
        else:
            yield known.name, known.arg.reader(file)
        if known.name == "STOP":
            return
    raise RecordingError("unreadable_file", path, f"a pickle of more than {_MOST:,} operations")


def _counted(file: BinaryIO, name: str, form: str, size: int, path: str) -> Any:
    (count,) = struct.unpack(form, file.read(struct.calcsize(form)))
    begin = file.tell()
    if not 0 <= count <= size - begin:
        raise RecordingError("truncated_file", path, f"an argument of {count:,} bytes reaches beyond the file")
    short = file.read(count) if count <= _SHORT else None
    file.seek(begin + count)
    if name.startswith("LONG"):
        return int.from_bytes(short or b"", "little", signed=True)
    return Bytes(begin, count, _CODING.get(name, PLAIN), short)


def _line(file: BinaryIO) -> Bytes:
    """Return the text in quotes up to the end of the line, as protocol 0 writes byte strings."""
    begin = at = file.tell()
    while block := file.read(_BLOCK):
        found = block.find(b"\n")
        if found >= 0:
            at += found
            break
        at += len(block)
    count = max(0, at - begin - 2)  # without its quotes
    file.seek(begin + 1)
    short = file.read(count) if count <= _SHORT else None
    file.seek(at + 1)
    return Bytes(begin + 1, count, ESCAPED, short)


def _number(line: bytes, name: str, path: str) -> Any:
    """Return the argument of an operation of protocol 0: a number, or a text where it is none."""
    text = line.rstrip(b"\n").decode("latin-1")
    try:
        return float(text) if name == "FLOAT" else int(text.rstrip("L")) if len(text) < 30 else text
    except ValueError:
        return text
