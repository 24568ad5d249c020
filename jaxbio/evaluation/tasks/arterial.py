"""Data sets with an arterial line beside PPG and ECG: BIDMC, CinC 2015, Kachuee's set (UCI) and PulseDB in folders.

Kachuee et al. (IEEE TBME 64:859, 2017): `Part_1.mat` ... hold a cell array of matrices, rows PPG, ABP (mmHg) and ECG,
at 125 Hz; whose they are is not published. PulseDB (Wang et al., Front Digit Health 4:1090854, 2023): `p000160.mat`
holds the array of structures `Subj_Wins`, windows of 10 s at 125 Hz, of one subject.

    layouts = arterial_layouts(label_of_the_line)
"""

from functools import lru_cache

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.recordings import Recording, RecordingError, Source
from jaxbio.data.recordings.hdf5 import leaves_of
from jaxbio.evaluation.tasks.alarm_files import CINC_2015
from jaxbio.evaluation.tasks.bidmc import bidmc
from jaxbio.evaluation.tasks.task import UNKNOWN, Label, Layout, has
from jaxbio.signals.segments import Measured

_LINE = ("abp",)  # which labels are made of
_WINDOWS, _WINDOW_S = "Subj_Wins", 10.0
_UCI_FILES, _PULSEDB_FILES = "[Pp]art_[0-9]*.mat", f"p{'[0-9]' * 6}.mat"


def arterial_layouts(label: Label, *, of_pulsedb: Label | None = None) -> tuple[Layout, ...]:
    """Return the layouts of the four data sets with a label that is made of the arterial line; PulseDB's, which has
    labels of its own, with that of `of_pulsedb` where it is given.
    """
    return (
        bidmc(label, reads=_LINE),
        Layout("CinC 2015", "ALARMS and WFDB records with ABP", label, has(CINC_2015), source="wfdb:{}", reads=_LINE),
        Layout(
            "UCI",
            "Part_1.mat and its like, a cell array of matrices with the rows PPG, ABP, ECG",
            label,
            has(_UCI_FILES),
            source=f"mat:{{}}?glob={_UCI_FILES}&each=*/*&columns=ppg:1,abp:2,ecg:3&rate_hz=125"
            "&assume_unit=abp:mmHg,ecg:mV",
            reads=_LINE,
        ),
        Layout(
            "PulseDB",
            f"p000160.mat and its like, with {_WINDOWS} of PPG_Raw, ECG_Raw, ABP_Raw, SegSBP and SegDBP",
            of_pulsedb or label,
            has(_PULSEDB_FILES),
            source=f"mat:{{}}?glob={_PULSEDB_FILES}&each={_WINDOWS}/*&columns=ppg:PPG_Raw,ecg:ECG_Raw,abp:ABP_Raw"
            "&rate_hz=125&assume_unit=abp:mmHg,ecg:mV",
            reads=_LINE,
            longest_s=_WINDOW_S,
        ),
    )


def pulsedb_pressures(
    recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured
) -> np.ndarray:
    """Return what PulseDB says of a window, (systolic, diastolic) in mmHg, for each part of it."""
    file, _, window = recording.recording.rpartition(f"/{_WINDOWS}/")
    number_of = _read_numbers(f"{source.folder}/{file}.mat")
    said = [number_of.get(f"{_WINDOWS}/{window}/{name}", UNKNOWN) for name in ("SegSBP", "SegDBP")]
    return np.tile(said, (len(start_B), 1))


@lru_cache(maxsize=2)
def _read_numbers(path: str) -> dict[str, float]:
    """Return the numbers of a file by path; raises UserError where it has no pressures."""
    try:
        leaves = leaves_of(path, matlab=True)
    except RecordingError as error:
        raise UserError(Fault("--data", path, f"{error.detail}; it holds the pressures")) from None
    numbers = {name: leaf.number for name, leaf in leaves.items() if leaf.number is not None}
    if not any(name.endswith("/SegSBP") for name in numbers):
        raise UserError(Fault("--data", path, f"{_WINDOWS} has no SegSBP and SegDBP, which are the labels"))
    return numbers
