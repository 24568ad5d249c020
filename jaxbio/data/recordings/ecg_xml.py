"""ECGs in XML (.xml): HL7's annotated ECG (aECG), and what GE's MUSE exports.

Of an aECG each sequence set of a series is a recording, of MUSE each waveform of type Rhythm. MUSE stores eight leads;
`prepare.missing_channel=derive` makes the other four.

    xml:muse_exports
"""

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from xml.etree.ElementTree import Element

import numpy as np

from jaxbio.data.recordings.folders import list_each
from jaxbio.data.recordings.recording import Recording, RecordingError, Refused
from jaxbio.data.recordings.short_ecgs import Ecg, ShortReader, recordings_of
from jaxbio.data.recordings.source import Source
from jaxbio.data.recordings.xml_tree import read_tree

_SUFFIXES = (".xml",)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the ECGs of the XML files below the source's path."""
    return list_each(
        source, _SUFFIXES, lambda path: recordings_of(source, path, EcgXmlReader, channel_names, _SUFFIXES)
    )


def load(path: str) -> list[Ecg]:
    """Return the ECGs of a file; raises RecordingError where it is neither aECG nor MUSE, or damaged."""
    root = read_tree(path)
    if root.tag == "AnnotatedECG":
        return [
            _aecg(series, found, path)
            for series in root.iterfind("component/series")
            for found in series.iterfind("component/sequenceSet")
        ]
    if root.tag == "RestingECG":
        start_time = _muse_start(root)
        waves = [wave for wave in root.iterfind("Waveform") if _text(wave, "WaveformType").casefold() == "rhythm"]
        return [_muse(wave, start_time, path) for wave in waves]
    raise RecordingError("not_a_recording", path, f"is XML of {root.tag[:40]!r}, neither AnnotatedECG nor RestingECG")


class EcgXmlReader(ShortReader):
    """Reads the ECGs of one file."""

    load = staticmethod(load)


def _aecg(series: Element, found: Element, path: str) -> Ecg:
    """Return a sequence set: one sequence of times, and one a lead, value = origin + scale * digit."""
    rate_hz, signals = 0.0, []
    for sequence in found.iterfind("component/sequence"):
        code, value = _attribute(sequence, "code", "code"), sequence.find("value")
        if value is None:
            continue
        if code in ("TIME_ABSOLUTE", "TIME_RELATIVE"):
            step_s = float(_attribute(value, "increment", "value") or 0)
            step_s *= _SECONDS[_attribute(value, "increment", "unit") or "s"]
            rate_hz = 1.0 / step_s if step_s > 0.0 else 0.0
        elif (digits := value.findtext("digits")) is not None:
            unit = _attribute(value, "scale", "unit")
            if _attribute(value, "origin", "unit") not in ("", unit):
                raise RecordingError("bad_header", path, f"{code} has its origin in another unit than its scale")
            scale = float(_attribute(value, "scale", "value") or 1)
            origin = float(_attribute(value, "origin", "value") or 0)
            signals.append((code, unit, np.array(digits.split(), np.float64) * scale + origin))
    start = _attribute(series, "effectiveTime/low", "value") or _attribute(series, "effectiveTime/center", "value")
    return _joined(signals, rate_hz, _posix(start[:14], "%Y%m%d%H%M%S"), path)


def _muse(wave: Element, start_time: float | None, path: str) -> Ecg:
    """Return a waveform: 16-bit integers in base64 a lead, in steps of `LeadAmplitudeUnitsPerBit`."""
    rate_hz = float(_text(wave, "SampleBase")) * 10.0 ** float(_text(wave, "SampleExponent") or 0)
    signals = []
    for lead in wave.iterfind("LeadData"):
        content = base64.b64decode(_text(lead, "WaveFormData"))
        digital_N = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
        stated = int(_text(lead, "LeadSampleCountTotal") or digital_N.size)
        name = _text(lead, "LeadID")
        if stated > digital_N.size:
            raise RecordingError(
                "truncated_file", path, f"lead {name} states {stated:,} samples, has {digital_N.size:,}"
            )
        value_N = digital_N[:stated] * float(_text(lead, "LeadAmplitudeUnitsPerBit") or 1)
        signals.append((name, _text(lead, "LeadAmplitudeUnits").casefold(), value_N))
    return _joined(signals, rate_hz, start_time, path)


def _joined(signals: list[tuple[str, str, np.ndarray]], rate_hz: float, start_time: float | None, path: str) -> Ecg:
    lengths = {value_N.size for _, _, value_N in signals}
    if len(lengths) != 1 or not math.isfinite(rate_hz):
        raise RecordingError("bad_header", path, f"leads of {sorted(lengths)} samples at {rate_hz:g} Hz")
    names, units, values = zip(*signals)
    return Ecg(names, units, np.stack(values), rate_hz, start_time)


def _muse_start(root: Element) -> float | None:
    date, time = (_text(root, f"TestDemographics/Acquisition{part}") for part in ("Date", "Time"))
    return _posix(f"{date} {time}", "%m-%d-%Y %H:%M:%S")


def _posix(stamp: str, shape: str) -> float | None:
    """Return the recorder's clock, taken as UTC, in POSIX seconds; None for no date."""
    try:
        return datetime.strptime(stamp, shape).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _attribute(element: Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()
