"""Physical values of every storage format: those of the wfdb library, or signal(5)'s own words where the two differ."""

import numpy as np
import pytest
import wfdb
from small_files import NAMES, write_record

from jaxbio.data.recordings import list_recordings, parse_source
from jaxbio.data.recordings.wfdb_formats import STORAGES

PACKED = {"212": (2, 12), "310": (3, 10), "311": (3, 10)}


def pack(digital_N: np.ndarray, fmt: str) -> bytes:
    """Pack samples bit by bit, as signal(5) words it; a last group is filled up with zeros."""
    group, bits = PACKED[fmt]
    padded = np.pad(digital_N, (0, -len(digital_N) % group)).reshape(-1, group) & (2**bits - 1)
    out = bytearray()
    for samples in padded.tolist():
        if fmt == "212":  # twelve low bits of a byte pair; four high bits of it over the next byte
            a, b = samples
            out += (a | (b >> 8) << 12).to_bytes(2, "little") + bytes([b & 0xFF])
        elif fmt == "310":  # bits 1 to 10 of each byte pair; the five high bits of both, the first pair's the lower
            a, b, c = samples
            out += (a << 1 | (c & 31) << 11).to_bytes(2, "little") + (b << 1 | (c >> 5) << 11).to_bytes(2, "little")
        else:  # thirty low bits of four bytes
            a, b, c = samples
            out += (a | b << 10 | c << 20).to_bytes(4, "little")
    return bytes(out)


def encode(digital_FS: np.ndarray, fmt: str) -> bytes:
    """Return frames (F, samples a frame) in a format."""
    flat = digital_FS.reshape(-1)
    if fmt in PACKED:
        return pack(flat, fmt)
    if fmt == "24":
        return b"".join(int(value).to_bytes(3, "little", signed=True) for value in flat)
    if fmt == "8":
        raise ValueError("differences are by signal")
    kinds = {"16": ("<i2", 0), "32": ("<i4", 0), "61": (">i2", 0), "80": ("u1", 128), "160": ("<u2", 32768)}
    kind, offset = kinds[fmt]
    return (flat + offset).astype(kind).tobytes()


LIMITS = {"8": 127, "16": 32767, "24": 2**23 - 1, "32": 2**31 - 1, "61": 32767, "80": 127, "160": 32767}
LIMITS |= {"212": 2047, "310": 511, "311": 511}


def write_by_hand(folder, fmt, frames=1501, per_frame=(1, 2), offset=0, gains=(200.0, -12.5), baselines=(7, -3)):
    """Write two signals of random samples over the whole range, a missing one among them; return them by signal."""
    rng = np.random.default_rng(int(fmt))
    limit = LIMITS[fmt]
    signals = [rng.integers(-limit, limit, (frames, count), endpoint=True) for count in per_frame]
    if fmt == "8":
        differences = [rng.integers(-128, 127, signal.shape, endpoint=True) for signal in signals]
        initial = (-50, 1000)
        data = np.concatenate(differences, axis=1).astype("i1").tobytes()
        signals = [
            (first + np.cumsum(difference.reshape(-1))).reshape(difference.shape)
            for first, difference in zip(initial, differences)
        ]
    else:
        initial = (0, 0)
        signals[0][10] = -limit - 1  # every other format's "missing"
        data = encode(np.concatenate(signals, axis=1), fmt)
    (folder / "r.dat").write_bytes(bytes(offset) + data)
    lines = [f"r 2 125 {frames}"]
    for name, unit, count, gain, baseline, first in zip(
        ("II", "PLETH"), ("mV", "NU"), per_frame, gains, baselines, initial
    ):
        lines.append(f"r.dat {fmt}x{count}+{offset} {gain}({baseline})/{unit} 16 0 {first} 0 0 {name}")
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    return [signal.reshape(-1) for signal in signals]


@pytest.mark.parametrize("offset", [0, 24])
@pytest.mark.parametrize("fmt", STORAGES)
def test_every_format_gives_what_was_packed_and_what_wfdb_gives(tmp_path, fmt, offset):
    digital = write_by_hand(tmp_path, fmt, offset=offset)
    (recording,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    theirs = wfdb.rdrecord(str(tmp_path / "r"), smooth_frames=False).e_p_signal
    for signal, (role, gain, baseline) in enumerate((("ecg", 200.0, 7), ("ppg", -12.5, -3))):
        ours = recording.read(0.0, recording.duration_s, [role])[role]
        packed = (
            np.where(digital[signal] == -LIMITS[fmt] - 1, np.nan, digital[signal]) if fmt != "8" else digital[signal]
        )
        np.testing.assert_allclose(ours, ((packed - baseline) / gain).astype(np.float32), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours, theirs[signal].astype(np.float32), rtol=1e-6, atol=1e-6)
        for start_s, stop_s in ((1.0, 2.0), (3.96, 5.008), (11.0, 12.008)):  # groups cut at either end
            rate_hz = recording.channels[role].rate_hz
            span = slice(round(start_s * rate_hz), round(stop_s * rate_hz))
            np.testing.assert_array_equal(recording.read(start_s, stop_s, [role])[role], ours[span])


@pytest.mark.parametrize("fmt", ["508", "516", "524"])
def test_compressed_formats_give_what_wfdb_gives(tmp_path, fmt):
    bits = int(fmt) - 500
    rng = np.random.default_rng(bits)
    digital = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (1500, 2), dtype=np.int64)
    wfdb.wrsamp("r", 125, ["mV", "NU"], ["II", "PLETH"], d_signal=digital, fmt=[fmt] * 2, adc_gain=[200.0, 3.0],
                baseline=[7, -3], write_dir=str(tmp_path))  # fmt: skip
    (recording,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    theirs = wfdb.rdrecord(str(tmp_path / "r")).p_signal
    for signal, role in enumerate(("ecg", "ppg")):
        ours = recording.read(0.0, 12.0, [role])[role]
        np.testing.assert_allclose(ours, theirs[:, signal], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(recording.read(2.0, 3.0, [role])[role], ours[250:375])


def test_compressed_signals_of_several_samples_a_frame(tmp_path):
    fast = np.arange(-1000, 1000)
    wfdb.wrsamp("r", 500, ["mV"], ["II"], d_signal=fast[:, None], fmt=["516"], adc_gain=[1.0], baseline=[0],
                write_dir=str(tmp_path))  # fmt: skip
    line = (tmp_path / "r.hea").read_text().splitlines()[1].replace(" 516 ", " 516x4 ")
    (tmp_path / "r.hea").write_text(f"r 1 125 500\n{line}\n")
    (recording,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    assert (recording.channels["ecg"].rate_hz, recording.duration_s) == (500.0, 4.0)
    np.testing.assert_array_equal(recording.read(0.0, 4.0, ["ecg"])["ecg"], fast)
    np.testing.assert_array_equal(recording.read(1.5, 2.5, ["ecg"])["ecg"], fast[750:1250])


@pytest.mark.parametrize("fmt", ["212", "310", "311"])
@pytest.mark.parametrize("samples", [1500, 1501, 1502])
def test_packed_formats_may_end_within_a_group(tmp_path, fmt, samples):
    digital = np.random.default_rng(1).integers(-500, 500, samples)
    data = pack(digital, fmt)
    whole, rest = divmod(samples, PACKED[fmt][0])
    # Only the bytes that the last samples take.
    last_bytes = {"212": (0, 2), "310": (0, 2, 4), "311": (0, 2, 3)}[fmt][rest]
    (tmp_path / "r.dat").write_bytes(data[: whole * {"212": 3}.get(fmt, 4) + last_bytes])
    (tmp_path / "r.hea").write_text(f"r 1 125 {samples}\nr.dat {fmt} 1/mV 12 0 0 0 0 II\n")
    (recording,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    assert recording.duration_s == samples / 125
    np.testing.assert_array_equal(recording.read(0.0, samples / 125, ["ecg"])["ecg"], digital)


def test_unused_bits_of_format_311_say_nothing(tmp_path):
    """The wfdb library takes one of them into the third sample; signal(5) calls them unused."""
    digital = np.array([1, -2, 3, 511, -511, 0])
    words = np.frombuffer(pack(digital, "311"), "<u4") | np.uint32(0xC0000000)
    (tmp_path / "r.dat").write_bytes(np.tile(words, 100).tobytes())
    (tmp_path / "r.hea").write_text("r 1 125\nr.dat 311 1/mV 12 0 0 0 0 II\n")
    (recording,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    np.testing.assert_array_equal(recording.read(0.0, 4.8, ["ecg"])["ecg"], np.tile(digital, 100))


def test_format_8_keeps_its_sum_from_the_beginning_of_a_long_file(tmp_path):
    difference = np.random.default_rng(2).integers(-9, 10, 3_000_000).astype("i1")
    difference.tofile(tmp_path / "r.dat")
    (tmp_path / "r.hea").write_text(
        "r 2 500 1500000\n" + "".join(f"r.dat 8 1/mV 12 0 5 0 0 {n}\n" for n in ("II", "V"))
    )
    (recording,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    ecg = recording.read(2990.0, 3000.0, ["ecg"])["ecg"]
    np.testing.assert_array_equal(ecg, 5 + np.cumsum(difference[0::2].astype(int))[-5000:])


def test_a_flac_of_other_channels_than_its_header_is_refused(tmp_path):
    write_record(tmp_path, "r", fmt="516")
    header = (tmp_path / "r.hea").read_text().splitlines()
    (tmp_path / "r.hea").write_text(f"r 1 125 7500\n{header[1]}\n")
    (entry,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    assert entry.reason == "bad_header"
    (tmp_path / "r.dat").write_bytes(b"fLaC" + bytes(5000))
    (tmp_path / "r.hea").write_text("\n".join(header) + "\n")
    (entry,) = list_recordings(parse_source(f"wfdb:{tmp_path}"), NAMES)
    assert entry.reason == "unreadable_file"
