"""HDF5: values of the library's own reader by path, rates and units from attributes, traps refused."""

import pickle
import sys
import zlib

import h5py
import numpy as np
import pytest
from small_files import NAMES

from jaxbio.config.faults import UserError
from jaxbio.data.recordings import Recording, RecordingError, Refused, hdf5_chunks, list_recordings, parse_source

SIGNALS = {"PLETH": (7500, 125.0), "II": (30_000, 500.0)}


def write_h5(path, **how):
    """Write a PPG and an ECG, rates and units as attributes, in groups; return their values by name."""
    rng = np.random.default_rng(1)
    values = {name: rng.normal(1000, 300, samples).astype("<i2") for name, (samples, _) in SIGNALS.items()}
    with h5py.File(path, "w") as file:
        for name, value_N in values.items():
            dataset = file.create_dataset(f"waves/{name}", data=value_N, **how)
            dataset.attrs["fs"] = SIGNALS[name][1]
            dataset.attrs["units"] = "uV" if name == "II" else ""
    return values


def entries(path, query=""):
    return list_recordings(parse_source(f"hdf5:{path}{query}"), NAMES)


def one(path, query=""):
    (entry,) = entries(path, query)
    return entry


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunks": (1000,)},
        {"chunks": (1000,), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": True, "compression": "gzip", "compression_opts": 9},
    ],
)
def test_values_are_the_librarys_and_spans_those_of_the_whole(tmp_path, how):
    path = tmp_path / "a.h5"
    values = write_h5(path, **how)
    entry = pickle.loads(pickle.dumps(one(path)))
    assert (entry.duration_s, entry.channels["ecg"].unit, entry.channels["ecg"].rate_hz) == (60.0, "mV", 500.0)
    np.testing.assert_allclose(entry.read(0.0, 60.0, ["ecg"])["ecg"], values["II"] * 1e-3, rtol=1e-6)
    part = entry.read(1.6, 59.2, ["ppg", "ecg"])
    np.testing.assert_array_equal(part["ppg"], values["PLETH"][200:7400])
    assert part["ecg"].shape == (28_800,)


def test_rows_columns_and_chunks_never_written(tmp_path):
    path = tmp_path / "a.h5"
    table = np.random.default_rng(2).normal(size=(5000, 3))
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (5000, 3), chunks=(700, 2), compression="gzip", fillvalue=np.nan)
        dataset[:2100] = table[:2100]
        file["rows"] = table.T
        file.attrs["sampling_rate"] = 50
    for query, expected in (("?columns=ppg:x/3", table[:, 2]), ("?columns=ppg:rows/2", table[:, 1])):
        read = one(path, query).read(10.0, 100.0, ["ppg"])["ppg"]
        written = 1600 if "x/3" in query else 4500
        assert np.isnan(read[written:]).all()
        np.testing.assert_allclose(read[:written], expected[500 : 500 + written], rtol=1e-6)


def test_each_group_is_a_recording_with_the_rate_beside_its_signals(tmp_path):
    path = tmp_path / "cases.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(3):
            file[f"p{number}/PLETH"] = np.arange(1000.0) * (number + 1)
            file[f"p{number}/fs"] = 50 if number < 2 else 1e9
        file["soft"] = h5py.SoftLink("/p0")
    first, second, third = entries(path, "?each=p*")
    assert [entry.recording for entry in (first, second)] == ["cases/p0", "cases/p1"]
    np.testing.assert_array_equal(second.read(2.0, 3.0, ["ppg"])["ppg"], np.arange(100, 150) * 2)
    assert third.reason == "bad_rate"


def test_soft_links_and_rings_of_groups_are_walked_once(tmp_path):
    path = tmp_path / "a.h5"
    write_h5(path)
    with h5py.File(path, "a") as file:
        file["waves/again"] = file["waves"]
        file["more"] = file
        file["soft"] = h5py.SoftLink("/waves/PLETH")
    assert isinstance(one(path), Recording)
    assert set(one(path).signals) <= {f"{at}waves/{name}" for at in ("", "more/") for name in SIGNALS}


def external(file, path):
    file["waves/x"] = h5py.ExternalLink("/etc/passwd", "/x")


def raw(file, path):
    file.create_dataset("x", (100,), "u1", external=[("/etc/passwd", 0, 100)])


def virtual(file, path):
    layout = h5py.VirtualLayout((100,), "f8")
    layout[:] = h5py.VirtualSource(path.with_name("b.h5"), "x", (100,))
    file.create_virtual_dataset("x", layout)


def hole(file, path):
    file.create_dataset("x", (2**40,), "f8", chunks=(2**16,), compression="gzip")[:10] = 1.0


def bomb(file, path):
    dataset, zeros = file.create_dataset("x", (2**27,), "i1", chunks=(2**24,), compression="gzip"), bytes(2**24)
    for begin in range(0, 2**27, 2**24):
        dataset.id.write_direct_chunk((begin,), zlib.compress(zeros))


def strange(file, path):
    file.create_dataset("x", (10_000,), "f8", chunks=(100,), compression="lzf")[:] = 1.0


@pytest.mark.parametrize(
    ("trap", "reason"),
    [
        (external, "outside_source"),
        (raw, "outside_source"),
        (virtual, "outside_source"),
        (hole, "unreadable_file"),
        (bomb, "unreadable_file"),
        (strange, "unreadable_file"),
    ],
)
def test_data_elsewhere_and_bombs_are_refused_by_name(tmp_path, trap, reason):
    path = tmp_path / "a.h5"
    write_h5(path)
    with h5py.File(path, "a") as file:
        trap(file, path)
    entry = one(path)
    assert isinstance(entry, Refused)
    assert (entry.reason, str(path) in entry.detail) == (reason, True)


def test_chunk_that_unpacks_into_more_than_a_chunk_is_an_error(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("PLETH", (4000,), "f4", chunks=(1000,), compression="gzip")
        dataset.id.write_direct_chunk((0,), zlib.compress(bytes(2**26), 9))
        dataset.attrs["fs"] = 125
    with pytest.raises(RecordingError) as caught:
        one(path).read(0.0, 8.0, ["ppg"])
    assert (caught.value.reason, caught.value.file) == ("unreadable_file", str(path))


def test_file_cut_before_or_after_it_was_listed_is_named(tmp_path):
    path = tmp_path / "a.h5"
    write_h5(path)
    entry, whole = one(path), path.read_bytes()
    for kept in (0, 100, 3000, len(whole) - 4000):
        path.write_bytes(whole[:kept])
        assert one(path).reason in ("not_a_recording", "unreadable_file")
        with pytest.raises(RecordingError):
            entry.read(0.0, 60.0, ["ecg"])


def test_format_without_its_library_names_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install .*\[prepare\]"):
        entries(tmp_path)


def test_signals_that_share_chunks_unpack_them_once(tmp_path, monkeypatch):
    path, unpacked = tmp_path / "a.h5", []
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.random.default_rng(0).normal(size=(6000, 3)), chunks=(500, 3), compression=1)
    inflate = hdf5_chunks.inflate
    monkeypatch.setattr(hdf5_chunks, "inflate", lambda *given: unpacked.append(1) or inflate(*given))
    entry = one(path, "?rate_hz=50&columns=ppg:x/1,ecg:x/2,abp:x/3")
    for start_s in (0.0, 50.0):
        entry.read(start_s, start_s + 60.0, ["ppg", "ecg", "abp"])
    assert len(unpacked) == 11  # 5,500 rows
