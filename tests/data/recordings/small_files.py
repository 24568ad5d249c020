"""Small recordings that the tests of readers write for themselves."""

import gzip
from pathlib import Path

import numpy as np
import wfdb

NAMES = {"ppg": ("PLETH", "PPG"), "ecg": ("II", "MLII", "ECG", "V"), "abp": ("ABP",)}


def _encode_310(digital: np.ndarray) -> np.ndarray:
    """Three samples in two words: eleven low bits of each word but the lowest, and the five high bits of both."""
    a, b, c = (digital.reshape(-1, 3) & 0x3FF).T
    return np.stack([a << 1 | (c & 0x1F) << 11, b << 1 | (c >> 5) << 11], axis=1).astype("<u2")


def _encode_311(digital: np.ndarray) -> np.ndarray:
    """Three samples in the thirty low bits of a double word."""
    a, b, c = (digital.reshape(-1, 3) & 0x3FF).T
    return (a | b << 10 | c << 20).astype("<u4")


# Formats that the wfdb library does not write, as signal(5) defines them.
_ENCODERS = {
    "8": lambda digital: np.diff(digital, axis=0, prepend=0).astype("i1"),
    "61": lambda digital: digital.astype(">i2"),
    "160": lambda digital: (digital + 32768).astype("<u2"),
    "310": _encode_310,
    "311": _encode_311,
}


def write_record(
    folder: Path,
    name: str = "r1",
    *,
    names: tuple[str, ...] = ("II", "PLETH"),
    units: tuple[str, ...] = ("mV", "NU"),
    rate_hz: float = 125.0,
    seconds: float = 60.0,
    fmt: str = "16",
    seed: int = 0,
) -> np.ndarray:
    """Write a WFDB record through the wfdb library and return its signals as integers, (samples, signals)."""
    rng = np.random.default_rng(seed)
    bound = {"80": 100, "310": 400, "311": 400, "8": 60}.get(fmt, 1500)
    digital = rng.integers(-bound, bound, (round(rate_hz * seconds), len(names)), dtype=np.int64)
    if fmt == "8":
        digital = np.cumsum(rng.integers(-60, 60, digital.shape), axis=0)
    gain, baseline = [200.0, 50.0, 10.0][: len(names)], [0, -30, 7][: len(names)]
    if fmt in _ENCODERS:
        _ENCODERS[fmt](digital).tofile(folder / f"{name}.dat")
        lines = [
            f"{name}.dat {fmt} {gain[k]}({baseline[k]})/{units[k]} 16 0 0 0 0 {names[k]}" for k in range(len(names))
        ]
        (folder / f"{name}.hea").write_text("\n".join([f"{name} {len(names)} {rate_hz} {len(digital)}", *lines]) + "\n")
        return digital
    wfdb.wrsamp(
        name,
        rate_hz,
        list(units),
        list(names),
        d_signal=digital,
        fmt=[fmt] * len(names),
        adc_gain=gain,
        baseline=baseline,
        write_dir=str(folder),
    )
    return digital


def physical(digital: np.ndarray, signal: int) -> np.ndarray:
    """Return what reading signal number `signal` of `write_record` should give, in float64."""
    return (digital[:, signal] - [0, -30, 7][signal]) / [200.0, 50.0, 10.0][signal]


def write_frames(
    folder: Path, name: str, lines: list[str], frames: list[np.ndarray], record_line: str | None = None
) -> None:
    """Write a header by hand and format-16 frames: each array (frames, samples a frame) is one signal."""
    raw = np.concatenate([signal.reshape(len(signal), -1) for signal in frames], axis=1).astype("<i2")
    raw.tofile(folder / f"{name}.dat")
    first = record_line or f"{name} {len(lines)} 125 {len(raw)}"
    (folder / f"{name}.hea").write_text("\n".join([first, *lines]) + "\n")


def write_csv(path: Path, columns: dict[str, np.ndarray | list]) -> Path:
    """Write columns under their names as CSV (gzip where the suffix says so)."""
    rows = [",".join(columns)] + [",".join(str(cell) for cell in row) for row in zip(*columns.values())]
    text = ("\n".join(rows) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
