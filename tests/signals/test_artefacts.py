"""Gaps, flat lines and clipping, on signals where they were put by hand."""

import numpy as np
import pytest

from jaxbio.signals.artefacts import find_gaps

RATE_HZ = 100.0


def wave(samples=3000):
    rng = np.random.default_rng(0)
    return (np.sin(np.arange(samples) / 13) + 0.01 * rng.standard_normal(samples)).astype(np.float32)


def test_clean_signal_has_no_gaps_and_is_not_copied():
    x_BN = wave()[None]
    gaps = find_gaps(x_BN, RATE_HZ)
    assert not gaps.missing_BN.any()
    assert not gaps.clipped_BN.any()
    assert gaps.filled_BN is x_BN
    assert gaps.offset_B[0] == pytest.approx(0.5 * (x_BN.max() + x_BN.min()))
    assert gaps.scale_B[0] == pytest.approx(0.5 * np.ptp(x_BN))


@pytest.mark.parametrize(("held", "flagged"), [(49, 0), (50, 50), (400, 400)])
def test_flat_counts_from_half_a_second(held, flagged):
    x_N = wave()
    x_N[1000 : 1000 + held] = x_N[1000]
    gaps = find_gaps(x_N[None], RATE_HZ)
    assert gaps.missing_BN.sum() == flagged
    assert gaps.missing_BN[0, 1000 : 1000 + held].all() == (flagged > 0)


def test_nan_and_infinite_samples_are_missing_and_filled_linearly():
    x_BN = np.stack([wave(), wave()])
    x_BN[0, 500:600] = np.nan
    x_BN[1, 700] = np.inf
    gaps = find_gaps(x_BN, RATE_HZ)
    assert gaps.infinite_B.tolist() == [False, True]
    assert gaps.missing_BN.sum(axis=1).tolist() == [100, 1]
    assert gaps.nan_frac_B == pytest.approx([100 / 3000, 1 / 3000])
    expected = np.interp(np.arange(500, 600), [499, 600], x_BN[0, [499, 600]])
    np.testing.assert_allclose(gaps.filled_BN[0, 500:600], expected, atol=1e-6)
    assert gaps.filled_BN[1, 700] == pytest.approx(x_BN[1, [699, 701]].mean(), abs=1e-6)


def test_ends_without_values_repeat_the_nearest():
    x_N = wave()
    x_N[:50] = np.nan
    x_N[-50:] = np.nan
    filled_N = find_gaps(x_N[None], RATE_HZ).filled_BN[0]
    assert (filled_N[:50] == x_N[50]).all()
    assert (filled_N[-50:] == x_N[-51]).all()


def test_signal_without_any_value_is_zero_and_constant():
    gaps = find_gaps(np.full((1, 3000), np.nan, np.float32), RATE_HZ)
    assert gaps.nan_frac_B[0] == 1.0
    assert gaps.constant_B[0]
    assert not gaps.filled_BN.any()


def test_clipping_is_a_rest_at_the_extremes():
    x_N = np.clip(wave() * 2, -1, 1)
    gaps = find_gaps(x_N[None], RATE_HZ)
    np.testing.assert_array_equal(gaps.clipped_BN[0], np.abs(x_N) == 1)
    single_N = wave()
    single_N[10] = single_N.max() + 1  # one sample at the extreme is a peak
    assert not find_gaps(single_N[None], RATE_HZ).clipped_BN.any()


def test_huge_numbers_do_not_overflow():
    x_BN = wave()[None] * np.float32(3e38)
    gaps = find_gaps(x_BN, RATE_HZ)
    assert np.isfinite(gaps.scale_B).all()
    assert np.isfinite(gaps.offset_B).all()


@pytest.mark.parametrize(("missing", "lost"), [(1, 0), (4, 0), (5, 5), (50, 50)])
def test_a_hole_shorter_than_50_ms_is_read_across_and_still_missing(missing, lost):
    x_N = wave()
    x_N[1000 : 1000 + missing] = np.nan
    gaps = find_gaps(x_N[None], RATE_HZ)
    assert (gaps.missing_BN.sum(), gaps.lost_BN.sum()) == (missing, lost)
