"""Pickles of arrays: values of NumPy's own, whatever the protocol, and nothing of theirs that runs."""

import pickle

import numpy as np
import pytest

from jaxbio.data.recordings import REASONS, Recording, RecordingError, Refused, list_recordings, parse_source

NAMES = {"ppg": ("BVP",), "ecg": ("ECG",)}
RATES = "?rates=ppg:64,ecg:700"


def wesad():
    """Return what a file of WESAD holds: nested dictionaries, columns of float64, labels at the chest's rate."""
    rng = np.random.default_rng(5)
    chest = {"ECG": rng.normal(size=(42_000, 1)), "ACC": rng.normal(size=(42_000, 3)).astype(np.float32)}
    wrist = {"BVP": rng.normal(size=(3840, 1)), "ACC": np.asfortranarray(rng.integers(0, 99, (1920, 3)))}
    return {"signal": {"chest": chest, "wrist": wrist}, "label": np.ones(42_000, np.int32), "subject": "S2"}


def one(path, query=RATES):
    (entry,) = list_recordings(parse_source(f"pickle:{path}{query}"), NAMES)
    return entry


def python_2(array):
    """Return an array as Python 2 pickled it by default (protocol 0): its bytes escaped, between quotes."""
    shape = "".join(f"I{length}\n" for length in array.shape)
    kind = array.dtype.str
    made = f"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n({shape}tcnumpy\ndtype\n"
    typed = f"(S'{kind[1:]}'\nI0\nI1\ntR(I3\nS'{kind[0]}'\nNNNI-1\nI-1\nI0\ntbI00\n"
    return f"{made}{typed}S{repr(array.tobytes())[1:]}\ntb".encode()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_nested_dictionaries_are_read_by_path_at_their_rates(tmp_path, protocol):
    path, content = tmp_path / "S2.pkl", wesad()
    path.write_bytes(pickle.dumps(content, protocol))
    entry = pickle.loads(pickle.dumps(one(path)))
    assert (entry.duration_s, {role: channel.rate_hz for role, channel in entry.channels.items()}) == (
        60.0,
        {"ppg": 64.0, "ecg": 700.0},
    )
    for role, array in (("ecg", content["signal"]["chest"]["ECG"]), ("ppg", content["signal"]["wrist"]["BVP"])):
        rate_hz = entry.channels[role].rate_hz
        expected = array[round(10.1 * rate_hz) : round(40 * rate_hz), 0].astype(np.float32)
        np.testing.assert_array_equal(entry.read(10.1, 40.0, [role])[role], expected)
    assert "signal/wrist/ACC/3" in entry.signals


def test_columns_of_both_orders_of_axes_are_read(tmp_path):
    path, content = tmp_path / "S2.pkl", wesad()
    path.write_bytes(pickle.dumps(content, 2))
    entry = one(path, "?columns=ppg:signal/wrist/ACC/2,ecg:signal/chest/ACC/3&rates=ppg:32,ecg:700")
    read = entry.read(1.0, 59.0, ["ppg", "ecg"])
    np.testing.assert_array_equal(read["ppg"], content["signal"]["wrist"]["ACC"][32:1888, 1])
    np.testing.assert_array_equal(read["ecg"], content["signal"]["chest"]["ACC"][700:41_300, 2])


def test_protocol_0_of_python_2_is_read(tmp_path):
    path, content = tmp_path / "S3.pkl", wesad()
    wrist = content["signal"]["wrist"]
    path.write_bytes(b"(dp0\nS'BVP'\np1\n" + python_2(wrist["BVP"]) + b"sS'rate'\nF64.0\ns.")
    np.testing.assert_array_equal(pickle.loads(path.read_bytes(), encoding="latin1")["BVP"], wrist["BVP"])
    expected = wrist["BVP"][640:1280, 0].astype(np.float32)
    np.testing.assert_array_equal(one(path, "?rates=ppg:rate").read(10.0, 20.0, ["ppg"])["ppg"], expected)


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was run')",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_passed_over(tmp_path, protocol):
    path = tmp_path / "trap.pkl"
    path.write_bytes(pickle.dumps({"trap": Trap(), **wesad()}, protocol))
    assert isinstance(one(path), Recording if protocol else Refused)
    path.write_bytes(pickle.dumps(Trap(), protocol))
    assert one(path).reason == "not_a_recording"


def test_object_arrays_are_no_signals(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"BVP": np.array([Trap()] * 100, object)}, 2))
    assert one(path).reason == "not_a_recording"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "unreadable_file"),
        (b"\x80\x02}q\x00(", "unreadable_file"),
        (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x", "truncated_file"),  # BINBYTES8 of an exabyte
        (b"\x80\x02]q\x00h\x00a.", "not_a_recording"),  # a list of itself
        (b"\x80\x02]" + b"]q\x00(h\x00h\x00e" * 300 + b".", "not_a_recording"),
        (b"\x80\x02" + b"(" * 10**6 + b".", "unreadable_file"),
        (b"\x80\x02t.", "unreadable_file"),
        (pickle.dumps(wesad(), 2)[:5000], "truncated_file"),
        (pickle.dumps({"BVP": np.zeros(99)}, 2).replace(b"Kc\x85", b"M\xff\xff\x85"), "truncated_file"),
    ],
)
def test_damaged_and_endless_pickles_are_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    entry = one(path)
    assert isinstance(entry, Refused)
    assert entry.reason in REASONS
    assert (entry.reason, str(path) in entry.detail) == (reason, True)


def test_signal_without_a_rate_says_what_to_add(tmp_path):
    path = tmp_path / "S2.pkl"
    path.write_bytes(pickle.dumps(wesad(), 2))
    assert (one(path, "").reason, "rates=" in one(path, "").detail) == ("bad_rate", True)
    assert one(path, "?rates=ppg:64,ecg:350").reason == "bad_duration"
    assert one(path, "?rates=ppg:fs,ecg:350").reason == "bad_rate"


def test_file_cut_after_it_was_listed_is_an_error(tmp_path):
    path = tmp_path / "S2.pkl"
    path.write_bytes(pickle.dumps(wesad(), 4))
    entry = one(path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(RecordingError) as caught:
        entry.read(0.0, 60.0, ["ecg"])
    assert caught.value.reason == "truncated_file"
