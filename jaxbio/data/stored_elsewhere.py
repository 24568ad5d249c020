"""A store in object storage: copied to this host to be read, and from this host when it is made.

The copy lies in this user's folder of the host, named by what the manifest says, so that runs share it and another
store at the same address is another copy. It is never removed by jaxbio.

    folder = fetch_store("s3://bucket/store")
    publish_store(Path("store"), "s3://bucket/store")
"""

import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.host_folder import host_folder, own_folder
from jaxbio.data.object_storage import Storage
from jaxbio.data.store_files import INDEX, MANIFEST, sha256_of

_BESIDE = (INDEX, "labels")  # what may come to a store after its manifest
_UPLOAD = "upload.json"  # is there while a store is being copied to its address
_SAFE = re.compile(r"[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*")
log = logging.getLogger(__name__)


def fetch_store(address: str, field: str = "data.store") -> Path:
    """Return the folder of this host's copy of the store at `address`, made or completed where it is not whole.

    Every file of the manifest is compared with its SHA-256 when it is copied. Raises UserError where there is no
    store, and where a file is not what the manifest says.
    """
    storage = Storage(address, field)
    text = storage.read(MANIFEST)
    if text is None:
        remedy = "no segment store, or its preparation has not finished: run tools/prepare_store.py (again)"
        raise UserError(Fault(field, address, remedy))
    entries = {entry["name"]: entry for entry in _files(text, storage)}
    folder = own_folder(host_folder(), field, address) / "stores" / hashlib.sha256(text).hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        sizes = {name: size for below in _BESIDE for name, size in storage.files(below).items() if _is_safe(name)}
        sizes |= {name: entry["bytes"] for name, entry in entries.items()}
        missing = {
            name: size
            for name, size in sizes.items()
            if _size(folder / name) != size or (name not in entries and not name.startswith(INDEX))  # labels change
        }
        if missing:
            log.info("%s is copied to %s", address, folder)
        with tqdm(total=sum(missing.values()), unit="B", unit_scale=True, desc=address, disable=not missing) as bar:
            for name, size in missing.items():
                storage.copy_in(name, folder / name)
                if name in entries and sha256_of(folder / name) != entries[name]["sha256"]:
                    (folder / name).unlink()
                    raise UserError(Fault(f"{address}/{name}", "SHA-256 differs", "prepare the store anew"))
                bar.update(size)
        (folder / MANIFEST).write_bytes(text)
    return folder


def check_free(address: str) -> bool:
    """Return whether a finished store lies at `address`; raises UserError where something else does."""
    storage = Storage(address, "--out")
    if storage.read(MANIFEST) is not None:
        return True
    names = list(storage.files())
    if names and _UPLOAD not in names:
        raise UserError(Fault("--out", address, f"holds {names[0]!r}: name a new or empty folder"))
    return False


def staging_folder(address: str) -> Path:
    """Return the folder of this host in which the store for `address` is made."""
    place = own_folder(host_folder(), "--out", address) / "made" / hashlib.sha256(address.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return place / "store"


def publish_store(folder: Path, address: str) -> None:
    """Copy the finished store in `folder` to `address`, its manifest last; what is there already stays.

    Raises UserError where another store lies there.
    """
    storage = Storage(address, "--out")
    manifest = (folder / MANIFEST).read_bytes()
    there = storage.read(MANIFEST)
    if there is not None and json.loads(there)["hash"] != json.loads(manifest)["hash"]:
        raise UserError(Fault("--out", address, "holds another store: name another folder"))
    begun = there is not None or storage.read(_UPLOAD) == manifest
    found = storage.files() if begun else {}
    if not begun:
        (folder / _UPLOAD).write_bytes(manifest)
        storage.copy_out(folder / _UPLOAD, _UPLOAD)
        (folder / _UPLOAD).unlink()
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [name for name in names if name not in (MANIFEST, _UPLOAD)]
    with tqdm(total=len(names), unit=" files", desc=address) as bar:
        for name in names:
            if found.get(name) != (folder / name).stat().st_size:
                storage.copy_out(folder / name, name)
            bar.update()
    storage.copy_out(folder / MANIFEST, MANIFEST)
    if storage.read(_UPLOAD) is not None:
        storage.remove(_UPLOAD)


def _files(text: bytes, storage: Storage) -> list[dict[str, Any]]:
    """Return the manifest's entries of files; raises UserError where it is none, or names what lies elsewhere."""
    try:
        manifest = json.loads(text)
        entries = [*manifest["shards"], *manifest["tables"]]
        if all(_is_safe(entry["name"]) and entry["sha256"] and entry["bytes"] >= 0 for entry in entries):
            return entries
        what = "names files outside its folder"
    except (ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
    remedy = f"{what}: not a readable manifest: prepare the store anew"
    raise UserError(Fault(storage.field, f"{storage.address}/{MANIFEST}", remedy))


def _is_safe(name: Any) -> bool:
    return isinstance(name, str) and bool(_SAFE.fullmatch(name)) and ".." not in name.split("/")


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process of this host copy at a time; its folder is this user's alone."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
