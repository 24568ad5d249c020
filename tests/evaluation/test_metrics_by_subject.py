"""Metrics against scikit-learn's, and intervals that know what a subject is."""

import numpy as np
import pytest

from jaxbio.evaluation import metrics


def test_metrics_are_those_of_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true_N, predicted_N = rng.integers(0, 4, (2, 300))
    predicted_N = np.where(rng.random(300) < 0.5, true_N, predicted_N)
    assert metrics.balanced_accuracy(true_N, predicted_N) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(true_N, predicted_N)
    )
    assert metrics.macro_f1(true_N, predicted_N) == pytest.approx(
        sklearn_metrics.f1_score(true_N, predicted_N, average="macro")
    )
    true_N, noise_N = rng.normal(size=(2, 300))
    assert metrics.mae(true_N, true_N + noise_N) == pytest.approx(np.abs(noise_N).mean())
    assert metrics.r2(true_N, true_N + noise_N) == pytest.approx(sklearn_metrics.r2_score(true_N, true_N + noise_N))


def test_r2_of_equal_labels_is_not_a_number():
    assert np.isnan(metrics.r2(np.ones(5), np.arange(5.0)))
    interval = metrics.bootstrap(metrics.r2, np.ones(4), {"one": np.zeros(4)}, np.array(["a", "a", "b", "b"]), draws=10)
    assert np.isnan(interval["one"]).all()


def _draw_errors(rng, subjects: int, segments: int):
    """Return labels, predictions whose error is mostly the subject's own, and subjects; the mean error is 0.8."""
    error_S = np.sqrt(np.pi / 2) * 0.8 * np.abs(rng.normal(size=subjects))
    error_N = np.repeat(error_S, segments)
    return np.zeros(len(error_N)), error_N, np.repeat(np.arange(subjects), segments)


def test_intervals_over_subjects_cover_and_those_over_segments_do_not():
    rng = np.random.default_rng(1)
    hits, naive_hits, trials = 0, 0, 100
    for trial in range(trials):
        true_N, predicted_N, subject_N = _draw_errors(rng, 20, 8)
        named = {"one": predicted_N}
        by_subject = metrics.bootstrap(metrics.mae, true_N, named, subject_N, draws=200, seed=trial)["one"]
        by_segment = metrics.bootstrap(metrics.mae, true_N, named, np.arange(160), draws=200, seed=trial)["one"]
        hits += by_subject.low <= 0.8 <= by_subject.high
        naive_hits += by_segment.low <= 0.8 <= by_segment.high
    assert hits >= 82  # 95 % nominal; 20 subjects and percentiles give about 92
    assert naive_hits <= 70


def test_paired_difference_is_narrower_than_either_interval():
    rng = np.random.default_rng(2)
    true_N, hard_N, subject_N = _draw_errors(rng, 20, 8)
    named = {"one": hard_N, "other": hard_N + 0.1}
    single = metrics.bootstrap(metrics.mae, true_N, named, subject_N)
    gain = metrics.bootstrap(metrics.mae, true_N, named, subject_N, reference="one")
    assert set(gain) == {"other"}
    assert gain["other"] == pytest.approx((0.1, 0.1, 0.1))
    assert single["other"].high - single["other"].low > 0.1


def test_draws_without_a_rare_class_do_not_change_what_is_measured():
    subject_N, true_N = np.repeat(np.arange(10), 4), np.zeros(40, int)
    true_N[:4] = 1
    named = {"constant": np.zeros(40, int)}
    interval = metrics.bootstrap(metrics.balanced_accuracy, true_N, named, subject_N, classes=True, draws=200)
    assert interval["constant"] == (0.5, 0.5, 0.5)
