"""Hand-made features say what they are called."""

import numpy as np
import pytest

from jaxbio.signals import synthetic
from jaxbio.signals.hand_made import describe_segments

RATE_HZ = 100.0


def described(x_BCT: np.ndarray, channels=("ppg", "ecg")) -> dict[str, np.ndarray]:
    feature_BF, names = describe_segments(x_BCT, RATE_HZ, channels)
    assert feature_BF.shape == (len(x_BCT), len(names))
    assert len(set(names)) == len(names)
    return dict(zip(names, feature_BF.T))


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    """Of two regular rates, atrial fibrillation, a segment without PPG, and one without anything."""
    made = [
        synthetic.recording(seed, duration_s=30, rate_hz=RATE_HZ, heart_rate_bpm=rate, rhythm=rhythm)
        for seed, (rate, rhythm) in enumerate(((60.0, "sinus"), (100.0, "sinus"), (80.0, "af")))
    ]
    x_BCT = np.stack([np.stack([one.ppg, one.ecg]) for one in made]).astype(np.float32)
    lacking = x_BCT[:1].copy()
    lacking[:, 0] = 0
    return described(np.concatenate([x_BCT, lacking, np.zeros_like(lacking)]))


def test_rate_and_variability_are_those_of_the_beats(features):
    for role in ("ppg", "ecg"):
        np.testing.assert_allclose(features[f"{role}_interval_mean_s"][:2], [1.0, 0.6], rtol=0.08)
        assert features[f"{role}_interval_cv"][2] > 3 * features[f"{role}_interval_cv"][0]
        assert features[f"{role}_interval_rmssd_s"][2] > 0.1
        assert features[f"{role}_fastest_run_bpm"][2] > 85
    np.testing.assert_allclose(features["heart_rate_bpm"][:2], [60, 100], rtol=0.05)
    assert 0.9 < features["ppg_strongest_hz"][0] < 1.1


def test_both_scores_are_among_them(features):
    assert (features["quality_waveform"][:3] > 0.8).all()
    assert np.isfinite(features["quality_author"][:3]).all()


def test_a_missing_channel_has_no_features_and_the_other_keeps_its_own(features):
    of_ppg = [name for name in features if name.startswith("ppg_") and not name.endswith("missing_frac")]
    assert len(of_ppg) > 20
    for name in of_ppg:
        assert np.isnan(features[name][3]), name
    assert np.isnan(features["ecg_interval_mean_s"][4])
    assert features["ecg_interval_mean_s"][3] == pytest.approx(features["ecg_interval_mean_s"][0])


def test_features_of_a_segment_do_not_depend_on_its_batch():
    """Four intervals are no run of five, be there longer segments beside them or not."""
    made = [synthetic.recording(5, duration_s=8, rate_hz=RATE_HZ, heart_rate_bpm=bpm) for bpm in (34.0, 120.0)]
    x_BCT = np.stack([np.stack([one.ppg, one.ecg]) for one in made]).astype(np.float32)
    together, alone = described(x_BCT), described(x_BCT[:1])
    for name, value_B in together.items():
        np.testing.assert_allclose(alone[name], value_B[:1], err_msg=name)
    assert np.isfinite(alone["ecg_interval_mean_s"][0])
    for name in ("ecg_fastest_run_bpm", "ecg_last_run_bpm"):
        assert np.isnan(alone[name][0])
        assert together[name][1] == pytest.approx(120, rel=0.1)


def test_shares_of_bands_are_those_of_the_power():
    time_s = np.arange(3000) / RATE_HZ
    x_T = np.sin(2 * np.pi * 0.25 * time_s) + 2 * np.sin(2 * np.pi * 2.0 * time_s)
    found = described(x_T[None, None].astype(np.float32), ("ppg",))
    assert found["ppg_band_0.1_0.5_hz"][0] == pytest.approx(0.2, abs=0.02)
    assert found["ppg_band_1.5_3_hz"][0] == pytest.approx(0.8, abs=0.02)
    assert found["ppg_breath_hz"][0] == pytest.approx(0.25, abs=0.04)
    assert found["ppg_strongest_hz"][0] == pytest.approx(2.0, abs=0.04)
