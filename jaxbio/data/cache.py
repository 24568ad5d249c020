"""A store's segments as one flat int16 memory map, built once per host (`data.cache = host`).

The file lies in the host's temporary folder (TMPDIR moves it), named by the store's hash, and appears there whole or
not at all; processes of one host build it once. A file found there is compared with the store before it is used.

It holds patients' signals in a place that every user of the host can reach. So the folder is this user's and nobody
else may enter it, and no link is followed, neither to the folder nor to a file in it.

    segment_RCT = open_cache(store)
"""

import contextlib
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import NO_ROOM, advise, error_number
from jaxbio.data.host_folder import host_folder, own_folder
from jaxbio.data.regular_files import NotRegularError
from jaxbio.data.store import Store
from jaxbio.data.whole_files import to_disk, whole_file

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**26
COMPARED_ROWS = 64


def open_cache(store: Store, folder: Path | None = None) -> np.ndarray:
    """Return all segments of `store`, (R, C, T) int16, as a read-only memory map; build it where there is none.

    `folder` is by default one of this user's in the host's temporary folder. Waits while another process of the host
    builds. Raises UserError where the disk is too small or refuses, and where the folder is a link or another user's.
    """
    folder = own_folder(host_folder() if folder is None else folder, "data.cache", "host")
    path = folder / f"{store.hash}.int16"
    try:
        with _locked(folder / f"{store.hash}.lock"):
            cached_RCT = _map(path, store)
            if cached_RCT is None:
                _write_cache(path, store)
                cached_RCT = _map(path, store)
    except OSError as error:
        raise UserError(Fault("data.cache", "host", f"{error}: {advise(error)}, or data.cache=none")) from error
    assert cached_RCT is not None, "what was just written is the store's"
    return cached_RCT


def _open_own(path: Path, flags: int) -> BinaryIO:
    """Open a regular file of this user's in the cache's folder; nobody else may read it from now on.

    Raises OSError for a link, NotRegularError for a pipe or a device.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    file = os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "wb")
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
        file.close()
        raise NotRegularError(path)
    os.fchmod(descriptor, 0o600)
    return file


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which the system frees when the process dies.

    Where the file system has no such locks, processes that start together each build the file, the last one stays.
    """
    with _open_own(path, os.O_WRONLY | os.O_CREAT) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("%s: %s: processes of this host do not wait for each other's cache", path, error)
        yield


def _shape(store: Store) -> tuple[int, int, int]:
    return store.rows, *store.record_CT


def _map(path: Path, store: Store) -> np.ndarray | None:
    """Return the map of a file that has the store's size, and evenly spaced rows of it the store's segments.

    Anything else under its name is removed, a link or a pipe unopened; None where nothing is left.
    """
    try:
        with _open_own(path, os.O_RDONLY) as file:
            if os.fstat(file.fileno()).st_size == np.prod(_shape(store)) * 2:
                cached_RCT = np.asarray(np.memmap(file, "<i2", mode="r", shape=_shape(store)))
                rows = np.unique(np.linspace(0, store.rows - 1, COMPARED_ROWS).astype(np.uint32))
                if np.array_equal(cached_RCT[rows], store.read(rows)):
                    return cached_RCT
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: %s", path, error)
    log.warning("%s is not what the store holds: building it again", path)
    path.unlink()
    return None


def _write_cache(path: Path, store: Store) -> None:
    """Write every segment under a temporary name, then rename: a killed build leaves nothing that looks finished."""
    needed, free = int(np.prod(_shape(store))) * 2, os.statvfs(path.parent)
    if needed > free.f_bavail * free.f_frsize:
        raise _too_small(path, needed)
    rows = max(CHUNK_BYTES // (needed // store.rows), 1)
    log.info("building the host's cache %s, %.2f GB", path, needed / 1e9)
    try:
        with (
            whole_file(path) as unfinished,
            _open_own(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file,
            tqdm(total=needed, unit="B", unit_scale=True, desc="data.cache") as progress,
        ):
            for first in range(0, store.rows, rows):
                segment_NCT = store.read(np.arange(first, min(first + rows, store.rows)))
                file.write(np.ascontiguousarray(segment_NCT, "<i2").data)
                progress.update(segment_NCT.nbytes)
            to_disk(file)
    except OSError as error:
        if error_number(error) not in NO_ROOM:
            raise
        raise _too_small(path, needed) from error


def _too_small(path: Path, needed: int) -> UserError:
    remedy = f"{path.parent} has no room for {needed / 1e9:.2f} GB: point TMPDIR at a larger disk, or data.cache=none"
    return UserError(Fault("data.cache", "host", remedy))
