"""Files and folders that appear whole or not at all, whatever ends the process that writes them.

with whole_file(path) as unfinished:
    unfinished.write_text("...")

Until then they have a name that says which process of which host writes them. What a killed one leaves is cleared away
by the next to write into the same folder, as soon as that process is known to be gone, and by whoever begins to hold a
folder that nobody else writes into (`remove_unfinished`).
"""

import contextlib
import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

UNFINISHED = ".unfinished-"
# Of a process of another host nobody knows whether it is gone; nothing takes so long to write.
_FORGOTTEN_S = 24 * 3600.0
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield where to write; what lies there becomes `path` in one move, unless an exception leaves the block."""
    remove_unfinished(path.parent, alone=False)
    unfinished = unfinished_path(path)
    unfinished.unlink(missing_ok=True)  # of a killed process that had our number: in containers all have the same
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder to write into, which then takes the place of `path`; its parent is made where it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent, alone=False)
    unfinished = unfinished_path(path)
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        yield unfinished
        shutil.rmtree(path, ignore_errors=True)
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def unfinished_path(path: Path) -> Path:
    """Return under which name this process writes what is to become `path`."""
    return path.with_name(f"{UNFINISHED}{socket.gethostname()}-{os.getpid()}-{path.name}")


def remove_unfinished(folder: Path, *, alone: bool) -> None:
    """Remove from `folder` what killed processes were writing; where nobody else writes, all that is unfinished."""
    for path in list(folder.glob(f"{UNFINISHED}*")) if folder.is_dir() else ():
        if alone or _is_left(path):
            with contextlib.suppress(OSError):  # another user's, in a folder that several share
                _remove(path)


def to_disk(file: IO) -> None:
    """Have what was written to `file` on the disk, where its file system can tell."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _UNABLE:
            raise


def _is_left(path: Path) -> bool:
    """Whether the process that wrote `path` is gone, or nobody has touched it for a day."""
    mine = re.match(rf"{re.escape(UNFINISHED + socket.gethostname())}-(\d+)-", path.name)
    if mine:
        return not psutil.pid_exists(int(mine[1]))
    try:
        return time.time() - path.lstat().st_mtime > _FORGOTTEN_S
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
