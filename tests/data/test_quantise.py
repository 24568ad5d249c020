"""Quantising: the error is bounded, the range is full, a constant channel is harmless."""

import numpy as np
import pytest

from jaxbio.data.quantise import FULL_RANGE, dequantise, quantise


@pytest.fixture(scope="module")
def x_BCT() -> np.ndarray:
    rng = np.random.default_rng(0)
    scale = np.array([1e-3, 1.0, 4000.0], np.float32)[:, None]
    return (rng.normal(size=(4, 3, 500)) * scale + 5 * scale).astype(np.float32)


def test_error_is_at_most_half_a_gain(x_BCT):
    segment_BCT, scale_BC2 = quantise(x_BCT)
    error = np.abs(dequantise(segment_BCT, scale_BC2).astype(np.float64) - x_BCT)
    rounding = np.finfo(np.float32).eps * np.abs(x_BCT).max(axis=-1, keepdims=True) * 2
    assert (error <= 0.5 * scale_BC2[..., 1:] + rounding).all()


def test_every_channel_uses_the_full_range(x_BCT):
    segment_BCT, _ = quantise(x_BCT)
    assert segment_BCT.dtype == np.int16
    assert (segment_BCT.max(axis=-1) >= FULL_RANGE - 1).all()
    assert (segment_BCT.min(axis=-1) <= 1 - FULL_RANGE).all()
    assert segment_BCT.min() >= -FULL_RANGE


def test_constant_channel_becomes_zeros_with_its_value_as_offset():
    segment_BCT, scale_BC2 = quantise(np.full((1, 2, 10), 7.5, np.float32))
    assert not segment_BCT.any()
    np.testing.assert_array_equal(dequantise(segment_BCT, scale_BC2), 7.5)


def test_range_beyond_float32_gain_does_not_overflow():
    x_BCT = np.array([[[0.0, 1e-42], [-3e38, 3e38]]], np.float32)
    segment_BCT, scale_BC2 = quantise(x_BCT)
    assert np.isfinite(scale_BC2).all()
    assert np.abs(segment_BCT.astype(int)).max() <= FULL_RANGE


def test_bulk_equals_single(x_BCT):
    bulk = quantise(x_BCT)
    for b in range(len(x_BCT)):
        for whole, single in zip(bulk, quantise(x_BCT[b : b + 1]), strict=True):
            np.testing.assert_array_equal(whole[b], single[0])


@pytest.mark.parametrize("range_", [1e-34, 1e-38, 1e-44])
def test_a_range_too_small_to_divide_by_counts_as_constant(range_):
    x_BCT = (np.linspace(-0.5, 0.5, 900) * range_).astype(np.float32)[None, None]
    segment_BCT, scale_BC2 = quantise(x_BCT)
    assert not segment_BCT.any()
    assert scale_BC2[0, 0, 1] == 0


def test_a_range_just_large_enough_keeps_its_precision():
    x_BCT = (np.linspace(-0.5, 0.5, 900) * 1e-33).astype(np.float32)[None, None]
    np.testing.assert_allclose(dequantise(*quantise(x_BCT)), x_BCT, atol=1e-38)
