"""Reading files that others put there: regular ones only, so that nothing is waited for and nothing is endless.

Opening a pipe waits for a writer, and reading a device need not end.

    text = read_text(folder / "manifest.json")
    with open_text(path) as file: csv.reader(file)
"""

import errno
import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO

NOT_REGULAR = "is no regular file (a pipe, a device or the like)"


class NotRegularError(OSError):
    """What is to be read is a pipe, a device or the like."""

    def __init__(self, path: os.PathLike | str):
        super().__init__(errno.EINVAL, NOT_REGULAR, os.fspath(path))


def is_regular(path: os.PathLike | str) -> bool:
    """Whether `path`, links followed, is a regular file, or nothing at all (which its reader names)."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return True


def open_binary(path: os.PathLike | str) -> BinaryIO:
    """Return the regular file `path`, open for reading.

    Raises NotRegularError for a pipe or a device, IsADirectoryError for a folder, and what `open` raises.
    """
    # A device is not even opened: a tape would rewind. Should a pipe take a file's place, nothing waits for its writer.
    if not is_regular(path):
        raise _not_regular(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _not_regular(path)
    return file


def open_text(path: os.PathLike | str) -> TextIO:
    """Return the regular file `path`, open for reading text in UTF-8, as the module csv wants it; see `open_binary`."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8-sig", newline="")


def read_text(path: os.PathLike | str) -> str:
    """Return the text of the regular file `path`, in UTF-8; see `open_binary`."""
    return read_bytes(path).decode("utf-8")


def read_bytes(path: os.PathLike | str) -> bytes:
    """Return what the regular file `path` holds; see `open_binary`."""
    with open_binary(path) as file:
        return file.read()


def check_regular(path: os.PathLike | str) -> None:
    """Raise NotRegularError for a pipe or a device, before a library opens it; for what is not there nothing."""
    if not is_regular(path):
        raise _not_regular(path)


def _not_regular(path: os.PathLike | str) -> OSError:
    if Path(path).is_dir():
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    return NotRegularError(path)
