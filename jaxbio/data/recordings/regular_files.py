"""Opening what lies in a source: regular files only, and none that is almost all hole.

Opening a pipe waits for a writer, reading a device need not end, and a hole of a terabyte costs its writer nothing.

    with open_regular(path) as file: ...
"""

import os
import stat
from typing import BinaryIO

from jaxbio.data.recordings.recording import RecordingError

NOT_REGULAR = "is no regular file (a pipe, a device or the like)"
# A file of zeros that was copied with holes is a recording; one of which less than this was written is none.
_LEAST_WRITTEN = 0.01
_SMALL = 16 * 2**20  # bytes; what is smaller is soon read


def is_regular(path: str) -> bool:
    """Whether `path`, links followed, is a regular file, or nothing at all (which its reader names)."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True


def open_regular(path: str) -> BinaryIO:
    """Return the regular file `path`, open for reading.

    Raises RecordingError `missing_file`, `unreadable_file`, or `not_a_recording` for a pipe, a device, a folder.
    """
    if not is_regular(path):
        raise RecordingError("not_a_recording", path, NOT_REGULAR)
    try:
        # Should a pipe have taken its place meanwhile, opening does not wait for its writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError as error:
        raise RecordingError("missing_file", path, "is not there") from error
    except (OSError, ValueError) as error:
        raise RecordingError("unreadable_file", path, str(error)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise RecordingError("not_a_recording", path, NOT_REGULAR)
    return file


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
    """Raise RecordingError `truncated_file` where less than a hundredth of a large file was ever written."""
    size = size_of(file)
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
