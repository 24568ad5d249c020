"""CinC 2015 and VTaC in a folder: which alarms were true, as experts judged them.

CinC 2015: `ALARMS` has record, alarm type, 1 or 0 a line; the alarm sounds 300 s from the start of the record.
VTaC: `event_labels.csv` has record, event, decision; `waveforms/<record>/<event>.hea` sounds at 300 s too.
"""

import csv
from functools import lru_cache
from pathlib import Path, PurePath

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.regular_files import open_text

VT = "Ventricular_Tachycardia"
ALARM_S = 300.0
CINC_2015, VTAC = "ALARMS", "event_labels.csv"


@lru_cache(maxsize=4)
def read_alarms(folder: Path) -> dict[str, float]:
    """Return 1 (true) or 0 (false) of every ventricular tachycardia alarm of CinC 2015, by record.

    Raises UserError where ALARMS is not there, or a line is none of its kind.
    """
    found = {}
    path = _find(folder, CINC_2015)
    for number, line in enumerate(_lines(path), 1):
        if len(line) != 3 or line[2].strip() not in ("0", "1"):
            raise UserError(Fault("--data", f"{path}, line {number}", "expected record,alarm type,0 or 1"))
        if line[1].strip() == VT:
            found[line[0].strip()] = float(line[2])
    return found


@lru_cache(maxsize=4)
def read_events(folder: Path) -> dict[str, tuple[str, float]]:
    """Return (record, 1 or 0) of every event of VTaC that was decided, by event; the record is the patient.

    Raises UserError where event_labels.csv is not there or lacks a column.
    """
    path = _find(folder, VTAC)
    header, *lines = _lines(path)
    header = [name.strip() for name in header]
    if not {"record", "event", "decision"} <= set(header):
        raise UserError(Fault("--data", str(path), "expected the columns record, event, decision"))
    rows = [dict(zip(header, (cell.strip() for cell in line))) for line in lines if line]
    codes = {"true": 1.0, "false": 0.0}
    decided = [row for row in rows if row["decision"].casefold() in codes]
    return {row["event"]: (row["record"], codes[row["decision"].casefold()]) for row in decided}


def name_of(recording: str) -> str:
    """Return the last part of a recording's name."""
    return PurePath(recording).name


def _find(folder: Path, name: str) -> Path:
    return next(iter(sorted(folder.rglob(name))), folder / name)


def _lines(path: Path) -> list[list[str]]:
    try:
        with open_text(path) as file:
            return [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(Fault("--data", str(path), f"{error}; it holds which alarms are true")) from None
