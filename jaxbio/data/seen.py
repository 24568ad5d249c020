"""What an encoder has learnt from: hashes of its subjects and of its segments, small enough to travel with its weights.

They tell of a given subject or segment whether it was there, and name nobody. The salt is one for all encoders, so that
what several have seen can be united; it keeps ready-made tables out, not somebody who guesses names.

    seen = seen_of(stores, index.rows_NM)                      # of a run's train split
    seen.write(workdir / SEEN)
    seen_B = read_seen(export / SEEN).find(subject_B, fingerprint_B)
"""

import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.config.refusals import advise
from jaxbio.data.given_arrays import read_arrays
from jaxbio.data.store import StoreView, subject_codes
from jaxbio.data.whole_files import whole_file

SEEN = "seen.npz"
_SALT = b"jaxbio seen 1"
# What the file holds: type and number of axes of each array.
_ARRAYS = {"subject": (np.uint64, 1), "segment": (np.uint64, 1), "salt": (np.uint8, 1), "complete": (np.bool_, 0)}
_REMEDY = "copy it again from where it was made"


@dataclass(frozen=True)
class Seen:
    """Rising uint64 hashes: `subject_S` of subjects, `segment_N` of the segments' fingerprints.

    `complete` is False where an encoder started from weights of which nobody knows what they had seen.
    """

    subject_S: np.ndarray
    segment_N: np.ndarray
    complete: bool = True

    def find(self, subject_B: np.ndarray, fingerprint_B: np.ndarray) -> np.ndarray:
        """Return of each segment, bool (B,), whether its subject ("source/subject") or the segment itself was seen.

        Where one segment of a subject was seen, the subject was, under whatever name.
        """
        hit_B = are_among(self.subject_S, hash_subjects(subject_B))
        hit_B |= are_among(self.segment_N, hash_segments(fingerprint_B))
        return np.isin(subject_B, subject_B[hit_B])

    def find_rows(self, store: StoreView, row_B: np.ndarray) -> np.ndarray:
        """Return what `find` does of rows of a store, bool (B,)."""
        code_R, names = subject_codes(store)
        subject_B = np.array(["/".join(names[code]) for code in code_R[row_B]], str)
        return self.find(subject_B, store.column("fingerprint")[row_B])

    def unite(self, other: "Seen") -> "Seen":
        """Return what either has seen."""
        return Seen(
            _rising(np.concatenate([self.subject_S, other.subject_S])),
            _rising(np.concatenate([self.segment_N, other.segment_N])),
            self.complete and other.complete,
        )

    def __str__(self) -> str:
        """What is known, in words."""
        if not self.complete and not self.segment_N.size:
            return "not known"
        counted = f"{len(self.subject_S):,} subjects, {len(self.segment_N):,} segments"
        return counted if self.complete else f"{counted}, and what is not known of the weights it started from"

    def to_bytes(self) -> bytes:
        """Return the file: arrays `subject`, `segment` (uint64), `salt` (uint8) and `complete`; 8 bytes a segment."""
        buffer = io.BytesIO()
        salt = np.frombuffer(_SALT, np.uint8)
        np.savez(buffer, subject=self.subject_S, segment=self.segment_N, salt=salt, complete=self.complete)
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Write the file in one move. Raises UserError where the disk refuses it."""
        try:
            with whole_file(path) as unfinished:
                unfinished.write_bytes(self.to_bytes())
        except OSError as error:
            raise UserError(Fault(str(path), error.strerror or str(error), advise(error))) from error


NOTHING = Seen(np.zeros(0, np.uint64), np.zeros(0, np.uint64))
UNKNOWN = Seen(NOTHING.subject_S, NOTHING.segment_N, complete=False)


def read_seen(path: str | os.PathLike[str]) -> Seen:
    """Return what the file `path` holds; UNKNOWN where there is none.

    Raises UserError for a file that is damaged, holds anything else, or is hashed with another salt.
    """
    if not os.path.lexists(path):
        return UNKNOWN
    where, arrays = os.fspath(path), read_arrays(path, missing=_REMEDY)
    if _is_like(arrays.get("salt"), *_ARRAYS["salt"]) and (salt := arrays["salt"].tobytes()) != _SALT:
        remedy = f"this jaxbio hashes with {_SALT!r}: use the one that wrote it"
        raise UserError(Fault(where, f"salt {salt[:40]!r}", remedy))
    wrong = [name for name in _ARRAYS if not _is_like(arrays.get(name), *_ARRAYS[name])]
    if wrong:
        raise UserError(Fault(where, f"without {', '.join(wrong)} as they are written", _REMEDY))
    seen = Seen(arrays["subject"], arrays["segment"], bool(arrays["complete"]))
    if not all((hash_N[1:] > hash_N[:-1]).all() for hash_N in (seen.subject_S, seen.segment_N)):
        raise UserError(Fault(where, "hashes that do not rise", _REMEDY))
    return seen


def _is_like(array: np.ndarray | None, dtype: type, axes: int) -> bool:
    return array is not None and array.dtype == dtype and array.ndim == axes


def unite_all(parts: Iterable[Seen]) -> Seen:
    """Return what any of `parts` has seen."""
    return reduce(Seen.unite, parts, NOTHING)


def seen_of(store: StoreView, rows_NM: np.ndarray) -> Seen:
    """Return subjects and segments of the rows in an index of pairs, drawn yet or not."""
    used_R = np.zeros(store.rows, bool)
    used_R[np.asarray(rows_NM)] = True
    code_R, names = subject_codes(store)
    subjects = ["/".join(names[code]) for code in np.flatnonzero(np.bincount(code_R[used_R]))]
    segment_N = hash_segments(store.column("fingerprint")[used_R])
    return Seen(_rising(hash_subjects(np.array(subjects, str))), _rising(segment_N))


def are_among(rising_N: np.ndarray, value_B: np.ndarray) -> np.ndarray:
    """Return which of `value_B` are among `rising_N`, bool (B,); rising numbers are not sorted again."""
    if not rising_N.size:
        return np.zeros(value_B.shape, bool)
    place_B = np.minimum(np.searchsorted(rising_N, value_B), rising_N.size - 1)
    return rising_N[place_B] == value_B


def _rising(value_N: np.ndarray) -> np.ndarray:
    """Return the different values in rising order; of 21 million hashes a hundred times faster than np.unique."""
    sorted_N = np.sort(value_N)
    return sorted_N[np.append(True, sorted_N[1:] != sorted_N[:-1])] if sorted_N.size else sorted_N


def hash_subjects(subject_B: np.ndarray) -> np.ndarray:
    """Return a hash of each text "source/subject": 8 bytes of BLAKE2b keyed with the salt, little-endian, uint64."""
    texts, code_B = np.unique(subject_B.astype(str), return_inverse=True)
    digests = [hashlib.blake2b(text.encode(), digest_size=8, key=_SALT).digest() for text in texts.tolist()]
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)[code_B]


def hash_segments(fingerprint_B: np.ndarray) -> np.ndarray:
    """Return a hash of each fingerprint, uint64: mixed with the salt (splitmix64, Steele et al. 2014).

    A fingerprint is itself a hash of samples that nobody guesses, so a mixture that is fast over millions is enough.
    """
    key = np.uint64(int.from_bytes(hashlib.blake2b(_SALT, digest_size=8).digest(), "little"))
    word_B = np.asarray(fingerprint_B, np.uint64) ^ key
    word_B = (word_B ^ (word_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word_B = (word_B ^ (word_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word_B ^ (word_B >> np.uint64(31))
