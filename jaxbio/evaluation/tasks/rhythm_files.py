"""CinC 2017, CPSC 2021 and MIMIC PERform AF in a folder: which rhythm a recording, or a span of it, has."""

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings import RecordingError
from jaxbio.data.recordings.wfdb_annotations import RHYTHM, read_annotations
from jaxbio.data.regular_files import open_text

REFERENCES = ("REFERENCE.csv", "REFERENCE-v3.csv")  # the latter are the revised labels, which win
FIBRILLATION = ("(AFIB", "(AFL")  # CPSC 2021 counts flutter as fibrillation


@lru_cache(maxsize=4)
def read_references(folder: Path) -> dict[str, str]:
    """Return the label (N, A, O, ~) of every record of CinC 2017.

    Raises UserError where no REFERENCE.csv is there, or it is none.
    """
    found: dict[str, str] = {}
    paths = [path for name in REFERENCES for path in sorted(folder.rglob(name))]
    if not paths:
        raise UserError(Fault("--data", str(folder), "has no REFERENCE.csv, which holds the labels"))
    for path in paths:
        try:
            with open_text(path) as file:
                lines = [line for line in csv.reader(file) if line]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserError(Fault("--data", str(path), str(error))) from None
        if lines and lines[0][0].casefold() == "record":
            lines = lines[1:]
        if any(len(line) < 2 or line[1] not in tuple("NAO~") for line in lines):
            raise UserError(Fault("--data", str(path), "expected record,label with the labels N, A, O and ~"))
        found |= {line[0]: line[1] for line in lines}
    return found


@lru_cache(maxsize=4)
def read_rhythm(path: str, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Return when (s) each rhythm of an `.atr` of CPSC 2021 begins, and whether it is atrial fibrillation or flutter.

    Raises UserError for a file that is none.
    """
    try:
        sample_N, text_N = read_annotations(path)
    except RecordingError as error:
        raise UserError(Fault("--data", path, f"{error.detail}; it holds the rhythms")) from None
    begins = [place for place, text in enumerate(text_N) if text.startswith(RHYTHM)]
    return sample_N[begins] / rate_hz, np.array([text_N[place] in FIBRILLATION for place in begins], bool)


def share_in(begin_s_K: np.ndarray, is_af_K: np.ndarray, start_B: np.ndarray, segment_s: float) -> np.ndarray:
    """Return the share of each window in which the rhythm is fibrillation; before the first mark it is not."""
    edge_s_K = np.append(begin_s_K, np.inf)
    covered_BK = np.minimum(edge_s_K[1:], start_B[:, None] + segment_s) - np.maximum(edge_s_K[:-1], start_B[:, None])
    return (np.maximum(covered_BK, 0.0) * is_af_K).sum(axis=1) / segment_s
