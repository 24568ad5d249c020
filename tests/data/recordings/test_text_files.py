"""Text recordings: clocks, gaps, missing fields, names and units, and what is refused."""

import gzip

import numpy as np
import pytest
from small_files import NAMES, write_csv

from jaxbio.config.faults import UserError
from jaxbio.data.recordings import RecordingError, Refused, list_recordings, parse_source


def listed(folder, query, **options):
    return list_recordings(parse_source(f"csv:{folder}?{query}"), NAMES, **options)


def one(folder, query, **options):
    (entry,) = listed(folder, query, **options)
    return entry


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.txt", "a.tsv.gz"])
def test_rows_over_a_given_rate_are_read_with_blanks_and_case_ignored(tmp_path, name):
    ppg = np.round(np.sin(np.arange(1000) / 20), 4)
    write_csv(tmp_path / name, {"Time [s]": np.arange(1000) / 125, " pleth": ppg, " Ii": -ppg})
    recording = one(tmp_path, "rate_hz=125")
    assert (recording.recording, recording.duration_s) == ("a", 8.0)
    assert recording.channels["ppg"].name == "pleth"
    signals = recording.read(2.0, 4.0, ["ppg", "ecg"])
    np.testing.assert_allclose(signals["ppg"], ppg[250:500], atol=1e-6)
    np.testing.assert_allclose(signals["ecg"], -ppg[250:500], atol=1e-6)


def test_empty_fields_and_their_spellings_are_missing(tmp_path):
    cells = ["1", "", "nan", "NA", '""', "null", "2"] * 10
    write_csv(tmp_path / "a.csv", {"PPG": cells, "n": range(70)})
    ppg = one(tmp_path, "rate_hz=35").read(0.0, 2.0, ["ppg"])["ppg"]
    assert np.isnan(ppg).tolist() == [cell not in ("1", "2") for cell in cells]


def test_single_column_without_a_name_keeps_blank_lines_as_missing(tmp_path):
    (tmp_path / "a.csv").write_text("530\n\n518\n" + "506\r\n" * 97)
    recording = one(tmp_path, "rate_hz=100&columns=ppg:1")
    assert recording.duration_s == 1.0
    np.testing.assert_array_equal(recording.read(0.0, 0.04, ["ppg"])["ppg"], [530, np.nan, 518, 506])


@pytest.mark.parametrize("delimiter", [";", "\t", " "])
def test_other_delimiters(tmp_path, delimiter):
    lines = [delimiter.join(("t", "PPG"))] + [delimiter.join((str(n), str(n * 2))) for n in range(100)]
    (tmp_path / "a.txt").write_text("# made by hand\n\n" + "\n".join(lines))
    np.testing.assert_array_equal(one(tmp_path, "rate_hz=50").read(0.0, 0.1, ["ppg"])["ppg"], [0, 2, 4, 6, 8])


def test_byte_order_mark_and_quotes_are_not_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbf"PPG","II"\n' + b"1,2\n" * 50)
    assert set(one(tmp_path, "rate_hz=50").channels) == {"ppg", "ecg"}


def test_quoted_names_may_hold_the_delimiter_and_bytes_that_are_no_text_stay_visible(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'"ECG, lead II","PPG","\xb5V"\n' + b"1,2,3\n" * 50)
    recording = one(tmp_path, "rate_hz=50&columns=ecg:ECG%2C lead II,abp:%5Cxb5V")
    assert [channel.name for channel in recording.channels.values()] == ["PPG", "ECG, lead II", "\\xb5V"]
    assert recording.read(0.0, 1.0, ["ecg"])["ecg"][0] == 1


def test_units_in_column_names_are_used(tmp_path):
    write_csv(tmp_path / "a.csv", {"II [uV]": np.full(100, 500.0), "ABP (mmHg)": np.full(100, 80)})
    recording = one(tmp_path, "rate_hz=50")
    assert recording.channels["ecg"].unit == "mV"
    np.testing.assert_allclose(recording.read(0.0, 1.0, ["ecg"])["ecg"], 0.5)
    write_csv(tmp_path / "a.csv", {"II [furlong]": np.full(100, 500.0)})
    entry = one(tmp_path, "rate_hz=50")
    assert (entry.reason, entry.duration_s) == ("unknown_unit", 2.0)


def test_irregular_stamps_are_resampled_and_gaps_are_nan(tmp_path):
    rng = np.random.default_rng(0)
    time_ms = np.cumsum(rng.choice([30, 33, 36, 40], 900))
    keep = np.ones(900, bool)
    keep[[100, 500, 501]] = False  # single frames dropped by a camera
    keep[300:360] = False  # two seconds lost
    signal = np.sin(2 * np.pi * 1.2 * time_ms / 1000)
    write_csv(tmp_path / "a.csv", {"time": time_ms[keep], "G": np.round(signal[keep], 5)})
    recording = one(tmp_path, "time=time:ms&columns=ppg:G")
    rate_hz = recording.channels["ppg"].rate_hz
    assert rate_hz == pytest.approx(1000 / 34.75, rel=0.03)
    ppg = recording.read(0.0, recording.duration_s, ["ppg"])["ppg"]
    grid_s = time_ms[0] / 1000 + np.arange(len(ppg)) / rate_hz
    lost = (grid_s > time_ms[299] / 1000) & (grid_s < time_ms[360] / 1000)
    assert np.isnan(ppg[lost]).all()
    assert np.isfinite(ppg[~lost]).all()
    np.testing.assert_allclose(ppg[~lost], np.sin(2 * np.pi * 1.2 * grid_s[~lost]), atol=0.13)


def test_missing_fields_on_stamps_cost_no_neighbour_on_a_regular_clock(tmp_path):
    cells = [str(n) for n in range(600)]
    cells[100] = cells[300] = ""
    write_csv(tmp_path / "a.csv", {"t": np.arange(600) * 20, "PPG": cells})
    ppg = one(tmp_path, "time=t:ms").read(0.0, 12.0, ["ppg"])["ppg"]
    assert np.flatnonzero(np.isnan(ppg)).tolist() == [100, 300]
    np.testing.assert_array_equal(np.delete(ppg, [100, 300]), np.delete(np.arange(600.0), [100, 300]))


def test_given_rate_with_stamps_is_the_rate_of_the_grid(tmp_path):
    write_csv(tmp_path / "a.csv", {"t": np.arange(100) * 0.02, "PPG": np.arange(100) * 0.02})
    recording = one(tmp_path, "time=t:s&rate_hz=100")
    np.testing.assert_allclose(recording.read(0.0, 1.98, ["ppg"])["ppg"], np.arange(198) / 100, atol=1e-6)


def test_datetimes_give_the_start_and_a_coarse_clock_the_right_rate(tmp_path):
    seconds = np.floor(np.arange(2000) * 0.01 / 0.016) * 0.016  # a 100-Hz device on a clock of 16 ms
    stamps = [str(np.datetime64("2016-11-24T13:58:58.081") + np.timedelta64(int(s * 1e6), "us")) for s in seconds]
    write_csv(tmp_path / "a.csv", {"datetime": [stamp.replace("T", " ") for stamp in stamps], "hr": np.arange(2000)})
    recording = one(tmp_path, "time=datetime:datetime&columns=ppg:hr")
    assert recording.start_time == pytest.approx(1479995938.081)
    assert recording.channels["ppg"].rate_hz == pytest.approx(100.0, rel=0.01)
    ppg = recording.read(0.0, 19.0, ["ppg"])["ppg"]
    assert np.isfinite(ppg).all()
    assert np.abs(np.diff(ppg) - 1.0).mean() < 0.1


def test_changed_file_is_read_again(tmp_path):
    path = write_csv(tmp_path / "a.csv", {"PPG": np.zeros(100)})
    assert one(tmp_path, "rate_hz=50").read(0.0, 1.0, ["ppg"])["ppg"][0] == 0
    write_csv(path, {"PPG": np.full(100, 7)})
    assert one(tmp_path, "rate_hz=50").read(0.0, 1.0, ["ppg"])["ppg"][0] == 7


NO_RECORDINGS = {
    "a letter": (b"Dear colleague,\nplease find attached nothing.\n", "not_a_recording"),
    "a page of words": (b"PPG,II\nhello,world\nagain,more\n", "not_a_recording"),
    "binary": (bytes(range(256)) * 50, "not_a_recording"),
    "one endless line": (b"1," * 200_000, "not_a_recording"),
    "one row": (b"PPG\n1\n", "not_a_recording"),
    "header only": (b"PPG,II\n", "not_a_recording"),
    "nothing": (b"", "empty_file"),
    "blank lines": (b"\n\n\n", "empty_file"),
    "comments": (b"# a\n# b\n", "empty_file"),
    "columns of another kind": (b"HR,SpO2\n80,97\n81,97\n", "missing_channel"),
    "a ragged row": (b"PPG,II\n1,2\n1,2\n1\n1,2\n", "unreadable_file"),
    "a gzip cut short": (gzip.compress(b"PPG\n" + b"1\n2\n" * 9999)[:40], "unreadable_file"),
    "a gzip with a flipped byte": (gzip.compress(b"PPG\n1\n2\n")[:-5] + b"\0" * 5, "unreadable_file"),
}


@pytest.mark.parametrize("case", NO_RECORDINGS)
def test_text_that_is_no_signal_is_refused(tmp_path, case):
    content, reason = NO_RECORDINGS[case]
    (tmp_path / "a.csv").write_bytes(content)
    entry = one(tmp_path, "rate_hz=50")
    assert isinstance(entry, Refused)
    assert entry.reason == reason
    assert "a.csv" in entry.detail or reason == "missing_channel"


BAD_CLOCKS = {
    "no such column": "x,PPG\n1,1\n2,2\n",
    "no number": "t,PPG\nsoon,1\nlater,2\n",
    "standing": "t,PPG\n" + "1,1\n" * 100,
    "ends before it begins": "t,PPG\n5,1\n6,2\n3,1\n",
}


@pytest.mark.parametrize("case", BAD_CLOCKS)
def test_time_columns_without_time_are_refused(tmp_path, case):
    (tmp_path / "a.csv").write_text(BAD_CLOCKS[case])
    entry = one(tmp_path, "time=t:s")
    assert (entry.reason, "a.csv" in entry.detail) == ("bad_time", True)


def test_gzip_damaged_after_listing_is_a_recording_error(tmp_path):
    path = write_csv(tmp_path / "a.csv.gz", {"PPG": np.random.default_rng(0).integers(0, 999, 5000)})
    recording = one(tmp_path, "rate_hz=50")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RecordingError) as caught:
        recording.read(0.0, 1.0, ["ppg"])
    assert caught.value.reason == "unreadable_file"
    path.write_bytes(gzip.compress(b"PPG\n1\n2\n"))
    with pytest.raises(RecordingError) as caught:
        recording.read(0.0, 1.0, ["ppg"])
    assert caught.value.reason == "truncated_file"


def test_text_without_a_clock_is_a_fault_that_says_what_to_add(tmp_path):
    write_csv(tmp_path / "a.csv", {"PPG": [1, 2]})
    with pytest.raises(UserError, match="rate_hz"):
        list_recordings(parse_source(f"csv:{tmp_path}"), NAMES)


def test_absurd_rates_are_refused(tmp_path):
    write_csv(tmp_path / "a.csv", {"PPG": np.zeros(100)})
    assert [one(tmp_path, f"rate_hz={rate}").reason for rate in ("0.01", "1e9")] == ["bad_rate", "bad_rate"]


REAL = {
    "bidmc?rate_hz=125&glob=*_Signals.csv.gz": (40, 40, 5.334, {"ppg", "ecg"}),
    "welltory_ppg?time=time:ms&columns=ppg:R&glob=*/PPG.csv": (16, 16, 0.376, {"ppg"}),
    "ppg_misc/heartpy_data.csv.gz?rate_hz=100&columns=ppg:1": (1, 1, 0.0069, {"ppg"}),
    "ppg_misc/heartpy_data2.csv.gz?time=timer:ms&columns=ppg:hr": (1, 1, 0.0356, {"ppg"}),
    "ppg_misc/heartpy_data3.csv.gz?time=datetime:datetime&columns=ppg:hr": (1, 1, 0.19, {"ppg"}),
    "ppg_misc/heartpy_ring_data.csv.gz?rate_hz=32&columns=ppg:1": (1, 1, 0.798, {"ppg"}),
    "ppg_misc/smartcare_ppg.csv.gz?time=TIMESTAMP_MS:ms&columns=ppg:PLETH": (1, 1, 0.17, {"ppg"}),
}


@pytest.mark.parametrize("query", REAL)
def test_real_text_recordings_read_whole(data_dir, query):
    count, used, hours, roles = REAL[query]
    entries = list_recordings(parse_source(f"csv:{data_dir}/{query}"), NAMES, required=tuple(roles))
    recordings = [entry for entry in entries if not isinstance(entry, Refused)]
    assert (len(entries), len(recordings)) == (count, used)
    assert sum(recording.duration_s for recording in recordings) / 3600 == pytest.approx(hours, rel=0.02)
    for recording in recordings[:5]:
        signals = recording.read(0.0, recording.duration_s, list(roles))
        assert all(np.isfinite(signal).mean() > 0.9 for signal in signals.values())


def test_bidmc_samples_are_the_rows_of_the_file(data_dir):
    path = data_dir / "bidmc" / "bidmc_01_Signals.csv.gz"
    recording = one(path, "rate_hz=125")
    with gzip.open(path, "rt") as file:
        names = [name.strip() for name in file.readline().split(",")]
        rows = np.loadtxt(file, delimiter=",")
    signals = recording.read(100.0, 130.0, ["ppg", "ecg"])
    for role, name in (("ppg", "PLETH"), ("ecg", "II")):
        np.testing.assert_array_equal(signals[role], rows[12500:16250, names.index(name)].astype(np.float32))
