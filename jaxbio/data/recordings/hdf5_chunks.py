"""Opening HDF5 files and reading parts of datasets without trust: claims are held against the file, chunks bounded.

HDF5's own filters unpack whatever a chunk holds, to any size; here each is unpacked into the bytes of a chunk or not
at all. Read are gzip, shuffle and fletcher32, those that HDF5 is always built with.
"""

import functools
import itertools
import math
from typing import Any

import numpy as np

from jaxbio.data.array_entries import most_unpacked
from jaxbio.data.recordings.kept import Kept
from jaxbio.data.recordings.optional import need
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of, version_of
from jaxbio.data.recordings.unpacking import inflate

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_GZIP, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_LARGEST_CHUNK = 2**27  # bytes; h5py makes them of at most a megabyte
_CHECKSUM = 4  # bytes of fletcher32, at the end
_KEPT = Kept(2**28)  # the signals of an array share its chunks

Slab = tuple[slice, ...]


def is_hdf5(path: str) -> bool:
    """Whether a file begins as HDF5 does, perhaps behind MATLAB's own header."""
    with open_regular(path) as file:
        begin = file.read(512 + len(_SIGNATURE))
    return begin.startswith(_SIGNATURE) or begin.endswith(_SIGNATURE)


def open_hdf5(path: str) -> Any:
    """Return the open file; raises RecordingError for what is no HDF5."""
    h5py = need("h5py")
    with open_regular(path) as file:
        check_written(file, path)
    if not is_hdf5(path):
        raise RecordingError("not_a_recording", path, "does not begin as HDF5 does")
    try:
        return h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise RecordingError("unreadable_file", path, f"{error}") from error


def check_storage(dataset: Any, path: str) -> bool:
    """Return whether any of a dataset was written.

    Raises RecordingError for one whose data lie in another file, that claims more than the file can hold, or whose
    filters are not read.
    """
    h5d = need("h5py").h5d
    made = dataset.id.get_create_plist()
    if dataset.is_virtual or made.get_external_count():
        raise RecordingError("outside_source", path, f"the data of {dataset.name!r} lie in another file")
    if dataset.dtype.itemsize != dataset.id.get_type().get_size():
        raise RecordingError("unreadable_file", path, f"{dataset.name!r} holds numbers of an unusual width")
    with open_regular(path) as file:
        stored, size = dataset.id.get_storage_size(), size_of(file)
    claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunked = made.get_layout() == h5d.CHUNKED
    if stored > size or claimed > (most_unpacked(stored) if chunked else size):
        detail = f"{dataset.name!r} claims {claimed:,} bytes, of which {stored:,} lie in a file of {size:,}"
        raise RecordingError("unreadable_file", path, detail)
    if chunked:
        filters = _filters(dataset)
        if not set(filters) <= {_GZIP, _SHUFFLE, _FLETCHER32}:
            detail = f"{dataset.name!r} is packed by the filters {filters}: h5repack -f GZIP=4 makes it readable"
            raise RecordingError("unreadable_file", path, detail)
        if math.prod(dataset.chunks) * dataset.dtype.itemsize > _LARGEST_CHUNK:
            raise RecordingError("unreadable_file", path, f"{dataset.name!r} has chunks of {dataset.chunks}")
    return stored > 0


def read_slab(dataset: Any, slab: Slab, path: str) -> np.ndarray:
    """Return the part `slab` (slices without steps) of a dataset that `check_storage` let pass."""
    check_storage(dataset, path)
    bounds = [part.indices(length)[:2] for part, length in zip(slab, dataset.shape, strict=True)]
    if dataset.chunks is None:
        return dataset[tuple(slice(*bound) for bound in bounds)]
    read = np.full([max(0, stop - start) for start, stop in bounds], dataset.fillvalue, dataset.dtype)
    if not read.size:
        return read
    places = [range(start // long, -(-stop // long)) for (start, stop), long in zip(bounds, dataset.chunks)]
    version = version_of(path)
    for place in itertools.product(*places):
        begin = tuple(number * long for number, long in zip(place, dataset.chunks))
        content = _KEPT.get(
            (path, dataset.name, begin, version), functools.partial(_unpack_chunk, dataset, path, begin)
        )
        if content:
            chunk = np.frombuffer(content, dataset.dtype).reshape(dataset.chunks)
            here, there = [], []
            for at, long, (start, stop) in zip(begin, dataset.chunks, bounds):
                low, high = max(at, start), min(at + long, stop)
                here.append(slice(low - start, high - start))
                there.append(slice(low - at, high - at))
            read[tuple(here)] = chunk[tuple(there)]
    return read


def _unpack_chunk(dataset: Any, path: str, begin: tuple[int, ...]) -> bytes:
    """Return the bytes of the chunk that begins at `begin`, none where it was never written."""
    stored = dataset.id.get_chunk_info_by_coord(begin)
    if stored.byte_offset is None:
        return b""
    nbytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if stored.size > most_unpacked(nbytes):
        raise RecordingError("unreadable_file", path, f"a chunk of {dataset.name!r} takes {stored.size:,} bytes")
    skipped, content = dataset.id.read_direct_chunk(begin)
    filters = _filters(dataset)
    for number, code in reversed(list(enumerate(filters))):
        if skipped >> number & 1:
            continue
        if code == _GZIP:
            content = inflate(content, nbytes + _CHECKSUM, path)
        elif code == _SHUFFLE:
            content = np.frombuffer(content, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
        else:
            content = content[:-_CHECKSUM]
    if len(content) != nbytes:
        raise RecordingError("unreadable_file", path, f"a chunk of {dataset.name!r} holds {len(content):,} bytes")
    return content


def _filters(dataset: Any) -> list[int]:
    made = dataset.id.get_create_plist()
    return [made.get_filter(number)[0] for number in range(made.get_nfilters())]
