"""superclass: diagnostic superclass of a 12-lead ECG of PTB-XL (NORM, MI, STTC, CD, HYP)."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxbio.data import ecg_archives
from jaxbio.data.recordings import Recording, Source
from jaxbio.evaluation.class_measures import SEVERAL_CLASSES
from jaxbio.evaluation.tasks.task import UNKNOWN, Layout, Subjects, Task, has, named
from jaxbio.signals.segments import Measured

CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
_TABLE, _STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
_HEADERS = {"Old_MI": "MI", "Acute_MI": "MI"}  # of the challenge of 2024, whose other names are the superclasses


@lru_cache(maxsize=4)
def _read(folder: Path) -> dict[str, ecg_archives.Row]:
    table = next(iter(sorted(folder.rglob(_TABLE))), folder / _TABLE)
    return {row.recording: row for row in ecg_archives.read_ptbxl(table, table.with_name(_STATEMENTS), "filename_hr")}


@lru_cache(maxsize=4)
def _read_headers(folder: Path) -> dict[str, str]:
    """Return the superclass of every recording whose header names diagnoses of exactly one."""
    found = {}
    for row in ecg_archives.read_headers(folder):
        said = {_HEADERS.get(code, code) for code, cell in row.cells.items() if cell == "1"} & set(CLASSES)
        if len(said) == 1:
            found[row.recording] = said.pop()
    return found


def _code(name: str) -> float:
    return float(CLASSES.index(name)) if name in CLASSES else UNKNOWN


def _of_table(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    row = _read(Path(source.folder)).get(recording.recording)
    return np.full(len(start_B), UNKNOWN if row is None else _code(row.cells["superclass"]))


def _of_headers(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    return np.full(len(start_B), _code(_read_headers(Path(source.folder)).get(recording.recording, "")))


def _patients(folder: Path, source: str) -> Subjects:
    return {(source, row.recording): row.subject for row in _read(folder).values()}


SUPERCLASS = Task(
    "the diagnostic superclass of an ECG",
    "",
    named(*SEVERAL_CLASSES),
    (
        Layout(
            "PTB-XL",
            f"{_TABLE}, {_STATEMENTS} and records500",
            _of_table,
            has(_TABLE),
            source="wfdb:{}?glob=*_hr.hea",
            subjects=_patients,
            longest_s=10.0,
        ),
        Layout(
            "CinC 2024",
            "WFDB headers with `# Labels:`, records named *_hr",
            _of_headers,
            has("*_hr.hea"),
            source="wfdb:{}?glob=*_hr.hea",
            longest_s=10.0,
        ),
    ),
    classes=CLASSES,
    labels_are="of ECGs with exactly one superclass",
    published="PTB-XL: several labels an ECG, folds 1 to 8 to learn from, 10 to test, macro AUROC; here: ECGs of one "
    "superclass, whole patients left out by turns",
)
