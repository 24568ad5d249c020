"""What header(5) allows and archives write: every such header reads the samples that a plain one reads."""

import codecs

import numpy as np
import pytest
from small_files import NAMES, physical, write_frames, write_record

from jaxbio.data.recordings import Recording, RecordingError, list_recordings, parse_source

FRAMES = 3875
ECG, PPG = "r.dat {fmt} 200(0)/mV 16 0 0 0 0 II", "r.dat {fmt} 50(-30)/NU 16 0 0 0 0 PLETH"


def listed(path, query="", **options):
    return list_recordings(parse_source(f"wfdb:{path}{query}"), NAMES, **options)


def one(path, query="", **options) -> Recording:
    (entry,) = listed(path, query, **options)
    assert isinstance(entry, Recording), entry
    return entry


def write(folder, record_line, *signal_lines, fmt="16", name="r", encode=str.encode):
    """Write two signals of 31 s in format `fmt` under a header of these lines; return them as integers."""
    digital = write_record(folder, "r", seconds=FRAMES / 125, fmt=fmt)
    (folder / "r.hea").unlink()
    lines = signal_lines or (ECG, PPG)
    text = "\n".join([record_line, *(line.format(fmt=fmt) for line in lines)]) + "\n"
    (folder / f"{name}.hea").write_bytes(encode(text))
    return digital


def check(recording: Recording, digital, roles=("ecg", "ppg")):
    assert recording.duration_s == FRAMES / 125
    for role in roles:
        signal = ("ecg", "ppg").index(role)
        whole = recording.read(0.0, 31.0, [role])[role]
        np.testing.assert_allclose(whole, physical(digital, signal), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(recording.read(7.0, 9.0, [role])[role], whole[875:1125])


RECORD_LINES = {
    "r 2": (250.0, None),  # a rate that is not stated is 250
    "r 2 125": (125.0, None),
    "r 2 125 0": (125.0, None),
    "r 2 125.": (125.0, None),
    "r 2 1.25e2/125(0) 3875": (125.0, None),
    "r 2 125/125 3875": (125.0, None),
    "r 2 125 3875 13:5:0 25/4/1989": (125.0, 609512700.0),
    "r 2 125 3875 9:8:7 01/02/2003": (125.0, 1044090487.0),
    "r 2 125 3875 05:05:15.25 2014-05-08": (125.0, 1399525515.25),
    "r 2 125 3875 2014-05-08 05:05:15": (125.0, 1399525515.0),
    "r 2 125 3875 24:00:00 01/01/2010": (125.0, 1262390400.0),
    "r 2 125 3875 12:00:00 1/5/199": (125.0, None),
    "r 2 125 3875 12:00:00 31/12/10": (125.0, None),
    "r 2 125 3875 12:00:00 31/02/2010": (125.0, None),
    "r 2 125 3875 2006": (125.0, None),
    "r 2 125 3875 12:00": (125.0, None),
    "r 2 125 3875 [12:00:00 soon]": (125.0, None),
}


@pytest.mark.parametrize("fmt", ["16", "212", "516"])
@pytest.mark.parametrize("line", RECORD_LINES)
def test_record_lines_read_alike_in_whole_packed_and_compressed_formats(tmp_path, line, fmt):
    digital = write(tmp_path, line, fmt=fmt)
    rate_hz, start_time = RECORD_LINES[line]
    recording = one(tmp_path)
    assert (recording.start_time, recording.channels["ecg"].rate_hz) == (start_time, rate_hz)
    assert recording.duration_s == FRAMES / rate_hz
    read = recording.read(0.0, recording.duration_s, ["ecg"])["ecg"]
    np.testing.assert_allclose(read, physical(digital, 0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fmt", ["16", "212", "516"])
@pytest.mark.parametrize("name", ["a.b", "a,b", "a b", "1.2.840", "x-y_z"])
def test_records_of_any_name_read(tmp_path, name, fmt):
    digital = write(tmp_path, f"{name.replace(' ', '_')} 2 125 3875", fmt=fmt, name=name)
    recording = one(tmp_path)
    assert recording.recording == name
    check(recording, digital)
    check(one(tmp_path / f"{name}.hea"), digital)
    check(one(tmp_path / name), digital)


SIGNAL_LINES = {
    "a comma behind the name (BIDMC)": (
        "r.dat {fmt} 200/mV 16 0 0 0 0 II,",
        "r.dat {fmt} 50(-30)/NU 16 0 0 0 0 PLETH,",
    ),
    "a negative block size": ("r.dat {fmt} 200/mV 16 0 0 0 -512 II", "r.dat {fmt} 50(-30)/NU 16 0 0 0 -512 PLETH"),
    "checksums, blanks and tabs": (
        "r.dat  {fmt} 200/mV 12 0 -5 -22131 0   II ",
        "r.dat\t{fmt} 50(-30)/NU 16 0 0 7 0\tPLETH",
    ),
    "every modifier": ("r.dat {fmt}x1:0+0 200.0/mV 16 0 0 0 0 II", "r.dat {fmt}x1:0+0 5e1(-30)/NU 16 0 0 0 0 PLETH"),
    "the baseline is the ADC's zero": ("r.dat {fmt} 0 16 0 0 0 0 II", "r.dat {fmt} 50/NU 16 -30 0 0 0 PLETH"),
}


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("case", SIGNAL_LINES)
def test_signal_lines_read_alike(tmp_path, case, fmt):
    digital = write(tmp_path, "r 2 125 3875", *SIGNAL_LINES[case], fmt=fmt)
    check(one(tmp_path), digital)


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_signals_without_names_are_numbered_from_1(tmp_path, fmt):
    digital = write(tmp_path, "r 2 125 3875", "r.dat {fmt} 200/mV", "r.dat {fmt} 50(-30)/NU 16 0 0 0 0", fmt=fmt)
    recording = one(tmp_path, "?columns=ecg:1,ppg:2")
    check(recording, digital)
    assert recording.signals == ("1", "2")
    (entry,) = listed(tmp_path)
    assert entry.reason == "missing_channel"
    assert "'1', '2'" in entry.detail


ENCODINGS = {
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 little-endian": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "lines of Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "lines of old Macintosh": lambda text: text.replace("\n", "\r").encode(),
    "comments and blank lines": lambda text: ("# a\n\n" + text.replace("\n", "\n\n# b\n")).encode(),
    "lines too many": lambda text: (text + "x.dat 16\n").encode(),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_headers_in_other_encodings_read_alike(tmp_path, case):
    digital = write(tmp_path, "r 2 125 3875", encode=ENCODINGS[case])
    check(one(tmp_path), digital)


@pytest.mark.parametrize(
    "null", ["~ 0 200/mmHg 12 0 0 0 0 ABP", "r.dat 0 200/mmHg 12 0 0 0 0 ABP", "~ 16 1/mmHg 12 0 0 0 0 ABP"]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_null_signals_are_not_there_and_cost_no_other(tmp_path, null, place):
    lines = [ECG, PPG]
    lines.insert(place, null)
    digital = write(tmp_path, "r 3 125 3875", *lines)
    recording = one(tmp_path)
    assert set(recording.channels) == {"ecg", "ppg"}
    assert "ABP" not in recording.signals
    check(recording, digital)
    (entry,) = listed(tmp_path, required=("abp",))
    assert entry.reason == "missing_channel"


def test_another_name_of_the_role_takes_the_place_of_a_null_signal(tmp_path):
    digital = write(tmp_path, "r 3 125 3875", "~ 0 200/mV 12 0 0 0 0 II", ECG.replace("II", "MLII"), PPG)
    recording = one(tmp_path)
    assert recording.channels["ecg"].name == "MLII"
    check(recording, digital)


@pytest.mark.parametrize("lacking", [1, 2, 200])
@pytest.mark.parametrize("fmt", ["16", "212", "516", "80"])
def test_a_file_that_lacks_up_to_a_second_is_read_and_ends_in_nan(tmp_path, fmt, lacking):
    # Two samples a frame: one sample short is half a frame.
    digital = write(tmp_path, "r 2 125 3875", fmt=fmt)
    frames = FRAMES - -(-lacking // 2)
    if fmt == "516":
        (tmp_path / "r.hea").write_text((tmp_path / "r.hea").read_text().replace("3875", str(2 * FRAMES - frames)))
        kept, stated = FRAMES, 2 * FRAMES - frames
    else:
        data = tmp_path / "r.dat"
        per_sample = {"16": 2, "212": 1.5, "80": 1}[fmt]
        data.write_bytes(data.read_bytes()[: int((2 * FRAMES - lacking) * per_sample)])
        kept, stated = frames, FRAMES
    recording = one(tmp_path)
    assert recording.duration_s == stated / 125
    read = recording.read(0.0, recording.duration_s, ["ppg", "ecg"])
    for role, signal in (("ecg", 0), ("ppg", 1)):
        assert np.isnan(read[role][kept:]).all()
        np.testing.assert_allclose(read[role][: kept - 1], physical(digital, signal)[: kept - 1], rtol=1e-6, atol=1e-6)


def test_a_file_that_lacks_more_than_a_second_is_refused(tmp_path):
    write(tmp_path, "r 2 125 3875")
    data = tmp_path / "r.dat"
    data.write_bytes(data.read_bytes()[: 2 * 2 * (FRAMES - 130)])
    (entry,) = listed(tmp_path)
    assert (entry.reason, entry.duration_s) == ("truncated_file", 31.0)


def test_a_skew_counts_samples_of_its_signal(tmp_path):
    fast, slow = np.arange(4000).reshape(1000, 4), np.arange(1000)
    for skew, expected in ((8, 8), (3, 3), (1, 1)):
        lines = [f"r.dat 16x4:{skew} 1/mV 16 0 0 0 0 II", "r.dat 16 1/NU 16 0 0 0 0 PLETH"]
        write_frames(tmp_path, "r", lines, [fast, slow])
        recording = one(tmp_path)
        ecg = recording.read(0.0, 8.0, ["ecg"])["ecg"]
        np.testing.assert_array_equal(ecg[: 4000 - skew], np.arange(expected, 4000))
        assert np.isnan(ecg[4000 - skew :]).all()
        np.testing.assert_array_equal(recording.read(2.0, 3.0, ["ecg"])["ecg"], ecg[1000:1500])
        np.testing.assert_array_equal(recording.read(0.0, 8.0, ["ppg"])["ppg"], np.arange(1000))


def test_a_segment_that_is_not_there_costs_its_own_span_wherever_it_stands(tmp_path):
    first = write_record(tmp_path, "r_1", seconds=20.0)
    for order in (("r_1", "gone"), ("gone", "r_1"), ("gone", "r_1", "gone2")):
        lines = "".join(f"{name} 2500\n" for name in order)
        (tmp_path / "r.hea").write_text(f"r/{len(order)} 2 125 {2500 * len(order)}\n{lines}")
        recording = next(entry for entry in listed(tmp_path) if entry.recording == "r")
        at_s = 20.0 * order.index("r_1")
        read = recording.read(at_s, at_s + 20.0, ["ecg"])["ecg"]
        np.testing.assert_allclose(read, physical(first, 0), rtol=1e-6)
        with pytest.raises(RecordingError) as caught:
            recording.read(0.0, recording.duration_s, ["ecg"])
        assert caught.value.reason == "missing_file"
        rest = caught.value.rest["ecg"]
        np.testing.assert_allclose(rest[int(at_s) * 125 :][:2500], physical(first, 0), rtol=1e-6)
        assert np.isnan(rest).sum() == 2500 * (len(order) - 1)


def test_a_layout_that_is_not_there_is_made_of_all_segments(tmp_path):
    ecg = write_record(tmp_path, "m_1", names=("II",), units=("mV",), seconds=20.0)
    both = write_record(tmp_path, "m_2", seconds=20.0, seed=2)
    (tmp_path / "m.hea").write_text("m/4 2 125 6250\nm_layout 0\nm_1 2500\n~ 1250\nm_2 2500\n")
    recording = one(tmp_path)
    assert set(recording.signals) == {"II", "PLETH"}
    signals = recording.read(0.0, 50.0, ["ecg", "ppg"])
    np.testing.assert_allclose(signals["ecg"][:2500], physical(ecg, 0), rtol=1e-6)
    assert np.isnan(signals["ppg"][:3750]).all()
    np.testing.assert_allclose(signals["ppg"][3750:], physical(both, 1), rtol=1e-6)


def test_no_segment_at_all_is_refused_as_missing(tmp_path):
    (tmp_path / "r.hea").write_text("r/2 2 125 5000\na 2500\nb 2500\n")
    (entry,) = listed(tmp_path)
    assert (entry.reason, entry.duration_s) == ("missing_file", 40.0)


def test_a_segment_one_sample_shorter_than_its_master_says_ends_in_nan(tmp_path):
    digital = write_record(tmp_path, "r_1", seconds=20.0)
    (tmp_path / "r.hea").write_text("r/2 2 125 5001\nr_1 2501\nr_1 2500\n")
    ecg = one(tmp_path).read(0.0, 40.008, ["ecg"])["ecg"]
    assert np.flatnonzero(np.isnan(ecg)).tolist() == [2500]
    np.testing.assert_allclose(ecg[:2500], physical(digital, 0), rtol=1e-6)
    np.testing.assert_allclose(ecg[2501:], physical(digital, 0), rtol=1e-6)
