"""MATLAB files: values of SciPy's reader (version 5 to 7), of HDF5's (7.3), structures and cells by path."""

import struct
import zlib

import h5py
import numpy as np
import pytest
import scipy.io
from small_files import NAMES

from jaxbio.data.recordings import REASONS, RecordingError, Refused, list_recordings, parse_source

EACH = "?each=data/*&columns=ppg:ppg/v,ecg:ekg/v"


def perform(number):
    """Return a subject as MIMIC PERform has it."""
    rng = np.random.default_rng(number)
    return {
        "ppg": {"v": rng.normal(size=(2500, 1)), "fs": 125.0, "method": "ICU"},
        "ekg": {"v": rng.normal(size=(2500, 1)).astype("f4"), "fs": np.uint8(125)},
        "fix": {"subj_id": f"s{number}", "empty": np.zeros((0, 0))},
    }


def entries(path, query=""):
    return list_recordings(parse_source(f"mat:{path}{query}"), NAMES)


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_of_structures_are_recordings_with_scipys_values(tmp_path, packed):
    path = tmp_path / "af_data.mat"
    subjects = [perform(number) for number in range(3)]
    scipy.io.savemat(path, {"data": np.array(subjects, object), "note": "x"}, do_compression=packed)
    rereads = scipy.io.loadmat(path, simplify_cells=True)["data"]
    found = entries(path, EACH)
    assert [entry.recording for entry in found] == [f"af_data/data/{number}" for number in (1, 2, 3)]
    for entry, reread in zip(found, rereads):
        assert (entry.duration_s, entry.channels["ppg"].rate_hz) == (20.0, 125.0)
        for role, field in (("ppg", "ppg"), ("ecg", "ekg")):
            read = entry.read(4.0, 20.0, [role])[role]
            np.testing.assert_array_equal(read, reread[field]["v"][500:].astype(np.float32))


@pytest.mark.parametrize("packed", [False, True])
def test_matrices_of_every_type_are_read_in_rows_and_columns(tmp_path, packed):
    path = tmp_path / "a.mat"
    table = np.random.default_rng(0).integers(0, 100, (3, 1000))
    kinds = ("i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8")
    arrays = {f"x{kind[-2:]}": table.astype(kind) for kind in kinds}
    scipy.io.savemat(path, {**arrays, "long": table.T.copy(), "fs": 100.0, "z": table * 1j}, do_compression=packed)
    for name in (*arrays, "long"):
        (entry,) = entries(path, f"?columns=ppg:{name}/2,ecg:{name}/3")
        assert not any(signal.startswith("z") for signal in entry.signals)
        read = entry.read(1.5, 9.5, ["ppg", "ecg"])
        np.testing.assert_array_equal([read["ppg"], read["ecg"]], table[1:, 150:950])


def test_cells_and_cubes_are_numbered(tmp_path):
    path = tmp_path / "a.mat"
    cell = np.empty(2, object)
    cell[:] = [np.arange(500.0), np.arange(500.0) * 2]
    cube = np.random.default_rng(0).normal(size=(4, 2, 1250))
    scipy.io.savemat(path, {"cell": cell, "Signals": cube})
    (entry,) = entries(path, "?columns=ppg:cell/2&rate_hz=50")
    np.testing.assert_array_equal(entry.read(0.0, 10.0, ["ppg"])["ppg"], np.arange(500) * 2)
    found = entries(path, "?each=Signals/*&columns=ecg:1,ppg:2&rate_hz=125")
    assert [entry.recording for entry in found] == [f"a/Signals/{number}" for number in (1, 2, 3, 4)]
    np.testing.assert_array_equal(found[2].read(0.0, 10.0, ["ppg"])["ppg"], cube[2, 1].astype(np.float32))


def write_73(path, subjects):
    """Write as MATLAB's version 7.3: HDF5 with axes reversed, structures of references, classes as attributes."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(name, value):
            dataset = file.create_dataset(
                name, data=np.atleast_2d(value), compression="gzip" if value.size > 1 else None
            )
            dataset.attrs["MATLAB_class"] = np.bytes_("double")
            return dataset

        group = file.create_group("data")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in ("PPG_Raw", "ECG_Raw"):
            made = [put(f"#refs#/{field}{number}", value[field]) for number, value in enumerate(subjects)]
            references = group.create_dataset(field, (len(made), 1), h5py.ref_dtype)
            references[:, 0] = [dataset.ref for dataset in made]
        put("fs", np.array([125.0]))
        put("cube", np.random.default_rng(0).normal(size=(300, 2, 4)))
        text = file.create_dataset("text", data=np.ones((50, 1), "u2"))
        text.attrs["MATLAB_class"] = np.bytes_("char")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def test_version_73_has_matlabs_axes_and_structures(tmp_path):
    path = tmp_path / "p0001.mat"
    rng = np.random.default_rng(0)
    subjects = [{field: rng.normal(size=1250) for field in ("PPG_Raw", "ECG_Raw")} for _ in range(3)]
    write_73(path, subjects)
    found = entries(path, "?each=data/*&columns=ppg:PPG_Raw,ecg:ECG_Raw")
    assert [entry.duration_s for entry in found] == [10.0] * 3
    for entry, subject in zip(found, subjects):
        read = entry.read(1.0, 9.0, ["ppg", "ecg"])
        for role, field in (("ppg", "PPG_Raw"), ("ecg", "ECG_Raw")):
            np.testing.assert_array_equal(read[role], subject[field][125:1125].astype(np.float32))
    assert len(entries(path, "?each=cube/*&columns=ppg:2")) == 4
    assert not any("text" in signal for signal in entries(path, "?columns=ppg:data/1/PPG_Raw")[0].signals)


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(shape, numbers, name=b"PLETH", kind=6):
    parts = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, parts + element(1, name) + numbers)


HEADER = b"MATLAB 5.0".ljust(124) + b"\0\1IM"
DEEP = b""
for _ in range(40):
    DEEP = element(
        14, element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"") + DEEP
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"\0\0\0\0" * 40, "not_a_recording"),  # version 4
        (HEADER, "not_a_recording"),
        (HEADER + matrix((9, 2**28), element(9, bytes(80))), "truncated_file"),
        (HEADER + matrix((1, 10), struct.pack("<II", 9, 2**31)), "truncated_file"),
        (HEADER + matrix((-1, 10), element(9, bytes(80))), "bad_header"),
        (HEADER + matrix((1, 10), element(99, bytes(80))), "unreadable_file"),
        (HEADER + element(15, zlib.compress(bytes(2**27)))[:-4], "unreadable_file"),  # a bomb
        (HEADER + element(15, b"no zlib at all"), "unreadable_file"),
        (HEADER + element(15, zlib.compress(matrix((1, 500), element(9, bytes(4000))))[:-9]), "truncated_file"),
        (HEADER + DEEP, "not_a_recording"),
    ],
)
def test_damaged_files_and_bombs_are_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    (entry,) = entries(path, "?rate_hz=50")
    assert isinstance(entry, Refused)
    assert entry.reason in REASONS
    assert (entry.reason, str(path) in entry.detail) == (reason, True)


@pytest.mark.parametrize("packed", [False, True])
def test_file_cut_after_it_was_listed_is_an_error(tmp_path, packed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"PLETH": np.random.default_rng(0).normal(size=5000)}, do_compression=packed)
    (entry,) = entries(path, "?rate_hz=50")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(RecordingError) as caught:
        entry.read(0.0, 100.0, ["ppg"])
    assert caught.value.reason == "truncated_file"
