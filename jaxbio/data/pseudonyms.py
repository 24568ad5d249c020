"""Names of subjects and recordings under a secret key: a store that is passed on names nobody.

A name becomes an HMAC-SHA256 of source and name, the same for the same key, so that stores of one hospital agree on who
is who and splits hold. Whoever has the key can ask for a name (tools/hide_names.py); nobody else can, not even with a
list of all patients. The key lies outside the store.

    key = read_key("~/keys/ward.key", out="store")
    key.subject("wfdb:ward", "p000194")
"""

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings import Recording, Refused
from jaxbio.data.regular_files import read_bytes

FLAG = "--subject_key"
_LEAST_BYTES = 16
_DIGITS = 32  # hexadecimal: 128 bits, so that no two names of an archive meet


@dataclass(frozen=True)
class SubjectKey:
    """A secret of at least 16 bytes."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """What tells this key from others, and nothing more of it."""
        return self._hash("key", "", "")[:16]

    def subject(self, source: str, name: str) -> str:
        """Return what subject `name` of `source` is called."""
        return self._hash("subject", source, name)

    def recording(self, source: str, name: str) -> str:
        """Return what recording `name` of `source` is called."""
        return self._hash("recording", source, name)

    def hide(self, entries: Iterable[Recording | Refused]) -> list[Recording | Refused]:
        """Return `entries` under other names; details of refusals, which name files, are left out."""
        return [self._hide(entry) for entry in entries]

    def _hide(self, entry: Recording | Refused) -> Recording | Refused:
        name = self.recording(entry.source, entry.recording)
        if isinstance(entry, Refused):
            return replace(entry, recording=name, detail="")
        subject = self.subject(entry.source, entry.subject)
        return replace(entry, recording=name, subject=subject, hidden=True)

    def _hash(self, kind: str, source: str, name: str) -> str:
        text = "\0".join(("jaxbio 1", kind, source, name)).encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret, text, hashlib.sha256).hex()[:_DIGITS]


def read_key(path: Path | str, out: Path | str | None = None) -> SubjectKey:
    """Return the key in file `path`.

    Raises UserError for one that is too short, is not there, or lies inside the store `out`.
    """
    made = "make one with: head -c 32 /dev/urandom > FILE"
    folder = None if out is None else os.path.realpath(out)
    if folder is not None and os.path.commonpath([folder, os.path.realpath(path)]) == folder:
        raise UserError(Fault(FLAG, str(path), "lies inside the store, which it is to protect: keep it elsewhere"))
    try:
        secret = read_bytes(path)
    except OSError as error:
        raise UserError(Fault(FLAG, str(path), f"{error}; {made}")) from None
    if len(secret) < _LEAST_BYTES:
        raise UserError(Fault(FLAG, str(path), f"holds {len(secret)} bytes, at least {_LEAST_BYTES}; {made}"))
    return SubjectKey(secret)
