"""A span of one signal out of an array that lies in a file, or in memory, in C's order of axes or Fortran's."""

from typing import BinaryIO

import numpy as np

from jaxbio.data.recordings.array_paths import Line


def read_line_of(
    file: BinaryIO, size: int, begin: int, dtype: np.dtype, line: Line, order: str, first: int, last: int
) -> np.ndarray:
    """Return samples [first, last) of `line`, whose array begins at byte `begin` of `file`; fewer where that ends.

    `order` is "C" or "F". Where other signals lie between the samples, they are read as well.
    """
    shape = line.leaf.shape if order == "C" else line.leaf.shape[::-1]
    at, axis = (line.at, line.axis) if order == "C" else (line.at[::-1], len(shape) - 1 - line.axis)
    steps = [int(np.prod(shape[place + 1 :], dtype=np.int64)) for place in range(len(shape))]
    step = steps[axis]
    start = sum(number * of_axis for number, of_axis in zip(at, steps)) + first * step
    count = max(0, min(last, line.samples) - first)
    entries = (count - 1) * step + 1 if count else 0
    byte = begin + start * dtype.itemsize
    entries = max(0, min(entries, (size - byte) // dtype.itemsize))
    file.seek(byte)
    content = np.frombuffer(file.read(entries * dtype.itemsize), dtype)
    return content[::step]
