"""The front door: any length, one or many, faults that say what to mend."""

import subprocess
import sys

import numpy as np
import pytest

import jaxbio
from jaxbio.config.faults import UserError
from jaxbio.signals.segments import measure
from jaxbio.signals.synthetic import recording
from tools.rated_scores import RATES_BPM, ecg_train, pulse_train


@pytest.mark.parametrize("duration_s", [5.0, 7.77, 29.9, 30.0, 95.0])
def test_any_length_from_five_seconds_scores(duration_s):
    made = recording(2, duration_s=duration_s, heart_rate_bpm=90.0)
    scores = jaxbio.signals.score(ppg=made.ppg, ecg=made.ecg, rate_hz=300)
    assert all(isinstance(value, float) for value in scores.values())
    assert scores["ecg_waveform"] > 0.9
    assert scores["ppg_waveform"] > (0.9 if duration_s > 6 else 0.5)
    assert scores["kept_frac"] == 1.0
    assert scores["quality_waveform"] == pytest.approx((scores["ecg_waveform"] + scores["ppg_waveform"]) / 2, abs=1e-6)


def test_one_channel_is_enough():
    made = recording(2, duration_s=30.0)
    scores = jaxbio.signals.score(ecg=made.ecg, rate_hz=300.0)
    assert scores["quality_waveform"] == scores["ecg_waveform"]
    assert "ppg_waveform" not in scores


def test_leads_are_given_by_their_names():
    made = recording(2, duration_s=10.0)
    scores = jaxbio.signals.score(ii=made.ecg, avr=-0.5 * made.ecg, v1=None, rate_hz=300)
    ecg = jaxbio.signals.score(ecg=made.ecg, rate_hz=300)
    assert scores["ii_waveform"] == ecg["ecg_waveform"]
    assert scores["quality_waveform"] == pytest.approx((scores["ii_waveform"] + scores["avr_waveform"]) / 2, abs=1e-6)
    assert scores["heart_rate_bpm"] == pytest.approx(ecg["heart_rate_bpm"], rel=1e-3)


def test_rows_score_as_they_do_alone():
    made = [recording(seed, duration_s=60.0) for seed in range(3)]
    together = jaxbio.signals.score(ppg=np.stack([one.ppg for one in made]), rate_hz=300)
    assert together["quality_waveform"].shape == (3,)
    for row, one in enumerate(made):
        alone = jaxbio.signals.score(ppg=one.ppg, rate_hz=300)
        assert all(together[name][row] == value for name, value in alone.items())


def test_long_signals_are_the_mean_of_their_whole_windows():
    made = recording(1, duration_s=100.0)
    windows = made.ecg[:27000].reshape(3, 9000)
    expected = measure({"ecg": windows}, rate_hz=300.0, length=9000, channels=("ecg",)).columns["ecg_waveform"]
    assert jaxbio.signals.score(ecg=made.ecg, rate_hz=300)["ecg_waveform"] == pytest.approx(expected.mean(dtype=float))


def test_rates_may_differ_by_channel():
    made = recording(3, duration_s=30.0, rate_hz=250.0)
    scores = jaxbio.signals.score(ppg=made.ppg[::2], ecg=made.ecg, rate_hz={"ppg": 125.0, "ecg": 250.0})
    assert scores["quality_waveform"] > 0.95
    assert scores["heart_rate_bpm"] == pytest.approx(scores["pulse_rate_bpm"], abs=1.5)


def test_missing_samples_are_counted():
    made = recording(3, duration_s=30.0)
    ppg_T = made.ppg.copy()
    ppg_T[:4500] = np.nan
    scores = jaxbio.signals.score(ppg=ppg_T, rate_hz=300)
    assert scores["missing_frac"] == pytest.approx(0.5, abs=0.001)
    assert scores["kept_frac"] == 0.0
    assert 0.3 < scores["ppg_waveform"] < 0.55


@pytest.mark.parametrize("bpm", RATES_BPM)
def test_rates_are_right_from_25_to_300(bpm):
    for sign in (1, -1):
        pulse = jaxbio.signals.score(ppg=pulse_train(bpm, 0.35, sign), rate_hz=125)
        heart = jaxbio.signals.score(ecg=ecg_train(bpm, 0.1, sign), rate_hz=250)
        assert pulse["pulse_rate_bpm"] == pytest.approx(bpm, abs=2)
        assert heart["heart_rate_bpm"] == pytest.approx(bpm, abs=2)
        assert pulse["ppg_rate_doubt"] == heart["ecg_rate_doubt"] == 0


@pytest.mark.parametrize("t_wave", [0.35, 0.7])
@pytest.mark.parametrize("bpm", [25, 60, 150, 220, 240, 300])
def test_tall_t_waves_are_no_beats(bpm, t_wave):
    assert jaxbio.signals.score(ecg=ecg_train(bpm, t_wave), rate_hz=250)["heart_rate_bpm"] == pytest.approx(bpm, abs=2)


def test_the_score_of_clean_pulses_hardly_depends_on_their_rate():
    found = [jaxbio.signals.score(ppg=pulse_train(bpm, 0.35), rate_hz=125)["ppg_waveform"] for bpm in range(40, 205, 5)]
    assert max(found) - min(found) < 0.1
    assert min(found) > 0.9


def test_a_rate_in_doubt_is_said():
    made = recording(2, duration_s=90.0, heart_rate_bpm=80.0)
    noise_N = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    one = jaxbio.signals.score(ppg=noise_N, ecg=noise_N[::-1], rate_hz=300)
    assert one["ppg_rate_doubt"] == one["ecg_rate_doubt"] == 1
    assert np.isnan(one["pulse_rate_bpm"])
    assert np.isnan(one["heart_rate_bpm"])
    ppg_N = made.ppg.copy()
    ppg_N[9000:18000] = noise_N
    third = jaxbio.signals.score(ppg=ppg_N, rate_hz=300)
    assert third["ppg_rate_doubt"] == pytest.approx(1 / 3)
    assert third["pulse_rate_bpm"] == pytest.approx(80, abs=2)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"rate_hz": 100}, "score"),
        ({"ppg": np.ones(3000), "rate_hz": 100, "cross_channel": "yes"}, "cross_channel"),
        ({"II": np.ones(3000), "rate_hz": 100}, "II"),
        ({"ppg": np.ones(300), "rate_hz": 100}, "ppg"),
        ({"ppg": np.ones(3000), "rate_hz": 0}, "rate_hz"),
        ({"ppg": np.ones(3000), "rate_hz": float("nan")}, "rate_hz"),
        ({"ppg": np.ones(3000), "rate_hz": {"ecg": 100.0}}, "rate_hz"),
        ({"ppg": np.ones((2, 3, 3000)), "rate_hz": 100}, "ppg"),
        ({"ppg": np.ones(3000), "ecg": np.ones(2000), "rate_hz": 100}, "score"),
        ({"ppg": np.ones((2, 3000)), "ecg": np.ones((3, 3000)), "rate_hz": 100}, "score"),
    ],
)
def test_faults_name_the_field(given, field):
    with pytest.raises(UserError) as caught:
        jaxbio.signals.score(**given)
    assert caught.value.faults[0].field == field


def test_signals_do_not_import_jax(repository):
    code = "import sys, jaxbio; jaxbio.signals.score; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0


@pytest.mark.parametrize("rate_hz", ["125", None, {"ppg": "125"}, {"ecg": 125}])
def test_a_rate_that_is_no_number_is_a_fault(rate_hz):
    with pytest.raises(UserError) as caught:
        jaxbio.signals.score(ppg=np.zeros(5000), rate_hz=rate_hz)
    assert caught.value.faults[0].field == "rate_hz"


def test_masked_samples_are_missing():
    ppg = np.ma.masked_array(np.sin(np.arange(3750) / 20), mask=np.zeros(3750, bool))
    ppg[100:475] = np.ma.masked
    assert jaxbio.signals.score(ppg=ppg, rate_hz=125.0)["missing_frac"] == pytest.approx(0.1)
