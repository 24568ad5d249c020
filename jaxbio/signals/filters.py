"""Spectra, FFT resampling, band-passes and running windows of many segments at once.

Everything acts on the last axis, row by row: a row's result does not depend on the rows beside it, to the last bit.
It must not know what a heartbeat is.

    spectrum_BS = spectrum(x_BN)
    x_BT = from_spectrum(spectrum_BS, samples=3750, length=9000)
"""

from collections.abc import Sequence

import numpy as np
from scipy import fft


def spectrum(x_BN: np.ndarray) -> np.ndarray:
    """Return the real FFT of each row: (B, N) floating to (B, N // 2 + 1) complex of the same precision."""
    return fft.rfft(x_BN, axis=-1)


def from_spectrum(spectrum_BS: np.ndarray, *, samples: int, length: int) -> np.ndarray:
    """Return signals of `length` samples over the same time, from the spectrum of `samples` samples.

    The result is `scipy.signal.resample`'s, with its rule for the bin at half the lower rate.
    """
    shorter = min(samples, length)
    cut_BS = spectrum_BS[..., : shorter // 2 + 1]
    if shorter % 2 == 0 and length != samples:
        cut_BS = cut_BS.copy()
        cut_BS[..., -1] *= 2.0 if length < samples else 0.5
    x_BT = fft.irfft(cut_BS, n=length, axis=-1)
    if length != samples:
        x_BT *= length / samples
    return x_BT


def resample(x_BN: np.ndarray, length: int) -> np.ndarray:
    """Return each row of (B, N) floating values resampled by FFT to `length` samples over the same time.

    Values must be finite. The same as `scipy.signal.resample(x_BN, length, axis=-1)`, in the precision of the input.
    """
    samples = x_BN.shape[-1]
    return x_BN.copy() if samples == length else from_spectrum(spectrum(x_BN), samples=samples, length=length)


def hann_power(spectrum_BS: np.ndarray, *, stop: int) -> np.ndarray:
    """Return the Hann-windowed power of bins 1 .. stop - 1 from an unwindowed spectrum, the mean taken out.

    A Hann window over the whole segment is, in frequency, each bin less the mean of its neighbours (halved): no
    second FFT. Bin 0 counts as zero, as if the mean had been removed. Shape (B, min(stop, S - 1) - 1).
    """
    stop = min(stop, spectrum_BS.shape[-1] - 1)
    # real and imaginary parts side by side: two floats a bin
    part = np.ascontiguousarray(spectrum_BS[..., : stop + 1]).view(spectrum_BS.real.dtype)
    windowed = part[..., :-4] + part[..., 4:]
    windowed[..., :2] = part[..., 4:6]
    windowed *= -0.25
    windowed += 0.5 * part[..., 2:-2]
    windowed *= windowed
    return windowed[..., ::2] + windowed[..., 1::2]


def band_sum(power_BS: np.ndarray, low_hz: float, high_hz: float, duration_s: float) -> np.ndarray:
    """Return the sum (B,) of `hann_power` over the bins within low_hz <= f <= high_hz of a segment of duration_s."""
    first = max(1, int(np.ceil(low_hz * duration_s - 1e-9)))
    last = int(np.floor(high_hz * duration_s + 1e-9))
    return power_BS[..., first - 1 : last].sum(axis=-1)


def band_response(frequency_hz: np.ndarray, low_hz: float, high_hz: float, order: int = 4) -> np.ndarray:
    """Return the zero-phase magnitude of a Butterworth band-pass (high-pass times low-pass of `order`), float32."""
    with np.errstate(divide="ignore"):
        high_pass = 1.0 / np.sqrt(1.0 + (low_hz / frequency_hz) ** (2 * order))
    low_pass = 1.0 / np.sqrt(1.0 + (frequency_hz / high_hz) ** (2 * order))
    return (high_pass * low_pass).astype(np.float32)


def odd_reflection(x_BT: np.ndarray, pad: int) -> np.ndarray:
    """Return rows continued at both ends by `pad` samples of their point reflection, so that no step appears."""
    before_BT = 2 * x_BT[:, :1] - x_BT[:, pad:0:-1]
    after_BT = 2 * x_BT[:, -1:] - x_BT[:, -2 : -pad - 2 : -1]
    return np.concatenate([before_BT, x_BT, after_BT], axis=-1)


def extended(x_BT: np.ndarray, before: int, after: int, value: float | bool) -> np.ndarray:
    """Return rows with `before` and `after` samples of `value` added; np.pad at a quarter of its overhead."""
    rows, length = x_BT.shape
    wide_BT = np.empty((rows, before + length + after), x_BT.dtype)
    wide_BT[:, :before] = wide_BT[:, before + length :] = value
    wide_BT[:, before : before + length] = x_BT
    return wide_BT


def ramp(x: np.ndarray, none: float, full: float) -> np.ndarray:
    """Return 0 up to `none`, 1 from `full` on, a straight line between them; `full` may be the smaller. NaN stays."""
    return np.clip((x - none) / (full - none), 0.0, 1.0)


def share(flag_BT: np.ndarray) -> np.ndarray:
    """Return the share (B,) of samples that are flagged."""
    share_B = np.zeros(len(flag_BT))
    if len(some_R := np.flatnonzero(flag_BT.any(axis=-1))):  # few rows have any, and counting is dear
        share_B[some_R] = flag_BT[some_R].mean(axis=-1)
    return share_B


def running_max(x_BT: np.ndarray, width: int) -> np.ndarray:
    """Return the largest value within a centred window of `width` (odd) samples, cut off at the ends."""
    half = width // 2
    padded_BT = extended(x_BT, half, half, -np.inf)
    return _doubling(padded_BT, width, np.maximum)


def running_mean(x_BT: np.ndarray, width: int) -> np.ndarray:
    """Return the mean over a centred window of `width` (odd) samples; the ends count as zeros beyond."""
    half = width // 2
    padded_BT = extended(x_BT, half, half, 0)
    total_BT = np.zeros_like(x_BT)
    span, block_BT, offset = 1, padded_BT, 0
    # binary digits of the width: sums over 1, 2, 4, ... samples, laid one behind the other
    remaining = width
    while True:
        if remaining & 1:
            total_BT += block_BT[:, offset : offset + x_BT.shape[-1]]
            offset += span
        remaining >>= 1
        if not remaining:
            return total_BT / width
        block_BT = block_BT[:, :-span] + block_BT[:, span:]
        span *= 2


def in_runs(flag_BT: np.ndarray, least: int) -> np.ndarray:
    """Return where `flag_BT` (bool) holds within a run of at least `least` samples."""
    if least <= 1 or not flag_BT.any():
        return flag_BT
    if flag_BT.shape[-1] < least:
        return np.zeros_like(flag_BT)
    starts_BT = _doubling(flag_BT, least, np.logical_and)
    runs_BT = np.zeros_like(flag_BT)
    if len(some_R := np.flatnonzero(starts_BT.any(axis=-1))):
        runs_BT[some_R] = _doubling(extended(starts_BT[some_R], least - 1, least - 1, False), least, np.logical_or)
    return runs_BT


def grown(flag_BT: np.ndarray, reach: int) -> np.ndarray:
    """Return `flag_BT` (bool) with every flagged stretch longer by `reach` samples at both ends."""
    return _doubling(extended(flag_BT, reach, reach, False), 2 * reach + 1, np.logical_or)


def _doubling(x_BT: np.ndarray, width: int, combine: np.ufunc) -> np.ndarray:
    """Combine `width` neighbours by an idempotent ufunc in log2(width) passes; the result is width - 1 shorter."""
    span = 1
    while 2 * span <= width:
        x_BT = combine(x_BT[:, :-span], x_BT[:, span:])
        span *= 2
    rest = width - span
    return combine(x_BT[:, :-rest], x_BT[:, rest:]) if rest else x_BT


def running_median(x_BT: np.ndarray, width: int) -> np.ndarray:
    """Return the median over a centred window of `width` (odd) values, the ends repeated beyond."""
    half = width // 2
    padded_BT = np.concatenate([x_BT[:, :1].repeat(half, 1), x_BT, x_BT[:, -1:].repeat(half, 1)], axis=1)
    window_BTW = np.lib.stride_tricks.sliding_window_view(padded_BT, width, axis=-1)
    return np.sort(window_BTW, axis=-1)[..., half]


def block_starts(length: int, block: int) -> Sequence[int]:
    """Return the first samples of consecutive blocks of `block` samples; what remains joins the last block."""
    return range(0, max(1, length // block) * block, block)
