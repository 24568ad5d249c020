"""HDF5 files (.h5, .hdf5), and MATLAB's of version 7.3, which are such: datasets of numbers by their paths.

Units and rates may be attributes (`units`, `fs`, `rate_hz`, ...) of a dataset, or of a group around it. Soft links are
passed over, since what they point to is reached anyway. A file whose data lie in others (external links and storage,
virtual datasets) is refused. See `named_arrays` for options.

    hdf5:archive?columns=ppg:signals/ppg&rate_hz=125          mat:pulsedb?each=Subj_Wins/*&rate_hz=125
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxbio.data.recordings.array_paths import MOST_LEAVES, RATE_NAMES, Leaf, Line
from jaxbio.data.recordings.folders import list_each
from jaxbio.data.recordings.hdf5_chunks import check_storage, open_hdf5, read_slab
from jaxbio.data.recordings.named_arrays import NamedArrayReader, find_recordings_in
from jaxbio.data.recordings.optional import need
from jaxbio.data.recordings.recording import Recording, RecordingError, Refused
from jaxbio.data.recordings.source import Source

_SUFFIXES = (".h5", ".hdf5", ".hdf")
_MATLAB_NUMBERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)} | {"double", "single"}
_DEEPEST = 32  # groups within groups
_LARGEST_ATTRIBUTE = 2**12  # bytes


class Where(NamedTuple):
    """The dataset's name in the file, and whether its axes are MATLAB's, which HDF5 has in reverse."""

    name: str
    matlab: bool


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the recordings of the HDF5 files below the source's path."""
    need("h5py")
    return list_each(
        source,
        _SUFFIXES,
        lambda path: find_recordings_in(source, path, leaves_of(path), Hdf5Reader, channel_names, _SUFFIXES),
    )


def leaves_of(path: str, matlab: bool = False) -> dict[str, Leaf]:
    """Return the datasets of numbers of a file, by path; raises RecordingError for a file that is damaged or a trap."""
    with open_hdf5(path) as file:
        leaves = {}
        for name, leaf in _Walk(file, path, matlab).group(file, "", 0):
            leaves[name] = leaf
            if len(leaves) > MOST_LEAVES:
                raise RecordingError("not_a_recording", path, f"more than {MOST_LEAVES:,} datasets")
    return leaves


def read_line(path: str, line: Line, first: int, last: int) -> np.ndarray:
    """Return samples [first, last) of a signal, fewer where the dataset ends before."""
    name, matlab = line.leaf.where
    index = [slice(number, number + 1) for number in line.at]
    index[line.axis] = slice(first, min(last, line.samples))
    with open_hdf5(path) as file:
        return read_slab(file[name], tuple(index[::-1] if matlab else index), path).reshape(-1)


class Hdf5Reader(NamedArrayReader):
    """Reads datasets of one file."""

    read_line = staticmethod(read_line)


class _Walk:
    """Walks through the groups of a file, each once, whatever links lead there."""

    def __init__(self, file: Any, path: str, matlab: bool):
        self._file, self._path, self._matlab = file, path, matlab
        self._seen: set[Any] = set()
        self._h5py = need("h5py")

    def group(self, group: Any, name: str, depth: int) -> Iterator[tuple[str, Leaf]]:
        """Yield the datasets beneath a group, and the rates that it states."""
        if group.id in self._seen or depth > _DEEPEST:
            return
        self._seen.add(group.id)
        yield from self._rates(group, name)
        for part in group:
            if not name and self._matlab and part.startswith("#"):  # #refs#: what cells point to
                continue
            link = group.get(part, getlink=True)
            if isinstance(link, self._h5py.ExternalLink):
                raise RecordingError("outside_source", self._path, f"{name}/{part} is a link to another file")
            if isinstance(link, self._h5py.HardLink):
                yield from self._object(group[part], f"{name}/{part}".lstrip("/"), depth)

    def _object(self, found: Any, name: str, depth: int) -> Iterator[tuple[str, Leaf]]:
        if isinstance(found, self._h5py.Group):
            yield from self.group(found, name, depth + 1)
        elif isinstance(found, self._h5py.Dataset) and found.shape is not None:
            kind = _text(found.attrs, "MATLAB_class") if self._matlab else ""
            if self._matlab and self._h5py.check_ref_dtype(found.dtype) is self._h5py.Reference:
                yield from self._references(found, name, kind, depth)
            elif found.dtype.kind in "iuf" and (not self._matlab or kind in _MATLAB_NUMBERS):
                yield from self._dataset(found, name)

    def _dataset(self, found: Any, name: str) -> Iterator[tuple[str, Leaf]]:
        if "MATLAB_empty" in found.attrs or not check_storage(found, self._path):
            return
        yield from self._rates(found, name)
        number = float(read_slab(found, (slice(None),) * found.ndim, self._path).item()) if found.size == 1 else None
        unit = _text(found.attrs, "units") or _text(found.attrs, "unit")
        shape = found.shape[::-1] if self._matlab else found.shape
        yield name, Leaf(shape, Where(found.name, self._matlab), number, unit)

    def _references(self, found: Any, name: str, kind: str, depth: int) -> Iterator[tuple[str, Leaf]]:
        """Yield what a cell array points to, or one field of an array of structures (NAME/3/FIELD)."""
        if depth > _DEEPEST or found.size > MOST_LEAVES or not check_storage(found, self._path):
            return
        before, _, field = name.rpartition("/")
        for number, reference in enumerate(found[()].reshape(-1), 1):
            place = f"{name}/{number}" if kind == "cell" else f"{before}/{number}/{field}"
            if reference:
                yield from self._object(self._file[reference], place, depth + 1)

    def _rates(self, found: Any, name: str) -> Iterator[tuple[str, Leaf]]:
        for called in RATE_NAMES:
            if called in found.attrs and _small(found.attrs, called):
                value = np.asarray(found.attrs[called])
                if value.size == 1 and value.dtype.kind in "iuf":
                    yield f"{name}/{called}".lstrip("/"), Leaf((), number=float(value.item()))


def _text(attributes: Any, name: str) -> str:
    value = attributes[name] if name in attributes and _small(attributes, name) else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _small(attributes: Any, name: str) -> bool:
    return attributes.get_id(name).get_storage_size() <= _LARGEST_ATTRIBUTE
