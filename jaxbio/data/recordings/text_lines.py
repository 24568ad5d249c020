"""The lines of a text file, block by block: gzip unpacked, UTF-16 turned into UTF-8, and nothing but text.

A file of any length is read in blocks of a megabyte. One that is no text, or unpacks into far more than its bytes,
is a RecordingError.
"""

import codecs
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import BinaryIO

from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular
from jaxbio.data.recordings.unpacking import BLOCK, is_gzip, unpack_gzip

_LONGEST_LINE = 2**16  # bytes; a longer line is no table's


def read_blocks(path: str) -> Iterator[bytes]:
    """Yield a text file as blocks of whole lines, in UTF-8 without a byte order mark, each line with its newline.

    Raises RecordingError for bytes that no text has, for a damaged file, and for gzip that is a bomb.
    """
    with _faults_named(path), open_regular(path) as raw:
        check_written(raw, path)
        decode, rest = None, b""
        for block in _read_blocks(raw, path):
            decode = decode or _decoder_of(block)
            block = rest + decode(block)
            if b"\r" in block and b"\n" not in block:
                block = block.replace(b"\r", b"\n")  # as Macintosh wrote lines
            if b"\0" in block:
                raise RecordingError("not_a_recording", path, "is binary")
            whole = block.rfind(b"\n") + 1
            rest = block[whole:]
            if len(rest) > _LONGEST_LINE:
                raise RecordingError("not_a_recording", path, "is binary, or one endless line")
            if whole:
                yield block[:whole]
        if rest:
            yield rest + b"\n"


def _read_blocks(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield the bytes of an open file, unpacked where it is gzip."""
    yield from unpack_gzip(raw, path) if is_gzip(raw) else iter(functools.partial(raw.read, BLOCK), b"")


def _decoder_of(block: bytes) -> Callable[[bytes], bytes]:
    """Return what turns blocks of a file that begins with `block` into UTF-8, by its byte order mark."""
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        decoder = codecs.getincrementaldecoder("utf-16")("replace")
        return lambda part: decoder.decode(part).encode()
    marks = iter([codecs.BOM_UTF8])
    return lambda part: part.removeprefix(next(marks, b""))


@contextlib.contextmanager
def _faults_named(path: str) -> Iterator[None]:
    """Turn what damaged files raise into a RecordingError that names the file."""
    try:
        yield
    except OSError as error:
        raise RecordingError("unreadable_file", path, f"{type(error).__name__}: {str(error)[:200]}") from error
