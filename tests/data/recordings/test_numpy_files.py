"""NumPy files: shapes, names, rates, spans, and what is refused; above all pickles."""

import time
import zipfile

import numpy as np
import pytest
from small_files import NAMES

from jaxbio.data.recordings import RecordingError, Refused, list_recordings, parse_source


def one(path, query=""):
    (entry,) = list_recordings(parse_source(f"numpy:{path}{query}"), NAMES)
    return entry


@pytest.mark.parametrize("shape", ["(T,)", "(2, T)", "(T, 2)"])
def test_npy_signals_are_numbered_along_the_shorter_axis(tmp_path, shape):
    signals = np.random.default_rng(0).normal(size=(2, 1000))
    stored = {"(T,)": signals[0], "(2, T)": signals, "(T, 2)": signals.T}[shape]
    np.save(tmp_path / "a.npy", stored)
    recording = one(tmp_path, "?rate_hz=50&columns=ppg:1" + (",ecg:2" if shape != "(T,)" else ""))
    assert recording.duration_s == 20.0
    for role, signal in zip(recording.channels, signals):
        read = recording.read(3.0, 5.0, [role])[role]
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, signal[150:250].astype(np.float32))


def test_npz_entries_are_signals_and_state_their_rate(tmp_path):
    ppg, ecg = np.arange(1000.0), -np.arange(1000, dtype=np.int16)
    np.savez_compressed(tmp_path / "p7.npz", PLETH=ppg, ii=ecg, rate_hz=100.0, other=np.zeros((3, 3)))
    recording = one(tmp_path)
    assert (recording.recording, recording.duration_s) == ("p7", 10.0)
    signals = recording.read(1.0, 2.0, ["ppg", "ecg"])
    np.testing.assert_array_equal(signals["ppg"], ppg[100:200])
    np.testing.assert_array_equal(signals["ecg"], ecg[100:200])


class Bomb:
    """What a pickled array could run when it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickled_arrays_are_refused_and_not_run(tmp_path, name):
    objects = np.array([Bomb(), Bomb()], dtype=object)
    if name.endswith("npy"):
        np.save(tmp_path / name, objects, allow_pickle=True)
    else:
        np.savez(tmp_path / name, PLETH=objects)
    entry = one(tmp_path, "?rate_hz=50")
    assert (entry.reason, name in entry.detail) == ("pickled_array", True)


def test_bad_arrays_are_refused_with_a_reason(tmp_path):
    cases = {
        "words": (np.array(["a", "b"]), "not_a_recording"),
        "complex": (np.zeros(100, complex), "not_a_recording"),
        "cube": (np.zeros((3, 3, 3)), "not_a_recording"),
        "nothing": (np.zeros((0,)), "not_a_recording"),
        "scalar": (np.float64(3), "not_a_recording"),
    }
    for name, (array, reason) in cases.items():
        path = tmp_path / f"{name}.npy"
        np.save(path, array)
        entry = one(path, "?rate_hz=50&columns=ppg:1")
        assert isinstance(entry, Refused), name
        assert entry.reason == reason, name


def test_truncated_and_foreign_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(1000))
    np.savez(tmp_path / "b.npz", PLETH=np.zeros(1000))
    for name in ("a.npy", "b.npz"):
        whole = (tmp_path / name).read_bytes()
        for kept in (0, 3, 60, len(whole) // 2):
            (tmp_path / name).write_bytes(whole[:kept])
            entry = one(tmp_path / name, "?rate_hz=50&columns=ppg:1")
            assert entry.reason in ("empty_file", "unreadable_file"), (name, kept)


def test_rate_must_come_from_somewhere(tmp_path):
    np.savez(tmp_path / "b.npz", PLETH=np.zeros(1000))
    assert one(tmp_path).reason == "bad_rate"


def test_file_that_changed_after_listing_is_a_recording_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(1000))
    recording = one(path, "?rate_hz=50&columns=ppg:1")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(RecordingError) as caught:
        recording.read(0.0, 10.0, ["ppg"])
    assert caught.value.reason == "unreadable_file"
    np.save(path, np.zeros(100))
    with pytest.raises(RecordingError) as caught:
        recording.read(0.0, 10.0, ["ppg"])
    assert caught.value.reason == "truncated_file"


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", ">u2"])
@pytest.mark.parametrize("shape", [(3, 500), (500, 3)])
def test_spans_are_read_from_the_disk_in_any_order_of_axes_and_bytes(tmp_path, shape, order, dtype):
    values = np.random.default_rng(0).integers(0, 999, shape)
    np.save(tmp_path / "a.npy", np.array(values, dtype, order=order))
    recording = one(tmp_path, "?rate_hz=50&columns=ppg:1,ecg:3")
    signals = values if shape[0] == 3 else values.T
    for start_s, stop_s in ((0.0, 10.0), (3.0, 5.0), (9.98, 10.0)):
        span = slice(round(start_s * 50), round(stop_s * 50))
        read = recording.read(start_s, stop_s, ["ppg", "ecg"])
        np.testing.assert_array_equal(read["ppg"], signals[0, span])
        np.testing.assert_array_equal(read["ecg"], signals[2, span])


OTHERS = {
    "text": np.array("p7"),
    "a list of texts": np.array(["a", "b"]),
    "dates": np.arange("2020-01-01", "2020-01-03", dtype="M8[s]"),
    "a mask": np.zeros(1000, bool),
    "a table": np.zeros((3, 3)),
    "objects": np.array([{"age": 62}, None], object),
    "complex": np.zeros(1000, complex),
    "nothing": np.zeros(0),
    "another length": np.zeros(17),
    "a number": np.float64(62.0),
    "a record": np.zeros(3, [("a", "f4"), ("b", "i4")]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_entries_that_are_no_signals_are_passed_over(tmp_path, case):
    ppg = np.arange(1000.0)
    np.savez(tmp_path / "a.npz", aside=OTHERS[case], PLETH=ppg, ii=-ppg[None, :], rate_hz=np.array([100.0]))
    recording = one(tmp_path)
    assert (recording.duration_s, set(recording.channels)) == (10.0, {"ppg", "ecg"})
    np.testing.assert_array_equal(recording.read(0.0, 10.0, ["ecg"])["ecg"], -ppg)


def test_an_entry_that_is_no_array_is_passed_over(tmp_path):
    np.savez(tmp_path / "a.npz", PLETH=np.arange(1000.0), rate_hz=100.0)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "made by hand")
    assert one(tmp_path).duration_s == 10.0


@pytest.mark.parametrize(("case", "reason"), [("a mask", "not_a_recording"), ("objects", "pickled_array")])
def test_an_entry_that_is_named_for_a_role_says_why_it_is_no_signal(tmp_path, case, reason):
    np.savez(tmp_path / "a.npz", PLETH=OTHERS[case], II=np.arange(1000.0), rate_hz=100.0)
    (entry,) = list_recordings(parse_source(f"numpy:{tmp_path}"), NAMES, required=("ppg",))
    assert (entry.reason, "entry 'PLETH'" in entry.detail) == (reason, True)
    assert set(one(tmp_path).channels) == {"ecg"}


def test_a_rate_that_is_no_number_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", PLETH=np.arange(1000.0), rate_hz="100")
    entry = one(tmp_path)
    assert (entry.reason, "'rate_hz' holds <U3" in entry.detail) == ("bad_rate", True)


def test_a_unit_that_is_assumed_is_used(tmp_path):
    np.savez(tmp_path / "a.npz", II=np.full(1000, 500.0), rate_hz=100.0)
    recording = one(tmp_path, "?assume_unit=ecg:uV")
    assert recording.channels["ecg"].unit == "mV"
    np.testing.assert_allclose(recording.read(0.0, 1.0, ["ecg"])["ecg"], 0.5)


def test_a_damaged_entry_is_unpacked_once(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, PLETH=np.random.default_rng(0).normal(size=900_000), rate_hz=125.0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    recording = one(tmp_path)
    began = time.process_time()
    for start_s in range(0, 7200, 30):
        with pytest.raises(RecordingError, match="'PLETH'"):
            recording.read(start_s, start_s + 30, ["ppg"])
    assert time.process_time() - began < 1.5
