"""Hand-made features are what their definitions say, at the true rate, whatever the rhythm."""

import numpy as np
import pytest

from jaxbio.config.features import FEATURES, VARYING
from jaxbio.signals.features import _LOW_PASS, append_features, make_features
from jaxbio.signals.synthetic import recording

NAMES = tuple(FEATURES)


def by_name(x_BT, rate_hz):
    return dict(zip(NAMES, np.moveaxis(make_features(x_BT, rate_hz, NAMES), 1, 0), strict=True))


def segment(rate_hz, seed=1, rhythm="sinus"):
    made = recording(seed, duration_s=10.0, rate_hz=rate_hz, rhythm=rhythm)
    return np.nan_to_num(made.ecg)[None].astype(np.float32), made.r_peaks_s


def test_features_that_are_said_to_vary_do_so_within_a_segment_and_no_others():
    found = by_name(segment(250.0, rhythm="af")[0], 250.0)
    assert tuple(name for name, value_BT in found.items() if np.ptp(value_BT) > 0) == VARYING


@pytest.mark.parametrize("rhythm", ["sinus", "af", "tachycardia"])
@pytest.mark.parametrize("rate_hz", [100.0, 250.0, 500.0])
def test_rates_and_variability_are_those_of_the_beats_at_any_rate(rate_hz, rhythm):
    x_BT, r_peaks_s = segment(rate_hz, rhythm=rhythm)
    found, interval_s = by_name(x_BT, rate_hz), np.diff(r_peaks_s)
    assert found["heart_rate"][0] == pytest.approx(60 / interval_s.mean(), rel=0.01)
    assert found["sdnn"][0] == pytest.approx(1000 * interval_s.std(), abs=4.0)
    assert found["rmssd"][0] == pytest.approx(1000 * np.sqrt(np.mean(np.diff(interval_s) ** 2)), abs=4.0)
    assert np.ptp(found["heart_rate"]) == 0
    peaks_s = np.flatnonzero(found["r_peaks"][0]) / rate_hz
    assert np.abs(peaks_s[:, None] - r_peaks_s).min(0).max() < 0.02
    assert len(peaks_s) <= len(r_peaks_s) + 1  # a beat may be cut by the edge
    np.testing.assert_array_equal(np.unique(found["r_peaks"]), (0, 1))


def test_the_rolling_rate_follows_a_change_and_stays_within_the_beats_rates():
    beats_s = np.concatenate([np.arange(0.5, 15, 1.0), np.arange(15.2, 30, 0.5)])
    time_T = np.arange(30 * 250) / 250
    x_BT = np.exp(-(((time_T[:, None] - beats_s) / 0.012) ** 2)).sum(1)[None].astype(np.float32)
    rolling_T = by_name(x_BT, 250.0)["rolling_heart_rate"][0]
    assert rolling_T[:1000] == pytest.approx(60, abs=1.5)
    assert rolling_T[-1000:] == pytest.approx(120, abs=3)
    assert 59 < rolling_T.min() < rolling_T.max() < 123
    assert (np.diff(rolling_T) > -1e-3).all()


def test_st_and_qrs_are_measured_from_each_beats_own_baseline():
    time_T, beats_s = np.arange(2500) / 250, np.arange(0.6, 9.5, 0.8)
    waves_T = np.exp(-(((time_T[:, None] - beats_s) / 0.012) ** 2)).sum(1)
    for beat_s in beats_s:
        waves_T[(time_T > beat_s + 0.07) & (time_T < beat_s + 0.21)] += 0.2
    found = by_name((waves_T + 0.5)[None].astype(np.float32), 250.0)  # a constant is no deviation
    inside_T = found["st_deviation"][0] != 0
    np.testing.assert_allclose(found["st_deviation"][0][inside_T], 0.2, atol=1e-3)
    assert inside_T.sum() == len(beats_s) * 31  # 80 to 200 ms
    np.testing.assert_allclose(found["qrs_amplitude"], 1.5, atol=0.01)


def test_the_wavelet_is_orthonormal_and_its_bands_lie_where_they_should():
    for apart in range(1, 4):
        assert np.dot(_LOW_PASS[2 * apart :], _LOW_PASS[: -2 * apart]) == pytest.approx(0, abs=1e-6)
    assert _LOW_PASS.sum() == pytest.approx(np.sqrt(2))
    assert np.dot(_LOW_PASS, _LOW_PASS) == pytest.approx(1)
    time_T = np.arange(2500) / 250
    bands = {"wavelet_a1": 5.0, "wavelet_d1": 100.0, "wavelet_d2": 45.0, "wavelet_d3": 22.0}
    for name, frequency_hz in bands.items():
        found = by_name(np.sin(2 * np.pi * frequency_hz * time_T)[None].astype(np.float32), 250.0)
        size = {other: found[other].std() for other in bands}
        assert max(size, key=size.get) == name, size


def test_the_wavelet_keeps_time():
    x_BT = np.zeros((1, 2500), np.float32)
    x_BT[0, 1200] = 1
    for name in ("wavelet_a1", "wavelet_d1", "wavelet_d2", "wavelet_d3"):
        assert abs(np.abs(by_name(x_BT, 250.0)[name][0]).argmax() - 1200) <= 16


def test_rows_know_nothing_of_each_other_and_one_without_beats_defines_nothing():
    x_BT = np.concatenate([segment(250.0, seed, rhythm)[0] for seed, rhythm in ((1, "sinus"), (2, "af"))])
    x_BT = np.concatenate([x_BT, np.zeros((1, 2500), np.float32)])
    together = make_features(x_BT, 250.0, NAMES)
    for row in range(3):
        np.testing.assert_array_equal(make_features(x_BT[row : row + 1], 250.0, NAMES)[0], together[row])
    assert not together[2].any()
    assert together[:2].any(axis=-1).all()
    appended = append_features(x_BT[:, None].repeat(2, 1), ("i", "ii"), 250.0, ("sdnn",))
    np.testing.assert_array_equal(appended[:, 2], together[:, NAMES.index("sdnn")])
