"""Arrays out of an `.npz` that somebody gave: weights, an export's example, what an encoder has seen.

arrays = read_arrays("weights.npz", missing="name a file of weights that exists")
"""

import os
import zipfile

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.array_entries import BROKEN, LARGEST_RATIO, EntryError, check_entry, most_unpacked
from jaxbio.data.given_files import open_given
from jaxbio.data.recordings.regular_files import size_of

_MOST_ENTRIES = 100_000


def read_arrays(path: str | os.PathLike[str], *, missing: str) -> dict[str, np.ndarray]:
    """Return the arrays of the `.npz` file `path` by name: numbers and truth values; texts and dates are left out.

    Raises UserError for what `open_given` refuses (`missing` is its remedy), for a file that is no whole archive, for
    Python objects, and, before anything is unpacked, for entries that claim more than there is behind them.
    """
    name = os.fspath(path)
    with open_given(path, missing=missing) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return {
                    member.filename.removesuffix(".npy"): _read_entry(archive, member)
                    for member in _numeric_members(archive, size_of(file))
                }
        except EntryError as error:
            raise UserError(Fault(name, error.detail, "an .npz of plain arrays; save it again")) from error
        except BROKEN as error:
            remedy = f"no whole .npz of plain arrays ({type(error).__name__}: {error}); copy it again"
            raise UserError(Fault(name, "unreadable", remedy)) from error


def _numeric_members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members) or len(members) > _MOST_ENTRIES:
        raise EntryError("unreadable_file", f"{len(members)} entries, or two of one name")
    headers = []
    for member in members:
        try:
            headers.append(check_entry(archive, member, size))
        except EntryError as error:
            raise EntryError(error.reason, f"its entry {member.filename[:80]!r} {error.detail}") from error
    if sum(member.file_size for member in members) > most_unpacked(size):
        raise EntryError("unreadable_file", f"it unpacks into more than {LARGEST_RATIO} times its bytes")
    void = [member.filename for member, header in zip(members, headers, strict=True) if header.dtype.kind == "V"]
    if void:  # bfloat16 that NumPy saved has lost its type
        detail = f"its entry {void[0][:80]!r} holds raw bytes or records: save numbers of a type that NumPy has"
        raise EntryError("not_a_recording", detail)
    return [member for member, header in zip(members, headers, strict=True) if header.dtype.kind in "biufc"]


def _read_entry(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as entry:
        array = np.lib.format.read_array(entry, allow_pickle=False)
        while entry.read(2**20):  # to the end, where damage shows
            pass
    return array
