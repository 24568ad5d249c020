"""DICOM waveforms (.dcm): ECG as PS3.3, A.34, has it, read by pydicom.

Each multiplex group that was recorded is a recording; derived ones (median beats) are none. Whose it is, is taken from
paths as in every format, not from the patient's name or number.

    dicom:ecgs
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from jaxbio.data.recordings.folders import list_each
from jaxbio.data.recordings.optional import need
from jaxbio.data.recordings.recording import Recording, RecordingError, Refused
from jaxbio.data.recordings.regular_files import check_written, open_regular, size_of
from jaxbio.data.recordings.short_ecgs import Ecg, ShortReader, recordings_of
from jaxbio.data.recordings.source import Source

_SUFFIXES = (".dcm", ".dicom")
_DEFLATED = "1.2.840.10008.1.2.1.99"  # a transfer syntax that pydicom unpacks to any length


def list_files(source: Source, channel_names: Mapping[str, Sequence[str]]) -> Iterator[Recording | Refused]:
    """Yield the waveforms of the DICOM files below the source's path."""
    need("pydicom")
    return list_each(source, _SUFFIXES, lambda path: recordings_of(source, path, DicomReader, channel_names, _SUFFIXES))


def load(path: str) -> list[Ecg]:
    """Return the groups of a file that were recorded; raises RecordingError for a damaged one."""
    pydicom = need("pydicom")
    with open_regular(path) as file:
        if size_of(file) == 0:
            raise RecordingError("empty_file", path, "no bytes")
        check_written(file, path)
        if file.read(132)[128:] != b"DICM":
            raise RecordingError("not_a_recording", path, "does not begin as DICOM does")
        file.seek(0)
        if pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") == _DEFLATED:
            raise RecordingError("unreadable_file", path, "is deflated: write it as Explicit VR Little Endian")
        content = pydicom.dcmread(file)
    groups = content.get("WaveformSequence", [])
    start_time = _posix(str(content.get("AcquisitionDateTime", "") or ""))
    return [
        _ecg(content, number, group, start_time, path)
        for number, group in enumerate(groups)
        if group.get("WaveformOriginality", "ORIGINAL") != "DERIVED"
    ]


class DicomReader(ShortReader):
    """Reads the groups of one file."""

    load = staticmethod(load)


def _ecg(content: Any, number: int, group: Any, start_time: float | None, path: str) -> Ecg:
    multiplex_array = need("pydicom.waveforms").multiplex_array
    definitions = group.ChannelDefinitionSequence
    claimed = int(group.NumberOfWaveformSamples) * int(group.NumberOfWaveformChannels)
    held = len(group.WaveformData) * 8 // int(group.WaveformBitsAllocated)
    if claimed > held or len(definitions) != int(group.NumberOfWaveformChannels):
        raise RecordingError("truncated_file", path, f"states {claimed:,} samples, holds {held:,}")
    x_TC = multiplex_array(content, number, as_raw=False)
    if "WaveformPaddingValue" in group:
        raw_TC = multiplex_array(content, number, as_raw=True)
        missing = group["WaveformPaddingValue"].value
        if isinstance(missing, bytes):
            missing = np.frombuffer(missing, raw_TC.dtype)[0]
        x_TC[raw_TC == missing] = np.nan
    names = tuple(_code(channel, "ChannelSourceSequence", "CodeMeaning") for channel in definitions)
    units = tuple(_code(channel, "ChannelSensitivityUnitsSequence", "CodeValue") for channel in definitions)
    return Ecg(names, units, np.ascontiguousarray(x_TC.T), float(group.SamplingFrequency), start_time)


def _code(channel: Any, sequence: str, part: str) -> str:
    """Return a part of a code; of one without, the channel's label."""
    codes = channel.get(sequence) or []
    return str(codes[0].get(part, "") if codes else channel.get("ChannelLabel", "") if part == "CodeMeaning" else "")


def _posix(stamp: str) -> float | None:
    """Return YYYYMMDDHHMMSS.FFFFFF&ZZXX (the recorder's clock, where no zone is stated, as UTC) in POSIX seconds."""
    text, shape = stamp.strip(), "%Y%m%d%H%M%S"
    shape += ".%f" if "." in text else ""
    shape += "%z" if "+" in text or "-" in text else ""
    try:
        made = datetime.strptime(text, shape)
    except ValueError:
        return None
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
