"""Spectral targets of a segment: normalised amplitude and phase of its lowest frequencies (fact sheet, section 6.2).

amplitude_BCS, phase_BCS = targets(x_BCT, bins=512)     # 30 s: bin k is k / 30 Hz, 512 bins reach 17 Hz
"""

import jax
import jax.numpy as jnp

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


def _z_score(v_BCS: jax.Array) -> jax.Array:
    mean = v_BCS.mean(-1, keepdims=True)
    deviation = v_BCS.std(-1, ddof=1, keepdims=True)
    return (v_BCS - mean) / (deviation + 1e-6)
