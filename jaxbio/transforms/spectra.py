"""Spectral targets of a segment: amplitude and phase of its lowest frequencies (QualityFM's), and a band's shape.

amplitude_BCS, phase_BCS = targets(x_BCT, bins=512)     # 30 s: bin k is k / 30 Hz, 512 bins reach 17 Hz
shape_BCS = band_shape(x_BCT, 300.0, (0.1, 0.6))        # 30 s: bins 3 to 18
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.transforms.per_row import per_row


def targets(x_BCT: jax.Array, bins: int, spectrum: str = "magnitude") -> tuple[jax.Array, jax.Array]:
    """Return amplitude and phase of bins 0 .. bins - 1, each z-scored over the bins, float32 (B, C, S).

    Amplitude is |F| (`spectrum="magnitude"`, the author's code) or |F|^2 (`"power"`, the paper's word); phase is
    angle(F), not unwrapped, in (-pi, pi]. The z-score divides by the deviation with n - 1, plus 1e-6. Raises UserError
    if `x_BCT` is too short for so many bins, or the spectrum unknown.
    """
    length = x_BCT.shape[-1]
    if bins > length // 2 + 1:
        raise UserError(Fault("spectral bins", bins, f"at most {length // 2 + 1} in segments of {length} samples"))
    transform = per_row(lambda x_BCT: jnp.fft.rfft(x_BCT)[..., :bins])
    spectrum_BCS = transform(x_BCT.astype(jnp.float32))
    real_BCS, imaginary_BCS = spectrum_BCS.real, spectrum_BCS.imag
    power_BCS = real_BCS**2 + imaginary_BCS**2
    match spectrum:
        case "magnitude":
            amplitude_BCS = jnp.sqrt(power_BCS)
        case "power":
            amplitude_BCS = power_BCS
        case _:
            raise UserError(Fault("objective.spectrum", spectrum, "one of magnitude, power"))
    # bin 0 is real; a transform that leaves -0 as its imaginary part would turn +pi into -pi
    bin_11S = jnp.arange(bins)[None, None, :]
    phase_BCS = jnp.arctan2(jnp.where(bin_11S == 0, 0.0, imaginary_BCS), real_BCS)
    return _z_score(amplitude_BCS), _z_score(phase_BCS)


def band_shape(x_BCT: jax.Array, rate_hz: float, band_hz: tuple[float, float]) -> jax.Array:
    """Return where in a narrow band the power of `x_BCT` lies: amplitudes of its bins, z-scored over them, (B, C, S).

    The bins are those of `band_bins`, of the signal less its mean under a Hann window, so that neither an offset nor
    what is slower than the band leaks into it. A signal that does not move gives about 0. float32.
    """
    length = x_BCT.shape[-1]
    angle_TS = 2 * np.pi / length * np.outer(np.arange(length), band_bins(length, rate_hz, band_hz))
    window_T1 = np.hanning(length)[:, None] * (2 / length)
    x_BCT = x_BCT.astype(jnp.float32)
    x_BCT = x_BCT - x_BCT.mean(-1, keepdims=True)
    # for so few bins two products are cheaper than a transform
    real_BCS = x_BCT @ jnp.asarray(window_T1 * np.cos(angle_TS), jnp.float32)
    imaginary_BCS = x_BCT @ jnp.asarray(window_T1 * np.sin(angle_TS), jnp.float32)
    return _z_score(jnp.sqrt(real_BCS**2 + imaginary_BCS**2))


def band_bins(length: int, rate_hz: float, band_hz: tuple[float, float]) -> np.ndarray:
    """Return the bins (S,) of a transform over `length` samples whose frequencies lie in `band_hz`, edges included.

    Raises UserError for fewer than two, of which there is no deviation.
    """
    low, high = (frequency_hz * length / rate_hz for frequency_hz in band_hz)
    bin_S = np.arange(np.ceil(low - 1e-6), np.floor(high + 1e-6) + 1)
    if len(bin_S) < 2:
        remedy = f"a band of two bins or more, which are {rate_hz / length:g} Hz apart"
        raise UserError(Fault("objective.breathing_hz", tuple(band_hz), remedy))
    return bin_S


def _z_score(v_BCS: jax.Array) -> jax.Array:
    mean = v_BCS.mean(-1, keepdims=True)
    deviation = v_BCS.std(-1, ddof=1, keepdims=True)
    return (v_BCS - mean) / (deviation + 1e-6)
