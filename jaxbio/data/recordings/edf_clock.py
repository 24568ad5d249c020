"""When the records of an EDF+ or BDF+ file were made: its first annotation signal begins each record with that.

A time-keeping annotation (TAL) is `+567.25` and the bytes 20, 20, 0: seconds since the start that the header states.
"""

import re
from typing import BinaryIO, NamedTuple

from jaxbio.data.recordings.edf_header import Header, Signal
from jaxbio.data.recordings.recording import RecordingError

_ONSET = re.compile(rb"([+-]\d{1,12}(?:\.\d{0,12})?)(?:\x15[\d.]*)?\x14")


class Run(NamedTuple):
    """Records that follow each other without a gap: when the first began (s), its number, and how many they are."""

    start_s: float
    first: int
    records: int


def find_runs(file: BinaryIO, header: Header, path: str) -> tuple[Run, ...]:
    """Return the runs of records, in the order of time.

    Raises RecordingError `bad_time` for a discontinuous file whose records do not say when they began, or overlap.
    """
    keeping = next((signal for signal in header.signals if signal.is_annotation and signal.samples), None)
    if not header.discontinuous:
        first_s = _read_onset(file, header, keeping, 0) if keeping else None
        # The header states a start to the second; EDF+ says here what is beyond it.
        return (Run(first_s if first_s is not None and 0.0 <= first_s < 1.0 else 0.0, 0, header.records),)
    if keeping is None:
        raise RecordingError("bad_time", path, "is discontinuous, and no annotation says when its records began")
    fastest = max((signal.samples for signal in header.signals if not signal.is_annotation), default=0)
    tolerance_s = 0.5 * header.record_s / max(1, fastest)
    runs: list[Run] = []
    for number in range(header.records):
        onset_s = _read_onset(file, header, keeping, number)
        if onset_s is None:
            raise RecordingError("bad_time", path, f"record {number + 1} does not say when it began")
        late_s = onset_s - (runs[-1].start_s + runs[-1].records * header.record_s) if runs else 0.0
        if late_s < -tolerance_s:
            raise RecordingError("bad_time", path, f"record {number + 1} begins before the one before it ends")
        if runs and late_s <= tolerance_s:
            runs[-1] = runs[-1]._replace(records=runs[-1].records + 1)
        else:
            runs.append(Run(onset_s, number, 1))
    return tuple(runs)


def _read_onset(file: BinaryIO, header: Header, keeping: Signal, record: int) -> float | None:
    """Return when a record began, in s; None where it does not say so."""
    file.seek(header.nbytes + record * header.record_bytes + keeping.first * header.width)
    match = _ONSET.match(file.read(keeping.samples * header.width))
    return float(match[1]) if match else None
