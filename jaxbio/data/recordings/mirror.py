"""A source in object storage, folder by folder on this host's disk, where libraries find the files that they want.

For listing, of files that are no headers only the start is copied, and their size told by a hole. While a recording is
read its folder is whole; then it is removed, so that an archive of any size passes through. Processes of one host
share the copies.

    bring_heads("s3://bucket/archive", root, ["p00/p000020"], (".hea",))
    with whole_folders([Elsewhere("s3://bucket/archive", root, "p00/p000020")]): ...
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxbio.data.host_folder import host_folder, own_folder
from jaxbio.data.object_storage import Storage
from jaxbio.data.recordings.regular_files import PLACEHOLDER_NS

_HEAD_BYTES = 2**16  # what a decoder wants to see of a file before it says how long it is


class Elsewhere(NamedTuple):
    """Where a recording's folder lies: `address` of the source, `root` of its mirror, and the folder below both."""

    address: str
    root: str
    folder: str


def mirror_root(address: str) -> str:
    """Return the folder of this host that mirrors the source at `address`; it has the name of its last folder."""
    address = address.rstrip("/")
    place = own_folder(host_folder(), "--source", address) / "sources"
    root = place / hashlib.sha256(address.encode()).hexdigest()[:16] / address.rsplit("/", 1)[-1]
    root.mkdir(parents=True, exist_ok=True)
    return str(root)


def make_folders(address: str, root: str) -> None:
    """Make the folders that the source has, empty, so that a walk finds them."""
    for folder in sorted({os.path.dirname(name) for name in Storage(address, "--source").files()}):
        if ".." not in folder.split("/"):
            os.makedirs(os.path.join(root, folder), exist_ok=True)


def bring_heads(address: str, root: str, folders: Iterable[str], headers: Collection[str]) -> None:
    """Copy what listing wants of the folders: files with a suffix in `headers` whole (without any, all), else heads."""
    for folder in folders:
        place = Elsewhere(address, root, "" if folder == os.curdir else folder)
        with _lock(place) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            storage = Storage(address, "--source")
            names = _names(storage, place.folder)
            for stale in Path(root, place.folder).iterdir():
                if stale.is_file() and stale.relative_to(root).as_posix() not in names:
                    stale.unlink()
            for name, size in names.items():
                path = Path(root, name)
                if not headers or name.endswith(tuple(headers)):
                    if not _is_whole(path, size):
                        storage.copy_in(name, path)
                elif not path.exists():
                    _write_placeholder(path, storage.read_start(name, min(size, _HEAD_BYTES)), size)


@contextlib.contextmanager
def whole_folders(places: Collection[Elsewhere]) -> Iterator[None]:
    """Have these folders whole for the time of a with block, and remove them after it where nobody else reads them."""
    with contextlib.ExitStack() as stack:
        for place in sorted(set(places)):
            stack.enter_context(_whole(place))
        yield


@contextlib.contextmanager
def _whole(place: Elsewhere) -> Iterator[None]:
    storage = Storage(place.address, "--source")
    with _lock(place) as lock:
        names = _names(storage, place.folder)
        complete = False
        while not complete:  # between the locks somebody who is done may remove what was just copied
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, size in names.items():
                if not _is_whole(Path(place.root, name), size):
                    storage.copy_in(name, Path(place.root, name))
            fcntl.flock(lock, fcntl.LOCK_SH)
            complete = all(_is_whole(Path(place.root, name), size) for name, size in names.items())
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for name in names:
                    Path(place.root, name).unlink(missing_ok=True)


def _names(storage: Storage, folder: str) -> dict[str, int]:
    return {name: size for name, size in storage.files_in(folder).items() if ".." not in name.split("/")}


def _is_whole(path: Path, size: int) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return found.st_size == size and found.st_mtime_ns != PLACEHOLDER_NS


def _write_placeholder(path: Path, head: bytes, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    if size > len(head):
        os.utime(path, ns=(PLACEHOLDER_NS, PLACEHOLDER_NS))


@contextlib.contextmanager
def _lock(place: Elsewhere) -> Iterator[BinaryIO]:
    folder = Path(place.root).parent / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / hashlib.sha256(place.folder.encode()).hexdigest()[:32]).open("wb") as file:
        yield file
