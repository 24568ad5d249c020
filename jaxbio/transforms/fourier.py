"""Fourier transforms along the last axis: `jnp.fft`, and on a TPU products with tables of waves.

XLA's compiler for TPUs takes minutes to an hour for one transform of a long segment. There the transform of n = a b
samples is done as a transforms of b and b of a samples (Cooley and Tukey 1965), each a product, which compiles in
seconds and is what a TPU does best. `jax.lax.platform_dependent` decides at lowering, so that a plan for a TPU that is
made on a CPU is that TPU's.

    spectrum_BS = rfft(x_BT)              # complex64 (B, T / 2 + 1)
    x_BT = irfft(spectrum_BS, samples)
"""

import jax
import jax.numpy as jnp
import numpy as np

_FULL = jax.lax.Precision.HIGHEST  # coarser products, a TPU's default, leave two digits of a spectrum
_LONGEST_TABLE = 1024  # samples of one product; a length with a larger prime factor is left to XLA


def rfft(x_BT: jax.Array) -> jax.Array:
    """Return `jnp.fft.rfft` of float32 (..., T): complex64 (..., T // 2 + 1)."""
    if split(x_BT.shape[-1]) is None:
        return jnp.fft.rfft(x_BT)
    return jax.lax.platform_dependent(x_BT, tpu=rfft_by_products, default=jnp.fft.rfft)


def irfft(spectrum_BS: jax.Array, samples: int) -> jax.Array:
    """Return `jnp.fft.irfft` of complex64 (..., `samples` // 2 + 1): float32 (..., `samples`)."""
    if split(samples) is None:
        return jnp.fft.irfft(spectrum_BS, samples)
    return jax.lax.platform_dependent(
        spectrum_BS,
        tpu=lambda spectrum_BS: irfft_by_products(spectrum_BS, samples),
        default=lambda spectrum_BS: jnp.fft.irfft(spectrum_BS, samples),
    )


def split(samples: int) -> tuple[int, int] | None:
    """Return the two factors of `samples` that are nearest to each other; None where the larger has no table."""
    first = next(factor for factor in range(int(samples**0.5), 0, -1) if samples % factor == 0)
    return (first, samples // first) if samples // first <= _LONGEST_TABLE else None


def rfft_by_products(x_BT: jax.Array) -> jax.Array:
    """Return `rfft` as a TPU computes it."""
    samples = x_BT.shape[-1]
    spectrum_BS = _transform(x_BT.astype(jnp.complex64), -1)[..., : samples // 2 + 1]
    return jnp.where(_has_no_phase(samples, x_BT.ndim), spectrum_BS.real, spectrum_BS)


def irfft_by_products(spectrum_BS: jax.Array, samples: int) -> jax.Array:
    """Return `irfft` as a TPU computes it."""
    # a real signal's other half mirrors this one; the bins without phase have no mirror image
    weight_S = np.where(_has_no_phase(samples, spectrum_BS.ndim), 1.0, 2.0).astype(np.float32) / samples
    rest = [(0, 0)] * (spectrum_BS.ndim - 1) + [(0, samples - spectrum_BS.shape[-1])]
    return _transform(jnp.pad(spectrum_BS * weight_S, rest), 1).real


def _has_no_phase(samples: int, axes: int) -> np.ndarray:
    """Return True at the bins of a real signal that are real: the first, and the last of an even length; (1, .., S)."""
    bin_S = np.arange(samples // 2 + 1)
    return ((bin_S == 0) | (2 * bin_S == samples)).reshape((1,) * (axes - 1) + (-1,))


def _transform(x_BT: jax.Array, sign: int) -> jax.Array:
    """Return sum over t of x[t] exp(sign 2 pi i k t / T), for all k."""
    samples = x_BT.shape[-1]
    factors = split(samples)
    assert factors is not None
    a, b = factors
    # sample b i + j, bin k + a l
    x_BIJ = x_BT.reshape(*x_BT.shape[:-1], a, b)
    x_BKJ = jnp.einsum("ki,...ij->...kj", _waves(a, a, a, sign), x_BIJ, precision=_FULL)
    x_BKJ = x_BKJ * _waves(a, b, samples, sign).reshape((1,) * (x_BT.ndim - 1) + (a, b))
    x_BLK = jnp.einsum("lj,...kj->...lk", _waves(b, b, b, sign), x_BKJ, precision=_FULL)
    return x_BLK.reshape(x_BT.shape)


def _waves(rows: int, columns: int, period: int, sign: int) -> np.ndarray:
    """Return exp(sign 2 pi i row column / period), complex64."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % period / period
    return np.exp(sign * 2j * np.pi * turns).astype(np.complex64)
