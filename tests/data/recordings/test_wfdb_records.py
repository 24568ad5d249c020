"""WFDB records: every format against what was written, layouts, rates, skew, and what is refused."""

import pickle

import numpy as np
import pytest
import wfdb
from small_files import NAMES, physical, write_frames, write_record

from jaxbio.config import fields
from jaxbio.data.recordings import Recording, RecordingError, Refused, Source, list_recordings, parse_source

FORMATS = ["8", "16", "24", "32", "61", "80", "160", "212", "310", "311"]


def listed(folder, **options):
    return list_recordings(Source("wfdb", str(folder)), NAMES, **options)


def one(folder, **options):
    (entry,) = listed(folder, **options)
    return entry


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_reads_what_was_written_whole_and_in_spans(tmp_path, fmt):
    digital = write_record(tmp_path, fmt=fmt)
    recording = one(tmp_path)
    whole = recording.read(0.0, 60.0, ["ecg", "ppg"])
    np.testing.assert_allclose(whole["ecg"], physical(digital, 0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(whole["ppg"], physical(digital, 1), rtol=1e-6, atol=1e-6)
    assert whole["ecg"].dtype == np.float32
    span = recording.read(7.0, 19.0, ["ppg"])
    assert list(span) == ["ppg"]
    np.testing.assert_array_equal(span["ppg"], whole["ppg"][7 * 125 : 19 * 125])


def test_flac_record_reads_what_was_written(tmp_path):
    digital = write_record(tmp_path, fmt="516")
    np.testing.assert_allclose(
        one(tmp_path).read(10.0, 20.0, ["ecg"])["ecg"], physical(digital, 0)[1250:2500], rtol=1e-6
    )


def test_missing_samples_are_nan(tmp_path):
    ecg = np.arange(500)
    ecg[100:200] = -32768
    write_frames(tmp_path, "r", ["r.dat 16 200/mV 16 0 0 0 0 II"], [ecg])
    signal = one(tmp_path).read(0.0, 4.0, ["ecg"])["ecg"]
    assert np.isnan(signal[100:200]).all()
    assert np.isnan(signal).sum() == 100


def test_units_are_read_in_those_of_the_role(tmp_path):
    lines = ["r.dat 16 100/uV 16 0 0 0 0 II", "r.dat 16 10(-5)/kPa 16 0 0 0 0 ABP", "r.dat 16 0 16 7 0 0 0 PLETH"]
    write_frames(tmp_path, "r", lines, [np.full(250, 1000), np.full(250, 95), np.full(250, 207)])
    recording = one(tmp_path)
    signals = recording.read(0.0, 2.0, ["ecg", "abp", "ppg"])
    assert {role: channel.unit for role, channel in recording.channels.items()} == {
        "ecg": "mV",
        "abp": "mmHg",
        "ppg": "NU",
    }
    assert signals["ecg"][0] == pytest.approx(0.01)
    assert signals["abp"][0] == pytest.approx(75.00617)
    assert signals["ppg"][0] == pytest.approx(1.0)  # gain 0 means 200; the baseline is the ADC's zero


def test_each_signal_is_read_at_its_own_rate_and_skew(tmp_path):
    fast, slow = np.arange(4000).reshape(1000, 4), np.arange(1000)
    lines = ["r.dat 16x4 1/mV 16 0 0 0 0 II", "r.dat 16:5 1/NU 16 0 0 0 0 PLETH"]
    write_frames(tmp_path, "r", lines, [fast, slow])
    recording = one(tmp_path)
    assert recording.channels["ecg"].rate_hz == 500.0
    assert recording.channels["ppg"].rate_hz == 125.0
    signals = recording.read(2.002, 8.0, ["ecg", "ppg"])
    np.testing.assert_array_equal(signals["ecg"], np.arange(1001, 4000))
    expected = np.arange(250.0, 1000.0) + 5
    expected[-5:] = np.nan  # the file ends before the skewed signal does
    np.testing.assert_array_equal(signals["ppg"], expected)


def test_fixed_layout_joins_its_segments_and_hides_them(tmp_path):
    first = write_record(tmp_path, "a_1", seconds=20.0)
    second = write_record(tmp_path, "a_2", seconds=40.0, seed=1)
    (tmp_path / "a.hea").write_text("a/2 2 125 7500 08:00:00 01/02/2020\na_1 2500\na_2 5000\n")
    recording = one(tmp_path)
    assert (recording.recording, recording.duration_s, recording.start_time) == ("a", 60.0, 1580544000.0)
    joined = physical(np.concatenate([first, second]), 0)
    np.testing.assert_allclose(recording.read(0.0, 60.0, ["ecg"])["ecg"], joined, rtol=1e-6)
    np.testing.assert_allclose(recording.read(19.0, 21.0, ["ecg"])["ecg"], joined[2375:2625], rtol=1e-6)


def test_variable_layout_has_nan_where_a_segment_lacks_the_signal_or_is_a_gap(tmp_path):
    both = write_record(tmp_path, "m_1", seconds=20.0)
    ecg = write_record(tmp_path, "m_2", names=("II",), units=("mV",), seconds=20.0, seed=2)
    (tmp_path / "m_layout.hea").write_text("m_layout 2 125 0\n~ 0 1/NU 0 0 0 0 0 PLETH\n~ 0 1/mV 0 0 0 0 0 II\n")
    (tmp_path / "m.hea").write_text("m/4 2 125 6250\nm_layout 0\nm_1 2500\n~ 1250\nm_2 2500\n")
    recording = one(tmp_path)
    signals = recording.read(0.0, 50.0, ["ecg", "ppg"])
    np.testing.assert_allclose(signals["ppg"][:2500], physical(both, 1), rtol=1e-6)
    assert np.isnan(signals["ppg"][2500:]).all()
    assert np.isnan(signals["ecg"][2500:3750]).all()
    np.testing.assert_allclose(signals["ecg"][3750:], physical(ecg, 0), rtol=1e-6)


def test_names_and_units_in_other_encodings_are_text(tmp_path):
    write_record(tmp_path)
    header = (tmp_path / "r1.hea").read_bytes().replace(b"/mV", b"/\xb5V").replace(b" PLETH", b" PLETH (gr\xfcn)")
    (tmp_path / "r1.hea").write_bytes(header)
    entry = one(tmp_path, required=("ppg",))
    assert entry.channels["ppg"].name.encode("utf-8") == b"PLETH (gr\\xfcn)"
    assert "xb5V" in entry.faults["ecg"][1]


def test_recordings_pickle_and_read_the_same(tmp_path):
    write_record(tmp_path)
    recording = one(tmp_path)
    again = pickle.loads(pickle.dumps(recording))
    np.testing.assert_array_equal(again.read(3.0, 9.0, ["ecg"])["ecg"], recording.read(3.0, 9.0, ["ecg"])["ecg"])
    error = pickle.loads(pickle.dumps(RecordingError("bad_rate", "f", "d")))
    assert (error.reason, error.file, error.detail) == ("bad_rate", "f", "d")


def test_a_record_is_named_by_header_data_or_stem(tmp_path):
    write_record(tmp_path, "r1")
    for path in ("r1.hea", "r1.dat"):
        assert one(tmp_path / path).recording == "r1"


def test_span_outside_the_recording_is_a_value_error(tmp_path):
    write_record(tmp_path)
    with pytest.raises(ValueError, match="outside"):
        one(tmp_path).read(50.0, 61.0, ["ecg"])


GOOD = "r.dat 16 200/mV 16 0 0 0 0 II"
BAD_HEADERS = {
    "no header at all": ("", "empty_file"),
    "comments only": ("# nothing\n", "empty_file"),
    "no record line": ("hello\n", "bad_header"),
    "fewer lines than announced": (f"r 2 125 1000\n{GOOD}\n", "bad_header"),
    "no signals": ("r 0 125 1000\n", "not_a_recording"),
    "signal line garbled": ("r 1 125 1000\nr.dat sixteen\n", "bad_header"),
    "rate 0": (f"r 1 0 1000\n{GOOD}\n", "bad_rate"),
    "rate negative": (f"r 1 -125 1000\n{GOOD}\n", "bad_rate"),
    "rate absurd": (f"r 1 125e9 1000\n{GOOD}\n", "bad_rate"),
    "rate of numerics": (f"r 1 1 1000\n{GOOD}\n", "bad_rate"),
    "longer than its data": (f"r 1 125 2000\n{GOOD}\n", "truncated_file"),
    "length absurd": (f"r 1 125 {'9' * 30}\n{GOOD}\n", "bad_header"),
    "data file not there": ("r 1 125 1000\nother.dat 16 200/mV 16 0 0 0 0 II\n", "missing_file"),
    "data file outside": ("r 1 125 1000\n../r.dat 16 200/mV 16 0 0 0 0 II\n", "outside_source"),
    "data file absolute": ("r 1 125 1000\n/etc/passwd 16 200/mV 16 0 0 0 0 II\n", "outside_source"),
    "unknown format": ("r 1 125 1000\nr.dat 99 200/mV 16 0 0 0 0 II\n", "bad_header"),
    "unknown unit": ("r 1 125 1000\nr.dat 16 200/furlong 16 0 0 0 0 II\n", "unknown_unit"),
    "pressure in an ECG": ("r 1 125 1000\nr.dat 16 200/mmHg 16 0 0 0 0 II\n", "unknown_unit"),
    "no known channel": ("r 1 125 1000\nr.dat 16 200/mV 16 0 0 0 0 RESP\n", "missing_channel"),
    "0 samples a frame": ("r 1 125 1000\nr.dat 16x0 200/mV 16 0 0 0 0 II\n", "bad_header"),
    "segments of another length": ("r/1 1 125 999\ns 1000\n", "bad_header"),
    "segment outside": ("r/1 1 125 1000\n../s 1000\n", "outside_source"),
    "segment missing": ("r/1 1 125 1000\ns 1000\n", "missing_file"),
    "its own segment": ("r/1 1 125 1000\nr 1000\n", "bad_header"),
    "gaps only": ("r/1 1 125 1000\n~ 1000\n", "not_a_recording"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_headers_are_refused_with_a_reason_and_the_file(tmp_path, case):
    text, reason = BAD_HEADERS[case]
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "r.hea").write_text(text)
    np.zeros(1000, "<i2").tofile(folder / "r.dat")
    np.zeros(1000, "<i2").tofile(tmp_path / "r.dat")
    (entry,) = listed(folder)
    assert isinstance(entry, Refused)
    assert entry.reason == reason
    assert str(folder) in entry.detail or entry.recording in entry.detail


def test_data_that_shrank_after_listing_is_a_recording_error(tmp_path):
    write_record(tmp_path)
    recording = one(tmp_path)
    data = tmp_path / "r1.dat"
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(RecordingError) as caught:
        recording.read(0.0, 60.0, ["ecg"])
    assert caught.value.reason == "truncated_file"
    assert "r1.dat" in str(caught.value)
    data.write_bytes(b"")
    with pytest.raises(RecordingError, match="no bytes"):
        recording.read(0.0, 60.0, ["ecg"])
    data.unlink()
    with pytest.raises(RecordingError, match="not there"):
        recording.read(0.0, 60.0, ["ecg"])


def test_missing_roles_and_short_recordings_are_refused_with_their_seconds(tmp_path):
    write_record(tmp_path, names=("II",), units=("mV",), seconds=20.0)
    entry = one(tmp_path, required=("ppg", "ecg"))
    assert (entry.reason, entry.duration_s) == ("missing_channel", 20.0)
    entry = one(tmp_path, required=("ecg",), min_duration_s=30.0)
    assert (entry.reason, entry.duration_s) == ("too_short", 20.0)


def test_a_role_that_is_not_required_is_absent_where_it_cannot_be_used(tmp_path):
    write_record(tmp_path, names=("II", "PLETH", "ABP"), units=("mV", "NU", "furlong"))
    entry = one(tmp_path, required=("ppg", "ecg"))
    assert set(entry.channels) == {"ppg", "ecg"}
    entry = one(tmp_path, required=("ppg", "abp"))
    assert (entry.reason, entry.duration_s) == ("unknown_unit", 60.0)


def test_refused_records_count_the_seconds_that_their_header_states(tmp_path):
    write_record(tmp_path)
    (tmp_path / "r1.dat").write_bytes(b"\0" * 100)
    entry = one(tmp_path)
    assert (entry.reason, entry.duration_s) == ("truncated_file", 60.0)


def test_real_records_equal_the_wfdb_library(data_dir):
    """Every WFDB folder: the same samples as wfdb's own reader, at each signal's own rate."""
    names = {role: tuple(names) for role, names in fields.defaults().prepare.channel_names.items()}
    counts = {}
    for folder in ("cinc2015_vt", "cinc2017", "cinc2021_12lead", "cpsc2021_af", "ptbxl_sample", "wfdb_samples"):
        source = parse_source(f"wfdb:{data_dir / folder}")
        entries = [entry for entry in list_recordings(source, names) if isinstance(entry, Recording)]
        counts[folder] = len(entries)
        for entry in entries[:: max(1, len(entries) // 6)]:
            stop_s = min(entry.duration_s, 20.0)
            ours = entry.read(0.0, stop_s, list(entry.channels))
            path = str(data_dir / folder / entry.recording)
            theirs = wfdb.rdrecord(path, smooth_frames=False, sampto=round(stop_s * entry.reader.frames_hz))
            for role, channel in entry.channels.items():
                expected = theirs.e_p_signal[theirs.sig_name.index(channel.name)]
                np.testing.assert_allclose(ours[role], expected[: len(ours[role])], rtol=2e-6, atol=1e-6)
    assert counts == {
        "cinc2015_vt": 169,
        "cinc2017": 200,
        "cinc2021_12lead": 42,
        "cpsc2021_af": 12,
        "ptbxl_sample": 52,
        "wfdb_samples": 5,
    }
