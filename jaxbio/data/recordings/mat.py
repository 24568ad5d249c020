"""MATLAB files (.mat): version 5 to 7 by our own reader, version 7.3, which is HDF5, by that of HDF5.

Fields of structures, elements of arrays of structures and cells are parts of paths: data(2).ppg.v is data/2/ppg/v. The
signal files of WFDB records that are called .mat are of version 4: read those as wfdb. See `named_arrays` for options.

    mat:mimic_perform_af?each=data/*&columns=ppg:ppg/v,ecg:ekg/v
"""

from collections.abc import Iterator, Mapping, Sequence

from jaxbio.data.recordings import hdf5, mat5
from jaxbio.data.recordings.array_paths import Leaf
from jaxbio.data.recordings.folders import list_each
from jaxbio.data.recordings.hdf5_chunks import is_hdf5
from jaxbio.data.recordings.named_arrays import NamedArrayReader, find_recordings_in
from jaxbio.data.recordings.recording import Recording, RecordingError, Refused
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of
from jaxbio.data.recordings.source import Source

_SUFFIXES = (".mat",)


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the recordings of the MATLAB files below the source's path."""
    return list_each(
        source, _SUFFIXES, lambda path: find_recordings_in(source, path, *_open(path), channel_names, _SUFFIXES)
    )


def _open(path: str) -> tuple[dict[str, Leaf], type[NamedArrayReader]]:
    """Return the arrays of a file, and what reads them."""
    with open_regular(path) as file:
        if size_of(file) == 0:
            raise RecordingError("empty_file", path, "no bytes")
        check_written(file, path)
    if is_hdf5(path):
        return hdf5.leaves_of(path, matlab=True), hdf5.Hdf5Reader
    return mat5.leaves_of(path), mat5.Mat5Reader
