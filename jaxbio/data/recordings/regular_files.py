"""Opening what lies in a source: regular files only, and none that is almost all hole.

A hole of a terabyte costs its writer nothing.

    with open_regular(path) as file: ...
"""

import os
from typing import BinaryIO

from jaxbio.data.host_folder import host_folder
from jaxbio.data.recordings.recording import RecordingError
from jaxbio.data.regular_files import NOT_REGULAR, NotRegularError, is_regular, open_binary

__all__ = ["NOT_REGULAR", "check_written", "is_regular", "open_regular", "size_of", "version_of"]

# A file of zeros that was copied with holes is a recording; one of which less than this was written is none.
_LEAST_WRITTEN = 0.01
# The time of a file of which only the start and the size are on this host (`mirror`).
PLACEHOLDER_NS = 1
_SMALL = 16 * 2**20  # bytes; what is smaller is soon read


def open_regular(path: str) -> BinaryIO:
    """Return the regular file `path`, open for reading.

    Raises RecordingError `missing_file`, `unreadable_file`, or `not_a_recording` for a pipe, a device, a folder.
    """
    try:
        return open_binary(path)
    except (NotRegularError, IsADirectoryError) as error:
        raise RecordingError("not_a_recording", path, NOT_REGULAR) from error
    except FileNotFoundError as error:
        raise RecordingError("missing_file", path, "is not there") from error
    except (OSError, ValueError) as error:
        raise RecordingError("unreadable_file", path, str(error)) from error


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file, in bytes."""
    return os.fstat(file.fileno()).st_size


def version_of(path: str) -> tuple[int, int]:
    """Return what changes when a file does, so that what was kept of it is not used again.

    Raises RecordingError `unreadable_file` where it is gone.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise RecordingError("unreadable_file", path, str(error)) from error
    return status.st_mtime_ns, status.st_size


def check_written(file: BinaryIO, path: str) -> None:
    """Raise RecordingError `truncated_file` where less than a hundredth of a large file was ever written.

    A placeholder in this user's folder of the host is asked for its size alone.
    """
    size = size_of(file)
    if os.fstat(file.fileno()).st_mtime_ns == PLACEHOLDER_NS and path.startswith(f"{host_folder()}{os.sep}"):
        return
    if size < _SMALL or not hasattr(os, "SEEK_DATA"):
        return
    written = at = 0
    while at < size and written < _LEAST_WRITTEN * size:
        try:
            start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        except OSError:  # nothing but a hole from here on
            break
        written += at - start
    file.seek(0)
    if written < _LEAST_WRITTEN * size:
        raise RecordingError("truncated_file", path, f"only {written:,} of its {size:,} bytes were ever written")
