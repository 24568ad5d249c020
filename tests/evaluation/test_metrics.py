"""Metrics against scikit-learn's."""

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
