"""Whether a text names a file or folder of a mounted file system, or an address that only a library could open.

    faults = address_faults("data.store", "gs://bucket/store")

No field and no flag of jaxbio takes an address, so a text that is one is refused wherever it stands, before a folder
of its name is made.
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
_WEB = ("http", "https", "ftp", "ftps")


def address_faults(name: str, value: Any) -> Iterator[Fault]:
    """Yield a fault of field or flag `name` for every address in `value`: a text, a path, or any nesting of them."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if isinstance(text, str) and (remedy := _remedy(text)):
            yield Fault(name, text, remedy)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from address_faults(name, part)
    elif isinstance(value, Sequence):
        for part in value:
            yield from address_faults(name, part)


def check_local(name: str, value: Any) -> None:
    """Raise UserError where `value`, of field or argument `name`, holds an address; see `address_faults`."""
    faults = list(address_faults(name, value))
    if faults:
        raise UserError(*faults)


def _remedy(text: str) -> str | None:
    """Return what to do about `text` where it is an address, else None."""
    if found := _FILE.search(text):
        return f"an address: write the path alone, /{text[found.end() :]}"
    address = _ADDRESS.search(text)
    if address and address["scheme"].lower() in _WEB:
        return "an address on the web: download it and name the file or folder"
    if address or _BUCKET.search(text):
        return "an address of object storage, not a folder: mount the bucket and name the folder (README, Limits)"
    return None
