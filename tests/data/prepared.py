"""Small archives on disk and stores prepared from them, for tests of preparation and of what reads its stores."""

import hashlib
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.data.prepare import prepare_store
from jaxbio.data.recordings import parse_source
from jaxbio.data.store import Store, open_store

RATE_HZ = 100.0


def beating_signals(seed: int, duration_s: float, rate_hz: float = RATE_HZ) -> dict[str, np.ndarray]:
    """PPG and ECG of a regular heart, float32, with more noise in some half minutes than in others."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    beat = np.cumsum(np.full(time_s.size, rng.uniform(1.0, 1.6) / rate_hz)) % 1.0
    noise = rng.choice([0.01, 0.1, 0.5, 2.0], size=time_s.size // 3000 + 1)[np.arange(time_s.size) // 3000]
    ppg = np.exp(-(((beat - 0.3) / 0.12) ** 2)) + 0.3 * np.exp(-(((beat - 0.6) / 0.15) ** 2))
    ecg = np.exp(-(((beat - 0.5) / 0.015) ** 2)) + 0.2 * np.exp(-(((beat - 0.75) / 0.05) ** 2))
    return {
        "PLETH": (ppg + 0.3 * noise * rng.normal(size=time_s.size)).astype(np.float32),
        "II": (ecg + 0.3 * noise * rng.normal(size=time_s.size)).astype(np.float32),
    }


def write_archive(folder: Path, recordings: int, minutes: float = 2.2, first: int = 0) -> Path:
    """Write `recordings` NumPy files, named and seeded by their number, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + recordings):
        write_recording(folder / f"r{number:03d}.npz", beating_signals(number, 60 * minutes))
    return folder


def write_recording(path: Path, signals: dict[str, np.ndarray], rate_hz: float = RATE_HZ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, rate_hz=rate_hz, **signals)


def write_mixture(path: Path, whole: Path, seed: int) -> None:
    """Write a recording of two minutes: the first is that of the recording `whole`, the second its own."""
    own = beating_signals(seed, 60)
    with np.load(whole) as known:
        signals = {name: np.concatenate([known[name][: x_T.size], x_T]) for name, x_T in own.items()}
    write_recording(path, signals)


def small_config(**changes: object) -> ConfigDict:
    """Default fields with splits that a few subjects fill and shards of a few recordings; `section__field=value`."""
    config = fields.change(fields.defaults(), {"prepare.split": (0.5, 0.3, 0.2), "prepare.shard_bytes": 400_000})
    return fields.change(config, {name.replace("__", "."): value for name, value in changes.items()})


def prepare(archive: Path, out: Path, config: ConfigDict | None = None, **options) -> Store:
    """Prepare a folder of NumPy files and open the store."""
    prepare_store([parse_source(f"numpy:{archive}")], config or small_config(), out, progress=False, **options)
    return open_store(out)


def bytes_of(folder: Path) -> dict[str, str]:
    """Hash of every file of a store but its report, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".html"
    }
