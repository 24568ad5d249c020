"""The elements of MATLAB files of version 5 to 7: a tag of type and length, then data; packed ones unpacked.

for element in elements(file, 128, size_of(file), byte_order(file, path), path): ...
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from jaxbio.data.array_entries import most_unpacked
from jaxbio.data.recordings.kept import Kept
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import open_regular
from jaxbio.data.recordings.unpacking import inflate

PACKED = 15  # the type of an element that zlib packed
_MOST_UNPACKED = 2**29  # bytes of an element, which is held whole
_KEPT = Kept(2**28)


class Element(NamedTuple):
    """An element: its type, and where its data begin and stop."""

    kind: int
    begin: int
    stop: int
    after: int  # where the next one begins


def byte_order(file: BinaryIO, path: str) -> str:
    """Return the byte order of an open file, as `struct` names it; raises RecordingError for what is no MATLAB file."""
    mark = file.read(128)[124:128]
    if mark[2:] not in (b"IM", b"MI"):
        raise RecordingError("not_a_recording", path, "is no MATLAB file of version 5 to 7.3")
    return "<" if mark[2:] == b"IM" else ">"


def unpack(path: str, begin: int, stop: int, version: tuple[int, int]) -> bytes:
    """Return what bytes [begin, stop) of the file, packed by zlib, unpack into; `version` is that of the file."""

    def make() -> bytes:
        with open_regular(path) as file:
            file.seek(begin)
            packed = file.read(stop - begin)
        return inflate(packed, min(_MOST_UNPACKED, most_unpacked(len(packed))), path)

    return _KEPT.get((path, begin, version), make)


def element_at(file: BinaryIO, at: int, stop: int, order: str, path: str) -> Element:
    """Return the element at `at`, which ends before `stop`; a small one holds its data in its tag."""
    file.seek(at)
    tag = file.read(8)
    if len(tag) < 8:
        raise RecordingError("truncated_file", path, "ends within an element")
    kind, nbytes = struct.unpack(f"{order}II", tag)
    if kind >> 16:
        return Element(kind & 0xFFFF, at + 4, at + 4 + min(kind >> 16, 4), at + 8)
    if at + 8 + nbytes > stop:
        raise RecordingError("truncated_file", path, f"an element of {nbytes:,} bytes reaches beyond what holds it")
    return Element(kind, at + 8, at + 8 + nbytes, at + 8 + nbytes + (0 if kind == PACKED else -nbytes % 8))


def elements(file: BinaryIO, at: int, stop: int, order: str, path: str) -> Iterator[Element]:
    """Yield the elements that lie in bytes [at, stop); raises RecordingError for one that reaches beyond them."""
    while at + 8 <= stop:
        element = element_at(file, at, stop, order, path)
        yield element
        at = element.after
