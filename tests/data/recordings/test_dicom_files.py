"""DICOM waveforms: values of pydicom's own scaling, groups, padding, faults named."""

import datetime

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from jaxbio.data.recordings import Refused, list_recordings, parse_source

NAMES = {"i": ("I",), "ii": ("II",)}


def code(value, meaning):
    item = Dataset()
    item.CodeValue, item.CodeMeaning, item.CodingSchemeDesignator = value, meaning, "MDC"
    return item


def group(raw_TC, originality="ORIGINAL"):
    item = Dataset()
    item.WaveformOriginality, item.SamplingFrequency = originality, 500
    item.NumberOfWaveformSamples, item.NumberOfWaveformChannels = raw_TC.shape
    item.WaveformBitsAllocated, item.WaveformSampleInterpretation = 16, "SS"
    item.WaveformData = raw_TC.astype("<i2").tobytes()
    item.ChannelDefinitionSequence = []
    for number, lead in enumerate(("Lead I (Einthoven)", "Lead II")):
        channel = Dataset()
        channel.ChannelSourceSequence = [code(f"2:{number + 1}", lead)]
        channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = "4.88", "1.5"
        channel.ChannelBaseline, channel.WaveformBitsStored = str(number * 10), 16
        channel.ChannelSensitivityUnitsSequence = [code("uV", "microvolt")]
        item.ChannelDefinitionSequence.append(channel)
    return item


def write_dicom(path, groups, syntax=ExplicitVRLittleEndian):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "1.2.3", syntax
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    file.AcquisitionDateTime = "20200102030405.5"
    file.WaveformSequence = groups
    file.save_as(path)


def entries(path):
    return list_recordings(parse_source(f"dicom:{path}"), NAMES)


def raw(samples, seed=0):
    return np.random.default_rng(seed).integers(-3000, 3000, (samples, 2))


def test_values_are_the_librarys_and_derived_groups_are_none(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, [group(raw(5000)), group(raw(600), "DERIVED")])
    (entry,) = entries(path)
    assert (entry.recording, entry.duration_s, entry.signals) == ("a", 10.0, ("Lead I (Einthoven)", "Lead II"))
    began = datetime.datetime(2020, 1, 2, 3, 4, 5, 500_000, tzinfo=datetime.UTC)
    assert (entry.start_time, entry.channels["ii"].unit) == (began.timestamp(), "mV")
    expected = pydicom.dcmread(path).waveform_array(0)[500:4500].T * 1e-3
    read = entry.read(1.0, 9.0, ["i", "ii"])
    assert np.abs(np.stack([read["i"], read["ii"]]) - expected).max() < 4.88 * 1.5e-3 / 2 / 100


def test_padding_is_missing_and_groups_are_recordings(tmp_path):
    path, padded = tmp_path / "a.dcm", group(raw(5000))
    padded.WaveformData = b"\0\x80" * 1000 + padded.WaveformData[2000:]
    padded.add_new("WaveformPaddingValue", "OW", b"\0\x80")
    write_dicom(path, [padded, group(raw(5000, 1))])
    first, second = entries(path)
    assert (first.recording, second.recording) == ("a/1", "a/2")
    assert np.isnan(first.read(0.0, 10.0, ["i"])["i"]).sum() == 500
    assert np.isfinite(second.read(0.0, 10.0, ["i"])["i"]).all()


def test_claims_beyond_the_data_foreign_and_deflated_files_are_refused_by_name(tmp_path):
    path, claims = tmp_path / "a.dcm", group(raw(5000))
    claims.NumberOfWaveformSamples = 2**31
    for reason, groups, syntax, keep in (
        ("truncated_file", [claims], ExplicitVRLittleEndian, None),
        ("unreadable_file", [group(raw(5000))], DeflatedExplicitVRLittleEndian, None),
        ("not_a_recording", [], ExplicitVRLittleEndian, None),
        ("not_a_recording", [group(raw(5000))], ExplicitVRLittleEndian, 100),
        ("empty_file", [group(raw(5000))], ExplicitVRLittleEndian, 0),
    ):
        write_dicom(path, groups, syntax)
        path.write_bytes(path.read_bytes()[:keep])
        (entry,) = entries(path)
        assert isinstance(entry, Refused)
        assert (entry.reason, str(path) in entry.detail) == (reason, True)


@pytest.mark.parametrize("kept", [300, 2000, 15_000])
def test_cut_files_are_refused(tmp_path, kept):
    path = tmp_path / "a.dcm"
    write_dicom(path, [group(raw(5000))])
    path.write_bytes(path.read_bytes()[:kept])
    (entry,) = entries(path)
    assert isinstance(entry, Refused)
