"""Arrays in NumPy's formats from anybody: what a header claims is held against the bytes before anything is unpacked.

with zipfile.ZipFile(file) as archive: header = check_entry(archive, member, size_of(file))
"""

import math
import tokenize
import zipfile
import zlib
from typing import IO, NamedTuple

import numpy as np

# Signals and weights shrink to a half or a tenth when packed; past this it is a bomb.
LARGEST_RATIO, _ALWAYS_UNPACKED = 200, 64 * 2**20
# What damaged archives and array headers (which are parsed as Python literals) raise.
BROKEN = (
    *(OSError, EOFError, ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError, TypeError),
    *(zlib.error, zipfile.BadZipFile, SyntaxError, tokenize.TokenError),
)


class ArrayHeader(NamedTuple):
    """What the header of an array says."""

    shape: tuple[int, ...]
    in_columns: bool  # Fortran's order
    dtype: np.dtype


class EntryError(Exception):
    """An array that is not read: `reason` is one of the recordings' REASONS, `detail` says why in words."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def read_header(file: IO[bytes]) -> ArrayHeader:
    """Return what the array that `file` begins with is.

    Raises EntryError for one of Python objects or of a negative length, and one of BROKEN for what is no header.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = ArrayHeader(*read(file))
    if header.dtype.hasobject:
        raise EntryError("pickled_array", "holds Python objects; save plain numbers")
    if any(length < 0 for length in header.shape):
        raise EntryError("not_a_recording", f"an array of shape {header.shape}")
    return header


def check_entry(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> ArrayHeader:
    """Return the header of an entry of an archive of `size` bytes, which unpacks into no more than it may claim.

    Raises EntryError for an entry that is no array of plain values, is shorter than its shape, or is a bomb.
    """
    try:
        with archive.open(member) as entry:
            header = read_header(entry)
            values_bytes = member.file_size - entry.tell()
    except BROKEN as error:
        raise EntryError("unreadable_file", f"cannot be read ({type(error).__name__}: {error})") from error
    if math.prod(header.shape) * header.dtype.itemsize > values_bytes:
        raise EntryError("truncated_file", f"is shorter than its shape {header.shape}")
    if member.file_size > most_unpacked(min(member.compress_size, size)):
        raise EntryError("unreadable_file", f"unpacks into more than {LARGEST_RATIO} times its bytes")
    return header


def most_unpacked(packed: int) -> int:
    """Return into how many bytes `packed` ones may unpack."""
    return _ALWAYS_UNPACKED + LARGEST_RATIO * packed
