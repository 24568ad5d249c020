"""What is computed of the patches of a signal on the device: their spectra, and how much each is worth hiding.

A patch is a stretch of `patch` samples; a segment is cut into patches without overlap. Source: SIGMA-PPG
(docs/references.md).

    target = patch_spectra(x_BT, 100, phase=False)          # {"amplitude": (B, A, S)}
    prior_BA = patch_prior(x_BT, 100, amplitude_share=0.5)
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.transforms.per_row import per_row

_LEAST_DEVIATION, _LARGEST_DEVIATION = 0.05, 2.0  # of a patch of a signal scaled to [0, 1]
_RISE, _FALL = 50.0, 5.0  # steepness of the gates at those
_NORMAL_MAD = 0.6745  # median absolute deviation of a standard normal


def cut_patches(x_BT: jax.Array, patch: int) -> jax.Array:
    """Return the patches (B, A, T / A) of signals whose length is a multiple of `patch`."""
    return x_BT.reshape(x_BT.shape[0], -1, patch)


def patch_spectra(x_BT: jax.Array, patch: int, *, one_sided: bool = False, phase: bool = False) -> dict[str, jax.Array]:
    """Return "amplitude" (B, A, S), the magnitude of each patch's Fourier transform, z-scored over all patches and
    bins of a segment (n - 1, no epsilon; zeros where nothing varies), and, where asked for, "phase" / pi in (-1, 1].

    All `patch` bins, of which the upper half mirrors the lower, or the `patch` // 2 + 1 of one side.
    """
    transform = per_row(lambda x_BT: jnp.fft.rfft(cut_patches(x_BT, patch)))
    spectrum_BAS = transform(x_BT)
    bin_S = np.arange(patch // 2 + 1 if one_sided else patch)
    lower_S = np.minimum(bin_S, patch - bin_S)
    spectra = {"amplitude": _z_score(jnp.abs(spectrum_BAS)[..., lower_S])}
    if phase:
        # of the mirrored bins the conjugate; bin 0 is real: a transform that leaves -0 there would turn +pi into -pi
        sign_11S = np.where(bin_S == 0, 0.0, np.where(bin_S == lower_S, 1.0, -1.0))[None, None].astype(np.float32)
        spectra["phase"] = (
            jnp.arctan2(spectrum_BAS.imag[..., lower_S] * sign_11S, spectrum_BAS.real[..., lower_S]) / np.pi
        )
    return spectra


def patch_prior(x_BT: jax.Array, patch: int, amplitude_share: float) -> jax.Array:
    """Return how much each patch is worth hiding, (B, A) float32: share x amplitude score + (1 - share) x skewness
    score, of signals scaled to [0, 1].
    """
    patch_BAT = cut_patches(x_BT, patch)
    return amplitude_share * amplitude_stability(patch_BAT) + (1 - amplitude_share) * skewness_score(patch_BAT)


def amplitude_stability(patch_BAT: jax.Array) -> jax.Array:
    """Return how like the segment's other patches each one is in its deviation, (B, A) in [0, 1].

    exp(-0.2 z^2) of the modified z-score 0.6745 (deviation - median) / MAD, 1 where the MAD is below 1e-9, times gates
    that close below a deviation of 0.05 and above 2.
    """
    deviation_BA = patch_BAT.std(axis=-1)
    from_median_BA = deviation_BA - jnp.median(deviation_BA, axis=-1, keepdims=True)
    mad_B1 = jnp.median(jnp.abs(from_median_BA), axis=-1, keepdims=True)
    even_B1 = mad_B1 < 1e-9
    z_BA = _NORMAL_MAD * from_median_BA / jnp.where(even_B1, 1.0, mad_B1)
    like_BA = jnp.where(even_B1, 1.0, jnp.exp(-0.2 * z_BA**2))
    not_flat_BA = jax.nn.sigmoid(_RISE * (deviation_BA - _LEAST_DEVIATION))
    not_wild_BA = jax.nn.sigmoid(_FALL * (_LARGEST_DEVIATION - deviation_BA))
    return like_BA * not_flat_BA * not_wild_BA


def skewness_score(patch_BAT: jax.Array) -> jax.Array:
    """Return tanh of the size of each patch's bias-corrected sample skewness, (B, A) in [0, 1); 0 of a constant."""
    n = patch_BAT.shape[-1]
    centred_BAT = patch_BAT - patch_BAT.mean(axis=-1, keepdims=True)
    variance_BA, third_BA = ((centred_BAT**power).mean(axis=-1) for power in (2, 3))
    # what float32 leaves of a constant patch is no variance
    moves_BA = variance_BA > jnp.square(jnp.finfo(patch_BAT.dtype).eps * jnp.abs(patch_BAT).max(axis=-1))
    skew_BA = third_BA / jnp.where(moves_BA, variance_BA, 1.0) ** 1.5 * (np.sqrt(n * (n - 1.0)) / (n - 2))
    return jnp.where(moves_BA, jnp.tanh(jnp.abs(skew_BA)), 0.0)


def _z_score(v_BAS: jax.Array) -> jax.Array:
    centred_BAS = v_BAS - v_BAS.mean((-2, -1), keepdims=True)
    deviation_B11 = v_BAS.std((-2, -1), ddof=1, keepdims=True)
    return centred_BAS / jnp.where(deviation_B11 > 0, deviation_B11, 1.0)
