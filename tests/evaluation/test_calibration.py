"""Temperature and threshold of a detector, on held-out subjects."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from jaxbio.evaluation.calibration import choose_threshold, fit_temperature
from jaxbio.objectives.answers import mean_probability

RNG = np.random.default_rng(0)


def test_the_temperature_undoes_what_made_a_network_too_sure():
    logit_NLK = RNG.normal(size=(20_000, 1, 3)) * 2
    class_N = np.array([RNG.choice(3, p=p_K) for p_K in softmax(logit_NLK[:, 0], axis=1)])
    assert fit_temperature(3 * logit_NLK, class_N) == pytest.approx(3.0, rel=0.03)


def test_the_temperature_is_that_of_a_logistic_regression_through_the_origin():
    logit_NLK = RNG.normal(size=(200, 1, 2))
    margin_N1 = logit_NLK[:, :, 1] - logit_NLK[:, :, 0]
    class_N = (margin_N1[:, 0] + RNG.logistic(size=200) > 0).astype(int)
    fitted = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-8).fit(margin_N1, class_N)
    assert fit_temperature(logit_NLK, class_N) == pytest.approx(1 / fitted.coef_[0, 0], rel=1e-2)


def test_crops_are_averaged_as_probabilities():
    logit_NLK = RNG.normal(size=(5, 3, 2))
    np.testing.assert_allclose(mean_probability(logit_NLK, 2.0), softmax(logit_NLK / 2, axis=2).mean(axis=1))


@pytest.mark.parametrize("sensitivity", [0.5, 0.8, 0.95, 1.0])
def test_a_threshold_finds_what_was_asked_for_and_no_more_than_it_must(sensitivity):
    positive_N = RNG.uniform(size=300) < 0.3
    score_N = np.round(np.clip(RNG.normal(0.4 + 0.3 * positive_N, 0.2), 0, 1), 2)  # with ties
    threshold = choose_threshold(positive_N, score_N, sensitivity)
    found = score_N[positive_N] >= threshold
    assert found.mean() >= sensitivity
    higher = score_N[positive_N] > score_N[score_N >= threshold].min()
    assert higher.mean() < sensitivity
    assert not np.isin(threshold, score_N)  # half-way between two scores, so that rounding moves nobody
