"""The BIDMC data set (Pimentel et al., IEEE TBME 64:1914, 2017) in a folder: its monitor's numbers, and its patients.

`bidmc_01_Signals.csv`, plain or gzipped, has the signals at 125 Hz, `bidmc_01_Numerics.csv` what the monitor showed
each second, `bidmc_01_Fix.txt` the patient: several recordings share one.
"""

import csv
import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings import Recording, Source
from jaxbio.data.regular_files import open_text, read_text
from jaxbio.evaluation.tasks.task import Label, Layout, Subjects, has
from jaxbio.signals.segments import Measured

SIGNALS, NUMERICS, FIXED = "_Signals", "_Numerics.csv", "_Fix.txt"
_MIN_KNOWN = 0.5  # share of a segment's seconds for which the monitor must show a value
_PATIENT = re.compile(r"MIMIC II matched w(?:db|fdb|aveform)\s+ID:\s*(s\d+)", re.IGNORECASE)


def bidmc(label: Label, *, reads: tuple[str, ...] = ()) -> Layout:
    """Return BIDMC's layout with a task's label."""
    return Layout(
        "BIDMC",
        "*_Signals.csv (or .csv.gz) with *_Numerics.csv beside them",
        label,
        has(f"*{SIGNALS}.csv*"),
        source="csv:{}?rate_hz=125&glob=*_Signals.csv*",
        subjects=read_patients,
        reads=reads,
    )


def monitor_label(column: str) -> Label:
    """Return a label: the median of a column of the numerics over each segment, NaN where it shows too little."""

    def label(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
        path = Path(source.folder) / (recording.recording.removesuffix(SIGNALS) + NUMERICS)
        time_s, value = read_monitor(path, column)
        spans = [value[(time_s >= start) & (time_s < start + segment_s)] for start in start_B]
        return np.array([_median(span, segment_s) for span in spans])

    return label


def read_patients(folder: Path, source: str) -> Subjects:
    """Return {(source, recording): patient} of the folder's *_Fix.txt files that name one."""
    found: Subjects = {}
    for path in sorted(folder.rglob(f"*{FIXED}")):
        said = _PATIENT.search(read_text(path))
        if said:
            name = path.relative_to(folder).as_posix().removesuffix(FIXED) + SIGNALS
            found[source, name] = said[1]
    return found


@lru_cache(maxsize=4)
def read_monitor(path: Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return time (s) and what the monitor showed in a column, NaN where nothing, of a BIDMC *_Numerics.csv.

    Raises UserError for a file that is not there or has no columns "Time [s]" and that one.
    """
    remedy = f"the labels are the monitor's {column} in the *_Numerics.csv beside a BIDMC *_Signals file"
    try:
        with open_text(path) as file:
            header, *lines = csv.reader(file, skipinitialspace=True)
        columns = [header.index("Time [s]"), header.index(column)]
        table = np.array([[_number(line[place]) for place in columns] for line in lines]).reshape(-1, 2)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(Fault("--data", str(path), f"{error}; {remedy}")) from None
    return table[:, 0], table[:, 1]


def _number(cell: str) -> float:
    return float(cell) if cell.strip() else float("nan")


def _median(value: np.ndarray, segment_s: float) -> float:
    known = value[value > 0]
    return float(np.median(known)) if len(known) >= _MIN_KNOWN * segment_s else float("nan")
