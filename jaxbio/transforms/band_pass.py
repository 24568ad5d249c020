"""A zero-phase Butterworth band-pass on the device, the numbers of SciPy's `sosfiltfilt`.

SciPy runs a recursion over the samples, forwards and backwards, which an accelerator cannot. Here each run is a product
of spectra. SciPy starts a run as if the signal had stood at its first value for ever; so do we, by holding that value
before the segment for as long as the filter remembers.

    y_BCT = band_pass(x_BCT, rate_hz=250.0, band_hz=(0.67, 40.0), order=5, design="high_pass_low_pass")
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft, signal

from jaxbio.config.faults import Fault, UserError
from jaxbio.transforms.per_row import per_row

DESIGNS = ("band_pass", "high_pass_low_pass")
_FORGOTTEN = 1e-5  # what the filter still knows of a sample when the held value ends
_MOST_REMEMBERED = 2**21  # samples that a filter may remember; the transform is at least so long


def band_pass(x_BCT: jax.Array, rate_hz: float, band_hz: tuple[float, float], order: int, design: str) -> jax.Array:
    """Return `x_BCT` (B, ..., T) float32 with what lies outside `band_hz` taken out, without delay.

    `design="band_pass"` is `sosfiltfilt` of one band-pass `butter(order, band_hz)`; `"high_pass_low_pass"` that of a
    high-pass at the lower edge, then that of a low-pass at the upper one. Filtering both ways halves the amplitude at
    the edges of the band. A segment's mean is not let through.

    The result is SciPy's from the first sample to the last, to 2e-5 of its deviation. At its ends a segment lacks
    neighbours, and SciPy's default continues it by its point reflection over a few samples, then holds the last value.
    So the ends are not those of a longer recording filtered whole, and the longer the steeper the filter: one of order
    2 is right to 2e-4 from two cycles of the lower edge on; ST-MEM's of order 5 (0.67 Hz) rings through its nine
    seconds, and is off by up to 1 % of the deviation even in their middle.

    The length is a constant of the compiled program. Raises UserError for a design that is none, for segments not
    longer than the reflection, and for a filter that remembers more than two million samples.
    """
    check_band(x_BCT.shape[-1], rate_hz, band_hz, order, design)
    filters = design_filters(rate_hz, band_hz, order, design)

    def filter_rows(x_CT: jax.Array) -> jax.Array:
        x_CT = x_CT - x_CT.mean(axis=-1, keepdims=True)  # float32 keeps its digits for what the band lets through
        for sections in filters:
            x_CT = _filter_both_ways(x_CT, sections)
        return x_CT

    return per_row(filter_rows)(x_BCT)


def design_filters(rate_hz: float, band_hz: tuple[float, float], order: int, design: str) -> list[np.ndarray]:
    """Return the second-order sections (n, 6) float64 of the filters that `band_pass` applies in turn."""
    low_hz, high_hz = band_hz
    match design:
        case "band_pass":
            parts: list[tuple[Any, str]] = [(band_hz, "bandpass")]
        case "high_pass_low_pass":
            parts = [(low_hz, "highpass"), (high_hz, "lowpass")]
        case _:
            raise UserError(Fault("data.band_design", design, f"one of {', '.join(DESIGNS)}"))
    return [signal.butter(order, edge_hz, kind, fs=rate_hz, output="sos") for edge_hz, kind in parts]


def check_band(samples: int, rate_hz: float, band_hz: tuple[float, float], order: int, design: str) -> None:
    """Raise UserError for segments of too few `samples`, and for a filter that remembers more than memory holds."""
    for sections in design_filters(rate_hz, band_hz, order, design):
        _remembered_samples(sections)
        if samples <= (edge := _reflected_samples(sections)):
            remedy = f"it needs more than {edge} samples"
            raise UserError(Fault("data.band_hz", f"segments of {samples} samples", remedy))


def _filter_both_ways(x_CT: jax.Array, sections: np.ndarray) -> jax.Array:
    """Return scipy.signal.sosfiltfilt(sections, x_CT)."""
    samples, edge = x_CT.shape[-1], _reflected_samples(sections)
    x_CT = jnp.concatenate(
        [2 * x_CT[..., :1] - x_CT[..., edge:0:-1], x_CT, 2 * x_CT[..., -1:] - x_CT[..., -2 : -edge - 2 : -1]], axis=-1
    )
    extended = samples + 2 * edge
    transformed = fft.next_fast_len(extended + _remembered_samples(sections), real=True)
    response_S = _response(sections, transformed).reshape((1,) * (x_CT.ndim - 1) + (-1,))
    for _ in range(2):
        held_CT = jnp.repeat(x_CT[..., :1], transformed - extended, axis=-1)
        spectrum_CS = jnp.fft.rfft(jnp.concatenate([held_CT, x_CT], axis=-1)) * response_S
        x_CT = jnp.fft.irfft(spectrum_CS, transformed)[..., transformed - extended :][..., ::-1]
    return x_CT[..., edge:-edge]


def _reflected_samples(sections: np.ndarray) -> int:
    """Return how many samples SciPy's `sosfiltfilt` reflects at each end by default."""
    taps = 2 * len(sections) + 1 - min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    return 3 * int(taps)


def _remembered_samples(sections: np.ndarray) -> int:
    """Return after how many samples the slowest part of the impulse response has decayed to `_FORGOTTEN`."""
    _, pole, _ = signal.sos2zpk(sections)
    slowest = np.abs(pole).max()
    if not slowest < math.exp(math.log(_FORGOTTEN) / _MOST_REMEMBERED):
        remedy = "raise the lower edge, widen the band, or lower the order: the filter remembers the signal too long"
        raise UserError(Fault("data.band_hz", f"a slowest pole of {slowest:.9g}", remedy))
    return math.ceil(math.log(_FORGOTTEN) / math.log(max(slowest, 1e-9)))


def _response(sections: np.ndarray, samples: int) -> np.ndarray:
    """Return the filter's response at the bins of an rfft of `samples`, complex64 (S,)."""
    _, response_S = signal.sosfreqz(sections, fft.rfftfreq(samples), fs=1.0)
    return response_S.astype(np.complex64)
