"""Rows of a store that a run leaves out of its pairs; no store is rewritten.

Subjects that `data.exclude_subjects` names: the file is a CSV in UTF-8 with a header, a column `subject` and, where
sources call different patients by one name, a column `source`; an empty cell of it means every source. Copies of their
segments under other names are left out with them. And held-out subjects from whom the train split learns all the same.

    exclusion = read_exclusion("withdrawn.csv")
    left_out_R = find_left_out(stores, exclusion)
"""

import csv
import difflib
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.copies import join_subjects
from jaxbio.data.pairs import split_codes
from jaxbio.data.regular_files import open_text
from jaxbio.data.seen import are_among
from jaxbio.data.several import Stores
from jaxbio.data.splits import SPLITS
from jaxbio.data.store import subject_codes

FIELD = "data.exclude_subjects"
_NAMED = 5  # strangers that are named one by one, each beside the nearest subject
_COMPARED = 2000  # subjects among whom the nearest is looked for, 0.1 ms each
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exclusion:
    """Pairs (source, subject), each once, sorted; source "" means any."""

    subjects: tuple[tuple[str, str], ...]

    @property
    def hash(self) -> str:
        """Hash of whom it names, whatever the order of the lines."""
        return hashlib.sha256(json.dumps(self.subjects).encode()).hexdigest()[:16]


def read_exclusion(path: Path | str, field: str = FIELD) -> Exclusion:
    """Return whom the file `path`, which field or flag `field` gives, names.

    Raises UserError for a file that cannot be read, one without the column, and one that names nobody.
    """
    remedy = "a CSV in UTF-8 with a column subject, and source where names are not unique; one subject a line"
    named = set()
    try:
        with open_text(path) as file:
            for number, line in enumerate(csv.DictReader(file), 2):
                subject, source = (line.get("subject") or "").strip(), (line.get("source") or "").strip()
                if not subject:
                    raise UserError(Fault(field, f"{path}, line {number}", remedy))
                named.add((source, subject))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault(field, str(path), f"{error}; {remedy}")) from None
    if not named:
        raise UserError(Fault(field, str(path), f"names nobody; {remedy}"))
    return Exclusion(tuple(sorted(named)))


def find_left_out(stores: Stores, exclusion: Exclusion | None) -> np.ndarray | None:
    """Return which rows, bool (rows,), are to be in no pair, and say how many; None: any may be.

    Raises UserError as `find_excluded`.
    """
    left_out_R = None
    if exclusion is not None:
        left_out_R = find_excluded(stores, exclusion)
        log.info("%s leaves out %d of %d segments", FIELD, left_out_R.sum(), stores.rows)
    leaked_R = find_leaks(stores, np.zeros(stores.rows, bool) if left_out_R is None else left_out_R)
    if leaked_R.any():
        remark = "%d segments of the validation split are left out: their subjects, or copies, are in the train split"
        log.warning(remark, leaked_R.sum())
        left_out_R = leaked_R if left_out_R is None else left_out_R | leaked_R
    return left_out_R


def find_excluded(stores: Stores, exclusion: Exclusion) -> np.ndarray:
    """Return which rows, bool (rows,), are of an excluded subject or a copy of such a row, and say how many copies.

    Raises UserError for every subject that is in no store, naming the nearest that is.
    """
    code_R, names = subject_codes(stores)
    named, there = set(exclusion.subjects), {*names, *(("", subject) for _, subject in names)}
    strangers = [entry for entry in exclusion.subjects if entry not in there]
    if strangers:
        raise UserError(*_stranger_faults(strangers, names))
    named_R = np.array([name in named or ("", name[1]) in named for name in names], bool)[code_R]
    fingerprint_R = stores.column("fingerprint")
    copy_R = are_among(np.sort(fingerprint_R[named_R]), fingerprint_R) & ~named_R
    if copy_R.any():
        remark = "%s: %d segments of %d other subjects are copies, and left out too; name these to leave them out whole"
        log.warning(remark, FIELD, copy_R.sum(), np.unique(code_R[copy_R]).size)
    return named_R | copy_R


def find_leaks(stores: Stores, excluded_R: np.ndarray) -> np.ndarray:
    """Return which validation rows, bool (rows,), are of a subject from whom the train split learns.

    By name, or because they hold copies of one segment, be it used or not (`join_subjects`). Two stores may hold one
    subject in different splits (other shares, a move into an empty split); one store may where it was prepared before
    joined subjects were split together, or extended by the recording that joins them.
    """
    code_R, _ = subject_codes(stores)
    split_R, group_S = split_codes(stores), join_subjects(code_R, stores.column("fingerprint"))
    train_R, held_R = ((split_R == SPLITS.index(split)) & ~excluded_R for split in ("train", "validation"))
    learnt_G = np.zeros(group_S.size, bool)
    learnt_G[group_S[code_R[train_R]]] = True
    return held_R & learnt_G[group_S[code_R]]


def _stranger_faults(strangers: Sequence[tuple[str, str]], names: Sequence[tuple[str, str]]) -> list[Fault]:
    """Return a fault for each of the first strangers, and one that counts the others."""
    spelt = {subject: f"{source},{subject}" for source, subject in names}
    faults = []
    for source, subject in strangers[:_NAMED]:
        close = difflib.get_close_matches(subject, spelt, n=1) if len(spelt) <= _COMPARED else []
        near = f"; did you mean {spelt[close[0]]}?" if close else "; subjects are spelt as in segments.parquet"
        faults.append(Fault(FIELD, f"{source},{subject}".removeprefix(","), "is a subject of no store" + near))
    if len(strangers) > _NAMED:
        faults.append(Fault(FIELD, f"{len(strangers) - _NAMED} more", "are subjects of no store"))
    return faults
