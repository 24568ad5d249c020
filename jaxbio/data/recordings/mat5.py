"""MATLAB files of version 5 to 7: where their arrays of numbers lie, by path; fields and elements are parts of paths.

As "MAT-File Format" (MathWorks, R2018a) has it: elements of a type, a length and data, packed by zlib from version 7
on. data(2).ppg.fs is data/2/ppg/fs. Read are real numbers; texts, sparse matrices and objects are passed over. Arrays
that are not packed are read by spans; what is packed is unpacked whole, and the last kept.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxbio.data.recordings.array_paths import MOST_LEAVES, Leaf, Line
from jaxbio.data.recordings.mat5_elements import PACKED, Element, byte_order, element_at, elements, unpack
from jaxbio.data.recordings.named_arrays import NamedArrayReader
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import open_regular, size_of, version_of
from jaxbio.data.recordings.strided import read_line_of

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX = 14
_CELL, _STRUCT, _NUMBERS = 1, 2, range(6, 16)  # classes of matrices
_COMPLEX, _LOGICAL = 0x800, 0x200  # flags
_LARGEST_TEXT = 2**20  # bytes of names and shapes
_DEEPEST = 24  # structures within structures


class Where(NamedTuple):
    """Where an array's numbers lie: at `begin` of the file, or of what the element at `packed` unpacks into."""

    begin: int
    dtype: str
    packed: int | None


def leaves_of(path: str) -> dict[str, Leaf]:
    """Return the arrays of a file; raises RecordingError where it does not hold what its elements claim."""
    with open_regular(path) as file:
        order = byte_order(file, path)
        leaves, size = {}, size_of(file)
        for element in elements(file, 128, size, order, path):
            if element.kind == PACKED:
                content = unpack(path, element.begin, element.stop, version_of(path))
                walk, stop = _Walk(io.BytesIO(content), order, path, element.begin), len(content)
                found = [part for part in elements(walk.file, 0, stop, order, path) if part.kind == _MATRIX]
            else:
                walk, found = _Walk(file, order, path, None), [element] * (element.kind == _MATRIX)
            for matrix in found:
                for name, leaf in walk.matrix(matrix, "", 0):
                    leaves[name] = leaf
                    if len(leaves) > MOST_LEAVES:
                        raise RecordingError("not_a_recording", path, f"more than {MOST_LEAVES:,} arrays")
    return leaves


def read_line(path: str, line: Line, first: int, last: int) -> np.ndarray:
    """Return samples [first, last) of a signal, fewer where the file ends before."""
    where: Where = line.leaf.where
    if where.packed is None:
        with open_regular(path) as file:
            return read_line_of(file, size_of(file), where.begin, np.dtype(where.dtype), line, "F", first, last)
    with open_regular(path) as file:
        order = byte_order(file, path)
        element = element_at(file, where.packed - 8, size_of(file), order, path)
    content = unpack(path, element.begin, element.stop, version_of(path))
    dtype = np.dtype(where.dtype)
    return read_line_of(io.BytesIO(content), len(content), where.begin, dtype, line, "F", first, last)


class Mat5Reader(NamedArrayReader):
    """Reads arrays of one file."""

    read_line = staticmethod(read_line)


@dataclass(frozen=True)
class _Walk:
    """Walks through the matrices of a file, or of an element's unpacked bytes, and those within them."""

    file: BinaryIO
    order: str
    path: str
    packed: int | None

    def matrix(self, element: Element, name: str, depth: int) -> Iterator[tuple[str, Leaf]]:
        """Yield the arrays of numbers in a matrix by their paths; `name` is that of one within another."""
        if element.kind != _MATRIX:
            raise RecordingError("bad_header", self.path, f"{name!r} holds type {element.kind}, no matrix")
        parts = elements(self.file, element.begin, element.stop, self.order, self.path)
        if depth > _DEEPEST or element.begin == element.stop:
            return  # nothing at all stands for an empty matrix in a structure
        flags, *_ = self._numbers(next(parts))
        shape = tuple(self._numbers(next(parts)))
        own = self._bytes(next(parts)).decode("latin-1")
        name, kind = name or own, flags & 0xFF
        if min(shape, default=0) < 0:
            raise RecordingError("bad_header", self.path, f"{name!r} has the shape {shape}")
        if kind in _NUMBERS and not flags & (_COMPLEX | _LOGICAL):
            yield from self._leaf(next(parts), name, shape)
        elif kind == _CELL:
            for number, part in enumerate(parts, 1):
                yield from self.matrix(part, f"{name}/{number}", depth + 1)
        elif kind == _STRUCT:
            (width,) = self._numbers(next(parts))
            texts = self._bytes(next(parts))
            fields = [texts[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(texts), width)]
            alone = math.prod(shape) == 1
            for number, part in enumerate(parts):
                place = "" if alone else f"/{number // len(fields) + 1}"
                yield from self.matrix(part, f"{name}{place}/{fields[number % len(fields)]}", depth + 1)

    def _leaf(self, element: Element, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Leaf]]:
        dtype = np.dtype(self.order + _TYPES[element.kind])
        if math.prod(shape) * dtype.itemsize > element.stop - element.begin:
            raise RecordingError("truncated_file", self.path, f"{name!r} is shorter than its shape {shape}")
        number = None
        if math.prod(shape) == 1:
            (number,) = np.frombuffer(self._bytes(element)[: dtype.itemsize], dtype).astype(float).tolist()
        if math.prod(shape):
            yield name, Leaf(shape, Where(element.begin, dtype.str, self.packed), number)

    def _numbers(self, element: Element) -> list[int]:
        return np.frombuffer(self._bytes(element), np.dtype(self.order + _TYPES[element.kind])).tolist()

    def _bytes(self, element: Element) -> bytes:
        self.file.seek(element.begin)
        return self.file.read(min(element.stop - element.begin, _LARGEST_TEXT))
