"""Artefacts with a definition: noise of a given power ratio, dropout of an exact share, clipping, a lead that is off.

SNR is the variance of the clean signal over that of the added noise, over the whole signal.

    noisy_T = add_noise(x_T, "motion", 5.0, np.random.default_rng(0), rate_hz=300.0)
"""

import numpy as np
from scipy import fft

NOISES: tuple[str, ...] = ("wander", "mains", "mains_60", "white", "emg", "motion")
_BANDS_HZ = {"wander": (0.05, 0.5), "white": (0.0, np.inf), "emg": (20.0, 150.0), "motion": (0.3, 10.0)}
_MAINS_HZ = {"mains": 50.0, "mains_60": 60.0}
_MOTION_S, _MOTION_SHARE = (2.0, 6.0), 0.5
_DROPOUT_S = (0.5, 3.0)


def make_noise(kind: str, length: int, rng: np.random.Generator, rate_hz: float) -> np.ndarray:
    """Return `length` samples of noise of unit variance, float64.

    wander: 0.05-0.5 Hz; mains: 50 Hz of random phase (mains_60: 60 Hz); white; emg: 20-150 Hz (as far as rate_hz
    reaches); motion: 1/f amplitude over 0.3-10 Hz in bursts of 2 to 6 s over half the signal.
    Raises ValueError for another kind, and where rate_hz cannot carry it.
    """
    if kind not in NOISES:
        raise ValueError(f"noise {kind!r}; known: {', '.join(NOISES)}")
    if kind in _MAINS_HZ:
        if rate_hz <= 2 * _MAINS_HZ[kind]:
            raise ValueError(f"{rate_hz:g} Hz cannot carry {_MAINS_HZ[kind]:g} Hz")
        cycles_T = _MAINS_HZ[kind] / rate_hz * np.arange(length)
        noise_T = np.sin(2 * np.pi * (cycles_T + rng.random()))
    else:
        low_hz, high_hz = _BANDS_HZ[kind]
        frequency_hz = fft.rfftfreq(length, 1 / rate_hz)
        gain = ((frequency_hz >= low_hz) & (frequency_hz <= high_hz)).astype(np.float64)
        if not gain[1:].any():
            raise ValueError(f"{length} samples at {rate_hz:g} Hz cannot carry {kind} of {low_hz:g}-{high_hz:g} Hz")
        if kind == "motion":
            gain /= np.maximum(frequency_hz, low_hz)
        noise_T = fft.irfft(fft.rfft(rng.standard_normal(length)) * gain, n=length)
        if kind == "motion":
            noise_T = noise_T * random_blocks(rng, length, _MOTION_SHARE, _MOTION_S, rate_hz)
    return noise_T / noise_T.std()


def add_noise(x: np.ndarray, kind: str, snr_db: float, rng: np.random.Generator, rate_hz: float) -> np.ndarray:
    """Return x (..., T) with noise of `kind` (see `make_noise`) at snr_db added to each row; NaN stays NaN."""
    rows_BT = x.reshape(-1, x.shape[-1])
    noise_BT = np.stack([make_noise(kind, x.shape[-1], rng, rate_hz) for _ in rows_BT])
    spread_B = np.nanstd(rows_BT, axis=-1) * 10 ** (-snr_db / 20)
    return (rows_BT + spread_B[:, None] * noise_BT).astype(x.dtype).reshape(x.shape)


def add_dropout(
    x: np.ndarray, share: float, rng: np.random.Generator, rate_hz: float, *, fill: str = "nan"
) -> np.ndarray:
    """Return x (..., T) with blocks of 0.5-3 s lost, together exactly `share` of each row.

    fill: "nan", or "hold" for the last value before the block. Raises ValueError for another.
    """
    if fill not in ("nan", "hold"):
        raise ValueError(f"fill {fill!r}; known: nan, hold")
    lost_BT = x.reshape(-1, x.shape[-1]).copy()
    for row_T in lost_BT:
        lost_T = random_blocks(rng, len(row_T), share, _DROPOUT_S, rate_hz)
        row_T[lost_T] = np.nan if fill == "nan" else held(row_T, lost_T)[lost_T]
    return lost_BT.reshape(x.shape)


def held(x_T: np.ndarray, lost_T: np.ndarray) -> np.ndarray:
    """Return x_T with every lost sample (bool) replaced by the last one before it that was not."""
    source_T = np.where(lost_T, 0, np.arange(len(x_T)))
    return x_T[np.maximum.accumulate(source_T)]


def clip_extremes(x_T: np.ndarray, share: float) -> np.ndarray:
    """Return x_T cut off above and below, so that `share` of its samples rest at the limits."""
    low, high = np.nanquantile(x_T, [share / 2, 1 - share / 2])
    return np.clip(x_T, low, high)


def random_blocks(
    rng: np.random.Generator, length: int, share: float, block_s: tuple[float, float], rate_hz: float
) -> np.ndarray:
    """Return a mask (bool, length) of blocks of block_s seconds (uniform) that cover exactly `share` of it."""
    total = round(share * length)
    least = min(total, round(block_s[0] * rate_hz))
    sizes: list[int] = []
    while (rest := total - sum(sizes)) > 0:
        size = min(rest, round(rng.uniform(*block_s) * rate_hz))
        # a remainder shorter than a block joins the last one
        sizes.append(rest if rest - size < least else size)
    cuts = np.sort(rng.integers(0, length - total + 1, len(sizes)))
    mask_T = np.zeros(length, bool)
    placed = 0
    for cut, size in zip(cuts, sizes):
        mask_T[cut + placed : cut + placed + size] = True
        placed += size
    return mask_T
