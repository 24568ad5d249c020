"""Pickles of NumPy arrays in dictionaries (.pkl), as WESAD and PPG-DaLiA have them. They are never run.

See `pickle_arrays` for what is read of them, and `named_arrays` for options; rates stand in the line.

    pickle:WESAD?columns=ppg:signal/wrist/BVP,ecg:signal/chest/ECG&rates=ppg:64,ecg:700
"""

import codecs
import functools
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxbio.data.recordings.array_paths import Line
from jaxbio.data.recordings.folders import list_each
from jaxbio.data.recordings.kept import Kept
from jaxbio.data.recordings.named_arrays import NamedArrayReader, find_recordings_in
from jaxbio.data.recordings.pickle_arrays import Where, leaves_of
from jaxbio.data.recordings.pickle_operations import PLAIN, UTF8, Bytes
from jaxbio.data.recordings.recording import Recording, RecordingError, Refused
from jaxbio.data.recordings.regular_files import open_regular, size_of, version_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.strided import read_line_of

_SUFFIXES = (".pkl", ".pickle")
_MOST_DECODED = 2**29  # bytes of an array that stands there as text, which is held whole
_KEPT = Kept(2**28)


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the recordings of the pickles below the source's path."""
    return list_each(
        source,
        _SUFFIXES,
        lambda path: find_recordings_in(source, path, leaves_of(path), PickleReader, channel_names, _SUFFIXES),
    )


def read_line(path: str, line: Line, first: int, last: int) -> np.ndarray:
    """Return samples [first, last) of a signal, fewer where the file ends before."""
    where: Where = line.leaf.where
    dtype = np.dtype(where.dtype)
    if where.content.coding == PLAIN:
        with open_regular(path) as file:
            return read_line_of(file, size_of(file), where.content.begin, dtype, line, where.order, first, last)
    key = path, where.content.begin, version_of(path)
    content = _KEPT.get(key, functools.partial(_decode, path, where.content))
    return read_line_of(io.BytesIO(content), len(content), 0, dtype, line, where.order, first, last)


class PickleReader(NamedArrayReader):
    """Reads arrays of one file."""

    read_line = staticmethod(read_line)


def _decode(path: str, content: Bytes) -> bytes:
    """Return bytes that stand in the file as text: escaped (protocol 0), or each a character (of Python 3, for 2)."""
    if content.length > _MOST_DECODED:
        raise RecordingError("unreadable_file", path, f"an array of {content.length:,} bytes in text")
    with open_regular(path) as file:
        file.seek(content.begin)
        text = file.read(content.length)
    return text.decode("utf-8").encode("latin-1") if content.coding == UTF8 else codecs.escape_decode(text)[0]
