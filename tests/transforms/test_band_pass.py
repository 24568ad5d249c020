"""The band-pass of the device against SciPy's forward-backward filter in float64, and against a longer recording."""

import jax
import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from jaxbio.config.faults import UserError
from jaxbio.transforms.band_pass import band_pass

# rate_hz, samples, band_hz, order, design: what the papers' models see
ST_MEM = (250.0, 2250, (0.67, 40.0), 5, "high_pass_low_pass")
SIGMA_PPG = (50.0, 12000, (0.5, 8.0), 2, "band_pass")
PPG_AT_300_HZ = (300.0, 9000, (0.5, 8.0), 2, "band_pass")
ROWS = 16


def waves(samples: int, rate_hz: float, seed: int = 0) -> np.ndarray:
    """Return rows of heartbeats on a wandering baseline, (ROWS, samples) float64."""
    rng = np.random.default_rng(seed)
    t_T = np.arange(samples) / rate_hz
    baseline = np.cumsum(rng.normal(size=(ROWS, samples)), axis=-1) * 0.5 / np.sqrt(rate_hz)
    return baseline + sum(np.sin(2 * np.pi * (k * 1.2 * t_T + rng.uniform(size=(ROWS, 1)))) / k for k in range(1, 10))


def scipy_band_pass(x_BT: np.ndarray, rate_hz: float, band_hz, order: int, design: str) -> np.ndarray:
    if design == "band_pass":
        return sosfiltfilt(butter(order, band_hz, "bandpass", fs=rate_hz, output="sos"), x_BT)
    high_passed = sosfiltfilt(butter(order, band_hz[0], "highpass", fs=rate_hz, output="sos"), x_BT)
    return sosfiltfilt(butter(order, band_hz[1], "lowpass", fs=rate_hz, output="sos"), high_passed)


def on_device(x_BT: np.ndarray, rate_hz: float, *how) -> np.ndarray:
    return np.asarray(jax.jit(lambda x_BT: band_pass(x_BT, rate_hz, *how))(x_BT.astype(np.float32)))


@pytest.mark.parametrize(("rate_hz", "samples", "band_hz", "order", "design"), [ST_MEM, SIGMA_PPG, PPG_AT_300_HZ])
def test_it_is_scipys_filter_from_the_first_sample_to_the_last(rate_hz, samples, band_hz, order, design):
    x_BT = waves(samples, rate_hz).astype(np.float32)
    expected = scipy_band_pass(x_BT.astype(np.float64), rate_hz, band_hz, order, design)
    found = on_device(x_BT, rate_hz, band_hz, order, design)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 2e-5 * expected.std()


def test_an_offset_of_a_thousand_deviations_costs_no_digits():
    rate_hz, samples, *how = PPG_AT_300_HZ
    x_BT = (waves(samples, rate_hz) + 1000).astype(np.float32)
    expected = scipy_band_pass(x_BT.astype(np.float64), rate_hz, *how)
    assert np.abs(on_device(x_BT, rate_hz, *how) - expected).max() <= 2e-5 * expected.std()


def test_leading_axes_are_free_and_rows_do_not_meet():
    rate_hz, samples, *how = ST_MEM
    x_BT = waves(samples, rate_hz)
    found = on_device(x_BT.reshape(2, 4, 2, samples), rate_hz, *how).reshape(ROWS, samples)
    np.testing.assert_allclose(found, on_device(x_BT, rate_hz, *how), atol=1e-6)


@pytest.mark.parametrize(
    ("how", "ends_s", "share"), [(SIGMA_PPG, 2 / 0.5, 2e-4), (PPG_AT_300_HZ, 2 / 0.5, 2e-4), (ST_MEM, 4.0, 0.01)]
)
def test_away_from_its_ends_a_segment_is_filtered_as_the_whole_recording_is(how, ends_s, share):
    rate_hz, samples, *rest = how
    recording_BN = waves(3 * samples, rate_hz)
    whole = scipy_band_pass(recording_BN, rate_hz, *rest)[:, samples : 2 * samples]
    found = on_device(recording_BN[:, samples : 2 * samples], rate_hz, *rest)
    error_T = np.sqrt(((found - whole) ** 2).mean(axis=0)) / whole.std()
    ends = round(ends_s * rate_hz)
    assert error_T[ends:-ends].max() <= share
    assert error_T.max() > 0.1  # what the ends are about


def test_a_segment_that_is_hardly_longer_than_the_reflection_is_scipys_and_a_shorter_one_is_refused():
    x_BT = waves(16, 50.0)
    how = (50.0, (0.5, 8.0), 2, "band_pass")
    np.testing.assert_allclose(on_device(x_BT, *how), scipy_band_pass(x_BT, *how), atol=1e-5)
    with pytest.raises(UserError, match="segments of 15 samples"):
        on_device(x_BT[:, :15], *how)


def test_an_unknown_design_is_refused():
    with pytest.raises(UserError, match=r"data\.band_design"):
        band_pass(np.zeros((1, 500), np.float32), 50.0, (0.5, 8.0), 2, "brick_wall")
