"""NumPy files: shapes, names, rates, spans, and what is refused; above all pickles."""

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
