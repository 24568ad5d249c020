"""rhythm: six rhythms from ten seconds of finger PPG, as cardiologists read them from the ECG beside it.

`patient_*.npz` holds `ppg` (segments, samples), `rhythm` (segments,), and `rate_hz`: one patient a file; segments
do not join into longer ones. Rhythms are sinus, premature ventricular (PVC) and atrial (PAC) contractions,
ventricular (VT) and supraventricular (SVT) tachycardia, and atrial fibrillation (AF).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.given_arrays import read_arrays
from jaxbio.data.recordings import Recording, Source
from jaxbio.data.recordings.recording import Channel, Refused, sample_span
from jaxbio.evaluation.class_measures import SEVERAL_CLASSES
from jaxbio.evaluation.tasks.task import Layout, Task, has, named
from jaxbio.signals.segments import Measured

CLASSES = ("sinus", "PVC", "PAC", "VT", "SVT", "AF")
_FILES = "patient_*.npz"


@lru_cache(maxsize=4)
def _read(path: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (segments, samples), rhythms and rate in Hz; raises UserError for a file that lacks them."""
    arrays = read_arrays(path, missing="copy the folder again")
    ppg, rhythm = arrays.get("ppg", np.zeros(0)), arrays.get("rhythm", np.zeros(0))
    if ppg.ndim != 2 or rhythm.shape != ppg.shape[:1] or "rate_hz" not in arrays or rhythm.max() >= len(CLASSES):
        raise UserError(Fault("--data", path, "expected ppg (segments, samples), rhythm (segments,) and rate_hz"))
    return ppg, rhythm, float(arrays["rate_hz"])


@dataclass(frozen=True)
class SegmentsReader:
    """Reads a patient's segments, one behind the other."""

    path: str

    def read(self, channels: Mapping[str, Channel], start_s: float, stop_s: float) -> dict[str, np.ndarray]:
        """Return the samples of `channels` (by role), as Recording.read does."""
        ppg, _, _ = _read(self.path)
        spans = {role: sample_span(channel, start_s, stop_s) for role, channel in channels.items()}
        flat = ppg.reshape(-1)
        return {
            role: flat[first:last].astype(np.float32) if role == "ppg" else np.full(last - first, np.nan, np.float32)
            for role, (first, last) in spans.items()
        }


def _list(source: Source) -> list[Recording | Refused]:
    return [_recording(source, path) for path in sorted(Path(source.folder).rglob(_FILES))]


def _recording(source: Source, path: Path) -> Recording:
    ppg, _, rate_hz = _read(str(path))
    own = Channel("ppg", "NU", rate_hz)
    # the other roles that an encoder may want are missing throughout
    channels = {role: own for role in ("ppg", "ecg")}
    name, reader = path.relative_to(source.folder).with_suffix("").as_posix(), SegmentsReader(str(path))
    return Recording(source.name, name, True, name, ppg.size / rate_hz, None, channels, reader)


def _label(recording: Recording, source: Source, start_B: np.ndarray, segment_s: float, measured: Measured):
    ppg, rhythm, rate_hz = _read(str(Path(source.folder) / f"{recording.recording}.npz"))
    piece_s = ppg.shape[1] / rate_hz
    first_B, last_B = (start_B / piece_s + 1e-6).astype(int), ((start_B + segment_s) / piece_s - 1e-6).astype(int)
    return np.where(first_B == last_B, rhythm[np.minimum(first_B, len(rhythm) - 1)].astype(float), np.nan)


RHYTHM = Task(
    "the rhythm of a pulse",
    "",
    named(*SEVERAL_CLASSES),
    (
        Layout(
            "ppg_rhythm",
            "patient_*.npz with ppg, rhythm and rate_hz",
            _label,
            has(_FILES),
            source="numpy:{}",
            longest_s=10.0,
            list_recordings=_list,
        ),
    ),
    classes=CLASSES,
    labels_are="cardiologists' readings of the ECG beside the pulse; segments of bad quality had been left out",
    published="Liu et al. 2022: trained from scratch on the same patients' other segments in part; here: whole "
    "patients left out",
)
