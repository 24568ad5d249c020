"""A store's segments as one flat int16 memory map, built once per host (`data.cache = host`).

The file lies in the host's temporary folder (TMPDIR moves it), named by the store's hash, and appears there whole or
not at all; processes of one host build it once. A file found there is compared with the store before it is used.

    segment_RCT = open_cache(store)
"""

import contextlib
import errno
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.store import Store

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**26
COMPARED_ROWS = 64


def open_cache(store: Store, folder: Path | None = None) -> np.ndarray:
    """Return all segments of `store`, (R, C, T) int16, as a read-only memory map; build it where there is none.

    `folder` is by default one of this user's in the host's temporary folder. Waits while another process of the host
    builds. Raises UserError where the disk is too small or the folder is another user's.
    """
    folder = _own_folder(Path(tempfile.gettempdir()) / f"jaxbio-{os.getuid()}" if folder is None else folder)
    path = folder / f"{store.hash}.int16"
    with _locked(folder / f"{store.hash}.lock"):
        if path.exists() and not _is_the_stores(path, store):
            log.warning("%s is not what the store holds: building it again", path)
            path.unlink()
        if not path.exists():
            _write_cache(path, store)
        return _map(path, store)


def _shape(store: Store) -> tuple[int, int, int]:
    return store.rows, len(store.channels), store.length


def _map(path: Path, store: Store) -> np.ndarray:
    return np.asarray(np.memmap(path, "<i2", mode="r", shape=_shape(store)))


def _own_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(Fault("data.cache", "host", f"{folder} belongs to another user: point TMPDIR elsewhere"))
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which the system frees when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_the_stores(path: Path, store: Store) -> bool:
    """Whether the file has the store's size, and evenly spaced rows of it the store's segments."""
    if path.stat().st_size != np.prod(_shape(store)) * 2:
        return False
    rows = np.unique(np.linspace(0, store.rows - 1, COMPARED_ROWS).astype(np.uint32))
    return np.array_equal(_map(path, store)[rows], store.read(rows))


def _write_cache(path: Path, store: Store) -> None:
    """Write every segment under a temporary name, then rename: a killed build leaves nothing that looks finished."""
    needed, free = int(np.prod(_shape(store))) * 2, os.statvfs(path.parent)
    if needed > free.f_bavail * free.f_frsize:
        raise _too_small(path, needed)
    partial = path.with_suffix(".partial")
    rows = max(CHUNK_BYTES // (needed // store.rows), 1)
    log.info("building the host's cache %s, %.2f GB", path, needed / 1e9)
    try:
        with partial.open("wb") as file, tqdm(total=needed, unit="B", unit_scale=True, desc="data.cache") as progress:
            for first in range(0, store.rows, rows):
                segment_NCT = store.read(np.arange(first, min(first + rows, store.rows)))
                file.write(np.ascontiguousarray(segment_NCT, "<i2").data)
                progress.update(segment_NCT.nbytes)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _too_small(path, needed) from error
    finally:
        partial.unlink(missing_ok=True)


def _too_small(path: Path, needed: int) -> UserError:
    remedy = f"{path.parent} has no room for {needed / 1e9:.2f} GB: point TMPDIR at a larger disk, or data.cache=none"
    return UserError(Fault("data.cache", "host", remedy))
