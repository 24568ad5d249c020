"""Beats and scores on real recordings whose beats, rates and labels are known: the figures of tools/bench_scores.py.

The thresholds are those of the project's acceptance; the tool prints every record.
"""

import itertools

import numpy as np
import pytest

from jaxbio.signals import noise
from jaxbio.signals.synthetic import RHYTHMS
from tools import bench_scores, rated_scores


def test_r_peaks_of_mitdb_and_cpsc2021_are_found(data_dir):
    figures = bench_scores.bench_beats(data_dir)
    assert figures["cpsc_records"] == 12
    assert figures["mitdb_sensitivity"] >= 0.995
    assert figures["mitdb_predictivity"] >= 0.995
    assert figures["cpsc_sensitivity"] >= 0.99
    assert figures["cpsc_predictivity"] >= 0.99


def test_default_ecg_score_sees_noise_and_not_fibrillation(data_dir):
    figures = bench_scores.bench_cinc2017(data_dir)
    assert figures["auroc_noisy_waveform"] >= 0.95
    assert figures["auroc_af_waveform"] == pytest.approx(0.5, abs=0.08)
    # the published score takes fibrillation for bad quality: why it is not the default
    assert figures["auroc_af_author"] < 0.3
    assert figures["auroc_noisy_author"] < figures["auroc_noisy_waveform"]


def test_fibrillation_scores_as_well_as_sinus_rhythm(data_dir):
    figures = bench_scores.bench_cpsc2021(data_dir)
    assert figures["median_af_waveform"] >= 0.9
    assert figures["median_non_af_waveform"] >= 0.9


def test_ventricular_tachycardia_is_good_quality_and_classes_are_mixed(data_dir):
    figures = bench_scores.bench_cinc2015(data_dir)
    assert figures["segments"] == 1385
    assert figures["last_ecg_true_waveform"] >= 0.95
    assert figures["last_both_true_waveform"] >= 0.95
    assert figures["last_ecg_false_waveform"] < figures["last_ecg_true_waveform"]
    shares = figures["classes_waveform"].values()
    assert min(shares) >= 3.0
    assert max(shares) <= 80.0


def test_scores_agree_with_eyes(data_dir):
    figures = {name: value for name, (value, _, _) in bench_scores.bench_ratings(data_dir).items()}
    assert figures["ppg_spearman"] >= 0.92
    assert figures["ppg_auroc"] >= 0.99
    assert figures["ppg_difference"] <= 0.10
    assert figures["ppg_rubbish_above_0.9"] == 0
    assert figures["ppg_usable_below_0.7"] <= 0.02
    assert figures["ecg_spearman"] >= 0.82
    assert figures["ecg_auroc"] >= 0.99
    assert figures["ecg_usable_below_0.7"] <= 0.04
    # the two never contradict each other, and the published score runs against the eye
    assert max(figures["ppg_most_above_clean"], figures["ecg_most_above_clean"]) <= 1e-6
    assert figures["ppg_author_spearman"] < 0
    # an ECG beside it does not make it worse
    assert figures["ppg_cross_channel_spearman"] >= figures["ppg_spearman"] - 0.01


def test_clean_pulses_of_six_rhythms_are_good(data_dir):
    figures = {name: value for name, (value, _, _) in bench_scores.bench_ppg_rhythm(data_dir).items()}
    for rhythm in rated_scores.RHYTHMS:
        assert figures[f"median_{rhythm}"] >= 0.9
        assert figures[f"median_{rhythm}"] == pytest.approx(figures["median_sinus"], abs=0.05)
        assert figures[f"below_0.7_{rhythm}"] <= 0.03


@pytest.mark.slow
def test_heart_rate_is_the_monitors(data_dir):
    figures = bench_scores.bench_bidmc(data_dir)
    assert figures["good_frac"] >= 0.90
    assert figures["heart_rate_within_2bpm"] >= 0.92


@pytest.mark.slow
def test_scores_fall_as_noise_rises(data_dir):
    figures = bench_scores.bench_noise(data_dir)
    for role in ("ecg", "ppg"):
        assert figures[role]["segments"] >= 150
        for kind in noise.NOISES:
            means = [figures[role]["clean"], *figures[role][kind]["means"][1:]]
            assert all(after < before or after < 0.1 for before, after in itertools.pairwise(means)), kind
            assert figures[role][kind]["below_clean"] >= 0.95
        for kind in ("dropout", "dropout_hold"):
            assert np.all(np.diff([figures[role]["clean"], *figures[role][kind]["means"]]) < 0)
            assert figures[role][kind]["below_clean"] >= 0.95


def test_synthetic_rhythms_score_like_sinus(tmp_path):
    figures = bench_scores.bench_synthetic(tmp_path)
    for rhythm in set(RHYTHMS) - {"vt"}:
        for name in ("clean", "white_10db"):
            found = figures[f"ppg_{rhythm}"]
            assert found[f"median_{name}"] >= 0.9
            assert found[f"mean_{name}"] == pytest.approx(figures["ppg_sinus"][f"mean_{name}"], abs=0.05)
