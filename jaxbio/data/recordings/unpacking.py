"""Unpacking what others packed, block by block, never into more than its bytes can have held.

for block in unpack_gzip(file, path): ...
"""

import gzip
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from jaxbio.data.array_entries import LARGEST_RATIO, most_unpacked
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import size_of

BLOCK = 2**20  # bytes


def is_gzip(file: BinaryIO) -> bool:
    """Whether an open file begins as gzip does; it is left at its beginning."""
    begin = file.read(2)
    file.seek(0)
    return begin == b"\x1f\x8b"


def unpack_gzip(file: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield the bytes of an open gzip file.

    Raises RecordingError `unreadable_file` for a file that is damaged, cut, or a bomb.
    """
    allowed, unpacked = most_unpacked(size_of(file)), 0
    try:
        packed = gzip.GzipFile(fileobj=file)
        while block := packed.read(BLOCK):
            unpacked += len(block)
            if unpacked > allowed:
                detail = f"unpacks into more than {LARGEST_RATIO} times its {size_of(file):,} bytes"
                raise RecordingError("unreadable_file", path, detail)
            yield block
    except (OSError, EOFError, zlib.error) as error:
        raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {str(error)[:200]}") from error


def inflate(packed: bytes, most: int, path: str) -> bytes:
    """Return what zlib packed, at most `most` bytes; raises RecordingError for damage, and for more."""
    try:
        stream = zlib.decompressobj()
        content = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise RecordingError("unreadable_file", path, f"zlib: {error}") from error
    if len(content) > most:
        raise RecordingError("unreadable_file", path, f"{len(packed):,} packed bytes hold more than {most:,}")
    if not stream.eof:
        raise RecordingError("truncated_file", path, "its packed bytes end before their end")
    return content


class Stream:
    """Reads so many bytes at a time out of blocks of other lengths."""

    def __init__(self, blocks: Iterator[bytes], path: str):
        self._blocks, self._path, self._held, self._at = blocks, path, b"", 0

    def read(self, count: int, *, may_end: bool = False) -> bytes:
        """Return the next `count` bytes; at the end nothing where it `may_end`, else a RecordingError."""
        taken = self._held[self._at : self._at + count]
        self._at += len(taken)
        parts = [taken]
        while (lacking := count - sum(map(len, parts))) > 0 and (block := next(self._blocks, b"")):
            self._held, self._at = block, min(lacking, len(block))
            parts.append(block[: self._at])
        found = b"".join(parts)
        if len(found) < count and not (may_end and not found):
            raise RecordingError("truncated_file", self._path, "ends within a packet")
        return found
