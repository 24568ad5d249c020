"""heart_rate, respiratory_rate, spo2: what the monitor showed beside the signals."""

from jaxbio.evaluation.number_measures import NUMBERS
from jaxbio.evaluation.tasks.bidmc import bidmc, monitor_label
from jaxbio.evaluation.tasks.task import Task, named
from jaxbio.signals.segments import RATE_COLUMNS

_MONITOR = "medians of what the monitor showed, its own errors included"
_OURS = "here: a linear probe on frozen features, whole patients left out"

HEART_RATE = Task(
    "the monitor's heart rate",
    "beats/min",
    named(*NUMBERS),
    (bidmc(monitor_label("HR")),),
    labels=(RATE_COLUMNS["ecg"], RATE_COLUMNS["ppg"]),
    labels_are=_MONITOR,
    published=f"from detected beats, errors over windows of all patients together; {_OURS}",
)
RESPIRATORY_RATE = Task(
    "the monitor's respiratory rate",
    "breaths/min",
    named(*NUMBERS),
    (bidmc(monitor_label("RESP")),),
    labels_are=f"{_MONITOR}: impedance, which is worse than the breaths that annotators marked",
    published=f"Pimentel et al. 2017 against annotated breaths, windows of 32 or 64 s, nothing fitted; {_OURS}",
)
SPO2 = Task(
    "the monitor's oxygen saturation",
    "%",
    named(*NUMBERS),
    (bidmc(monitor_label("SpO2")),),
    labels_are=f"{_MONITOR}: a ratio of two wavelengths, of which the recordings hold one, so little can be told",
    published=f"none known from a single wavelength; {_OURS}",
)
