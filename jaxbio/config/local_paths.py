"""Whether a text names a file or folder of a mounted file system, or an address that only a library could open.

    faults = address_faults("--workdir", "gs://bucket/run")

Sources, the store that is prepared and `data.store` may lie in object storage (OPENED). No other field and no other
flag takes an address, so a text that is one is refused wherever it stands, before a folder of its name is made.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxbio.config.faults import Fault, UserError

# At the start, behind the format of a source line (wfdb:gs://...), or in a list that is text: (('gs://...', 0.5), ...).
_START = r"""(?:^|["'])\s*(?:[a-z]\w*:)??"""
_ADDRESS = re.compile(rf"{_START}(?P<scheme>[a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_STORAGE = "gs|gcs|s3|s3a|s3n|r2|az|abfs|abfss|adl|wasb|wasbs|oss|cos|hdfs|dbfs"
_BUCKET = re.compile(rf"{_START}(?:{_STORAGE}):/", re.IGNORECASE)  # as a path, where "//" has become "/"
_FILE = re.compile(rf"{_START}file:/+", re.IGNORECASE)
OPENED = ("s3", "gs")  # read and written where a field or flag takes an address
_WEB = ("http", "https", "ftp", "ftps")


def address_faults(name: str, value: Any, *, opened: bool = False) -> Iterator[Fault]:
    """Yield a fault of field or flag `name` for every address in `value`: a text, a path, or any nesting of them.

    Where addresses are `opened`, only those that cannot be are faults.
    """
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and (remedy := _remedy(text, opened)):
            yield Fault(name, text, remedy)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from address_faults(name, part, opened=opened)
    elif isinstance(value, Sequence):
        for part in value:
            yield from address_faults(name, part, opened=opened)


def check_local(name: str, value: Any, *, opened: bool = False) -> None:
    """Raise UserError where `value`, of field or argument `name`, holds an address; see `address_faults`."""
    faults = list(address_faults(name, value, opened=opened))
    if faults:
        raise UserError(*faults)


def is_address(text: str | os.PathLike[str]) -> bool:
    """Whether `text` is an address that is opened: s3://bucket/folder."""
    found = _ADDRESS.match(os.fspath(text))
    return found is not None and found["scheme"].lower() in OPENED


def without_file(text: str) -> str:
    """Return the path of file:///path; any other text as it is."""
    found = _FILE.match(text)
    return f"/{text[found.end() :]}" if found else text


def _remedy(text: str, opened: bool) -> str | None:
    """Return what to do about `text` where it is an address, or one that is not opened, else None."""
    if found := _FILE.search(text):
        if opened:
            return None
        return f"an address: write the path alone, /{text[found.end() :]}"
    address = _ADDRESS.search(text)
    if opened and address and address["scheme"].lower() in OPENED:
        return None
    if address and address["scheme"].lower() in _WEB:
        return "an address on the web: download it and name the file or folder"
    if address or _BUCKET.search(text):
        return "an address of object storage, not a folder: mount the bucket and name the folder (README, Limits)"
    return None
