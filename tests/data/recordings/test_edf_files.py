"""EDF, EDF+ and BDF: values of the library's own reader, gaps where a file is discontinuous, faults named."""

import datetime
import pickle

import edfio
import numpy as np
import pytest
from small_files import NAMES

from jaxbio.data.recordings import Recording, RecordingError, Refused, list_recordings, parse_source

RATES_HZ = {"II": 250.0, "PLETH": 62.5}


def write_edf(path, *, seconds=30, plus=False, bdf=False, labels=("ECG II", "Pleth"), units=("uV", "")):
    """Write two signals of unlike rates through edfio; a file that is `plus` has annotations, so a time-keeping one."""
    rng = np.random.default_rng(7)
    kind = edfio.BdfSignal if bdf else edfio.EdfSignal
    signals = [
        kind(rng.normal(500, 900, round(seconds * rate_hz)), rate_hz, label=label, physical_dimension=unit)
        for rate_hz, label, unit in zip(RATES_HZ.values(), labels, units)
    ]
    notes = [edfio.EdfAnnotation(1.5, 2.0, "artefact")] if plus else None
    recorded = edfio.Recording(startdate=datetime.date(2021, 3, 4)) if plus else None
    made = (edfio.Bdf if bdf else edfio.Edf)(
        signals, data_record_duration=2.0, annotations=notes, recording=recorded, starttime=datetime.time(5, 6, 7)
    )
    made.write(path)
    return made


def interrupt(path, onsets_s, width=2):
    """Make a continuous EDF+ (BDF+: of width 3) discontinuous: its first records, each begun at its onset."""
    content = bytearray(path.read_bytes())
    content[196:197] = b"D"
    signals = int(content[252:256])
    samples = [int(content[256 + 216 * signals + 8 * k :][:8]) for k in range(signals)]
    (notes,) = (k for k in range(signals) if content[256 + 16 * k :][4:15] == b"Annotations")
    header, record, before = 256 * (1 + signals), width * sum(samples), width * sum(samples[:notes])
    for number, onset_s in enumerate(onsets_s):
        at = header + number * record + before
        said = f"+{onset_s:g}\x14\x14\0".encode()
        content[at : at + width * samples[notes]] = said.ljust(width * samples[notes], b"\0")
    content[236:244] = f"{len(onsets_s):<8}".encode()
    path.write_bytes(content[: header + len(onsets_s) * record])


def one(path, query=""):
    (entry,) = list_recordings(parse_source(f"edf:{path}{query}"), NAMES)
    return entry


@pytest.mark.parametrize("bdf", [False, True])
@pytest.mark.parametrize("plus", [False, True])
def test_values_are_the_librarys_and_spans_those_of_the_whole(tmp_path, plus, bdf):
    path = tmp_path / ("a.bdf" if bdf else "a.edf")
    written = write_edf(path, plus=plus, bdf=bdf)
    reread = (edfio.read_bdf if bdf else edfio.read_edf)(path)
    entry = pickle.loads(pickle.dumps(one(path)))
    assert entry.duration_s == 30.0
    assert {role: channel.rate_hz for role, channel in entry.channels.items()} == {"ecg": 250.0, "ppg": 62.5}
    assert {role: (channel.name, channel.unit) for role, channel in entry.channels.items()} == {
        "ecg": ("ECG II", "mV"),
        "ppg": ("Pleth", "NU"),
    }
    whole = entry.read(0.0, 30.0, ["ecg", "ppg"])
    for role, signal, factor in (("ecg", reread.signals[0], 1e-3), ("ppg", reread.signals[1], 1.0)):
        step = (signal.physical_max - signal.physical_min) / 2**16 * factor
        assert np.abs(whole[role] - signal.data * factor).max() < step / 2
        np.testing.assert_array_equal(entry.read(3.3, 11.7, [role])[role], whole[role][slice(*spans(role, 3.3, 11.7))])
    if plus:
        assert entry.start_time == datetime.datetime(2021, 3, 4, 5, 6, 7, tzinfo=datetime.UTC).timestamp()
    assert written.num_data_records == 15


def spans(role, start_s, stop_s):
    rate_hz = {"ecg": 250.0, "ppg": 62.5}[role]
    return round(start_s * rate_hz), round(stop_s * rate_hz)


@pytest.mark.parametrize("bdf", [False, True])
def test_discontinuous_file_is_missing_between_its_records(tmp_path, bdf):
    path = tmp_path / ("d.bdf" if bdf else "d.edf")
    values = write_edf(path, plus=True, bdf=bdf).signals[0].data
    interrupt(path, [0.5, 2.5, 10.5, 12.5, 14.5, 100.504], width=3 if bdf else 2)
    entry = one(path)
    assert entry.duration_s == pytest.approx(102.004)
    assert len(entry.reader.runs) == 3
    stated = datetime.datetime(2021, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    assert entry.start_time == pytest.approx(stated.timestamp() + 0.5)
    ecg = entry.read(0.0, entry.duration_s, ["ecg"])["ecg"]
    for place_s, first_s, seconds in ((0, 0, 4), (10, 4, 6), (100.004, 10, 2)):
        place, first, count = (round(at * 250) for at in (place_s, first_s, seconds))
        assert np.abs(ecg[place : place + count] - values[first : first + count] * 1e-3).max() < 6e-5
    assert np.isfinite(ecg).sum() == 12 * 250
    part = entry.read(3.0, 11.0, ["ecg", "ppg"])
    np.testing.assert_array_equal(part["ecg"], ecg[750:2750])
    assert np.isfinite(part["ppg"]).sum() == round(2 * 62.5)


def test_records_that_overlap_or_keep_no_time_are_refused(tmp_path):
    path = tmp_path / "d.edf"
    write_edf(path, plus=True)
    interrupt(path, [0, 2, 3])
    assert one(path).reason == "bad_time"
    write_edf(path)
    path.write_bytes(path.read_bytes()[:192] + b"EDF+D" + path.read_bytes()[197:])
    assert one(path).reason == "bad_time"


def test_a_second_at_the_end_may_be_lacking_and_more_is_a_cut_file(tmp_path):
    path = tmp_path / "a.edf"
    write_edf(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert one(path).reason == "truncated_file"  # a record of 2 s
    path.write_bytes(whole[:236] + b"-1      " + whole[244:-40])  # its recorder was not stopped
    entry = one(path)
    assert entry.duration_s == 28.0
    path.write_bytes(whole[:-5000])
    with pytest.raises(RecordingError) as caught:
        entry.read(0.0, 28.0, ["ecg"])
    assert (caught.value.reason, caught.value.file) == ("truncated_file", str(path))


@pytest.mark.parametrize(
    ("at", "written", "reason"),
    [
        (0, b"MIT", "not_a_recording"),
        (252, b"9999", "bad_header"),
        (252, b"-2  ", "bad_header"),
        (236, b"99999999", "truncated_file"),
        (236, b"0       ", "bad_duration"),
        (236, b"nan     ", "bad_header"),
        (244, b"0       ", "bad_header"),
        (244, b"1e300   ", "bad_header"),
        (244, b"1e-4    ", "bad_rate"),
        (256 + 2 * 216, b"99999999", "bad_header"),
        (256 + 2 * 216, b"-5      ", "bad_header"),
    ],
)
def test_header_that_claims_what_is_not_there_is_refused_by_name(tmp_path, at, written, reason):
    path = tmp_path / "a.edf"
    write_edf(path)
    content = bytearray(path.read_bytes())
    content[at : at + len(written)] = written
    path.write_bytes(content)
    entry = one(path)
    assert isinstance(entry, Refused)
    assert (entry.reason, str(path) in entry.detail) == (reason, True)


def test_signal_without_a_range_costs_its_role_alone(tmp_path):
    path = tmp_path / "a.edf"
    write_edf(path)
    content = bytearray(path.read_bytes())
    at = 256 + 2 * 120  # digital minima of two signals
    content[at : at + 8] = b"32767   "
    path.write_bytes(content)
    (entry,) = list_recordings(parse_source(f"edf:{path}"), NAMES, required=["ppg"])
    assert isinstance(entry, Recording)
    assert entry.faults["ecg"][0] == "bad_header"
