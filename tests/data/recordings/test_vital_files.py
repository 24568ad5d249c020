"""`.vital` files: values and times of the library's own reader, gaps, faults named."""

import gzip
import struct

import numpy as np
import pytest
import vitaldb
from small_files import NAMES

from jaxbio.data.recordings import RecordingError, Refused, list_recordings, parse_source

BEGAN_S = 1_600_000_000.25


def write_vital(path, *, packed, lost=(), minutes=2):
    """Write two tracks of unlike rates and types in records of a second, the PPG without the seconds `lost`."""
    rng = np.random.default_rng(3)
    file = vitaldb.VitalFile()
    file.dtstart, file.dtend = BEGAN_S, BEGAN_S + 60 * minutes
    for name, rate_hz, unit, fmt, gain, offset in (
        ("SNUADC/ECG_II", 500.0, "mV", 5, 0.0025, -0.5),
        ("SNUADC/PLETH", 100.0, "", 1, 1.0, 0.0),
    ):
        device, track = name.split("/")
        file.devs[device] = vitaldb.utils.Device(device)
        values = rng.integers(-2000, 2000, (60 * minutes, round(rate_hz)))
        records = [
            {"dt": BEGAN_S + second, "val": value_N.astype("<i2" if fmt == 5 else "<f4")}
            for second, value_N in enumerate(values)
            if fmt == 5 or second not in lost
        ]
        file.trks[name] = vitaldb.utils.Track(
            track, 1, fmt=fmt, unit=unit, srate=rate_hz, gain=gain, offset=offset, dname=device, recs=records, col=0
        )
    numbers = [{"dt": BEGAN_S - 3600.0, "val": 71.0}]
    file.trks["SNUADC/HR"] = vitaldb.utils.Track("HR", 2, fmt=1, dname="SNUADC", recs=numbers, col=0)
    assert file.to_vital(str(path), compresslevel=1, packed=packed)
    return file


def one(path):
    (entry,) = list_recordings(parse_source(f"vital:{path}"), NAMES | {"ecg": ("ECG_II",)})
    return entry


@pytest.mark.parametrize("packed", [False, True])
def test_values_and_times_are_the_librarys(tmp_path, packed):
    path = tmp_path / "1.vital"
    written = write_vital(path, packed=packed, lost=(*range(30, 45), 119))
    entry = one(path)
    assert (entry.duration_s, entry.start_time) == (120.0, BEGAN_S)
    assert {role: (c.name, c.unit, c.rate_hz) for role, c in entry.channels.items()} == {
        "ecg": ("SNUADC/ECG_II", "mV", 500.0),
        "ppg": ("SNUADC/PLETH", "NU", 100.0),
    }
    for role, name, rate_hz in (("ecg", "SNUADC/ECG_II", 500), ("ppg", "SNUADC/PLETH", 100)):
        read = entry.read(0.0, 120.0, [role])[role]
        expected = written.get_track_samples(name, 1 / rate_hz)
        np.testing.assert_array_equal(np.isnan(read), np.isnan(expected))
        assert np.nanmax(np.abs(read - expected)) < 0.0025 / 2
        part = entry.read(28.5, 31.25, [role])[role]
        np.testing.assert_array_equal(part, read[round(28.5 * rate_hz) : round(31.25 * rate_hz)])
    assert np.isnan(entry.read(0.0, 120.0, ["ppg"])["ppg"]).sum() == 16 * 100


def test_packed_gap_of_an_integer_track_is_missing(tmp_path):
    path = tmp_path / "1.vital"
    write_vital(path, packed=True)
    content = bytearray(gzip.decompress(path.read_bytes()))
    at = content.rindex(struct.pack("<I", 60_000)) + 4  # the ECG's only record
    content[at : at + 1000] = struct.pack("<h", -(2**15)) * 500
    path.write_bytes(gzip.compress(content, 1))
    ecg = one(path).read(0.0, 3.0, ["ecg"])["ecg"]
    assert np.flatnonzero(np.isnan(ecg)).tolist() == list(range(500))


def test_record_without_a_time_is_missing(tmp_path):
    path = tmp_path / "1.vital"
    write_vital(path, packed=False, minutes=1)
    content = bytearray(gzip.decompress(path.read_bytes()))
    at = content.index(struct.pack("<d", BEGAN_S + 20))  # of the ECG, whose records come first
    content[at : at + 8] = struct.pack("<d", 0.0)
    path.write_bytes(gzip.compress(content, 1))
    entry = one(path)
    assert (entry.duration_s, entry.start_time) == (60.0, BEGAN_S)
    assert np.flatnonzero(np.isnan(entry.read(0.0, 60.0, ["ecg"])["ecg"])).tolist() == list(range(10_000, 10_500))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: b"", "empty_file"),
        (lambda content: content, "unreadable_file"),  # no gzip
        (lambda content: gzip.compress(b"RIFF" + content[4:]), "not_a_recording"),
        (lambda content: gzip.compress(content[:3000]), "truncated_file"),
        (lambda content: gzip.compress(content)[:-2000], "unreadable_file"),
        (lambda content: gzip.compress(content[:37] + b"\1\xff\xff\xff\xff" + content[42:]), "unreadable_file"),
        (lambda content: gzip.compress(content[:37] + b"\0\3\0\0\0abc"), "unreadable_file"),
        (lambda content: gzip.compress(content[:37]), "not_a_recording"),
        (lambda content: gzip.compress(content[:37] + b"\7\0\0\0\0" * 10**6), "unreadable_file"),  # a bomb
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path, change, reason):
    path = tmp_path / "1.vital"
    write_vital(path, packed=False, minutes=1)
    path.write_bytes(change(gzip.decompress(path.read_bytes())))
    entry = one(path)
    assert isinstance(entry, Refused)
    assert (entry.reason, str(path) in entry.detail) == (reason, True)


def test_file_cut_after_it_was_listed_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "1.vital"
    write_vital(path, packed=False, minutes=1)
    entry = one(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RecordingError) as caught:
        entry.read(0.0, 30.0, ["ecg", "ppg"])
    assert (caught.value.reason, caught.value.file) == ("unreadable_file", str(path))
