"""Folders in object storage, s3:// and gs://: what lies in them, and copies of it to and from this host.

Libraries want files, so nothing is read in place. Keys are asked for by the library of each storage, from the
environment.

    storage = Storage("s3://bucket/archive", field="--source")
    storage.copy_in("p00/p000020.hea", Path("/tmp/p000020.hea"))
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import NO_ROOM, error_number
from jaxbio.data.whole_files import whole_file


@dataclass(frozen=True)
class Storage:
    """The folder at `address`, which field or flag `field` names."""

    address: str
    field: str

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """The library's file system, and the folder's path in it."""
        import fsspec

        try:
            system, root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            remedy = f"{error}: pip install -c constraints.txt -e '.[storage]'"
            raise UserError(Fault(self.field, self.address, remedy)) from None
        return system, root.rstrip("/")

    def files(self, below: str = "") -> dict[str, int]:
        """Return size in bytes of every file below folder `below`, by path relative to the address, sorted."""
        with self._answering():
            system, root = self._opened
            system.invalidate_cache()
            found = system.find(_join(root, below), detail=True)
            return {path[len(root) + 1 :]: int(found[path]["size"]) for path in sorted(found) if path != root}

    def files_in(self, folder: str) -> dict[str, int]:
        """Return size in bytes of every file in `folder`, and not below it, by path relative to the address, sorted."""
        with self._answering():
            system, root = self._opened
            try:
                found = system.ls(_join(root, folder), detail=True)
            except FileNotFoundError:
                return {}
            sizes = {entry["name"][len(root) + 1 :]: int(entry["size"]) for entry in found if entry["type"] == "file"}
            return {name: sizes[name] for name in sorted(sizes) if name and not name.endswith("/")}

    def read(self, name: str) -> bytes | None:
        """Return what file `name` holds; None where there is none."""
        with self._answering():
            system, root = self._opened
            system.invalidate_cache()
            try:
                return system.cat_file(_join(root, name))
            except FileNotFoundError:
                return None

    def read_start(self, name: str, size: int) -> bytes:
        """Return the first `size` bytes of file `name`."""
        with self._answering():
            system, root = self._opened
            return system.cat_file(_join(root, name), start=0, end=size)

    def copy_in(self, name: str, path: Path) -> None:
        """Copy file `name` to `path`, where it appears whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._answering(), whole_file(path) as unfinished:
            system, root = self._opened
            system.get_file(_join(root, name), str(unfinished))

    def copy_out(self, path: Path, name: str) -> None:
        """Copy file `path` to `name`; object storage shows it whole or not at all."""
        with self._answering():
            system, root = self._opened
            system.put_file(str(path), _join(root, name))

    def remove(self, name: str) -> None:
        """Remove file `name`."""
        with self._answering():
            system, root = self._opened
            system.rm_file(_join(root, name))

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what the storage's library raises, of a class of its own as often as not, into the user's fault."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if error_number(error) in NO_ROOM:
                raise
            remedy = f"{type(error).__name__}: {error}; is the address right, and are its keys in the environment?"
            raise UserError(Fault(self.field, self.address, remedy)) from error


def _join(root: str, name: str) -> str:
    return f"{root}/{name}" if name else root
