"""Temperature and threshold of a detector, on held-out subjects."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, recall_score, roc_auc_score

from jaxbio.config import changes
from jaxbio.config.command_line import load_recipe
from jaxbio.config.faults import UserError
from jaxbio.config.resolve import resolve
from jaxbio.evaluation.calibration import (
    HeldOut,
    calibrate_run,
    check_answers,
    choose_threshold,
    fit_temperature,
    measure_detector,
)
from jaxbio.evaluation.class_measures import AUROC
from jaxbio.evaluation.intervals import Draws, draw
from jaxbio.evaluation.measure import Answer, Truth
from jaxbio.export.detector import Detector
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


def test_figures_of_a_detector_are_those_of_an_evaluation_and_of_scikit_learn():
    """One definition of every figure, and one kind of interval, in detector.json and in results.json."""
    logit_NLK, subject_N = RNG.normal(size=(120, 1, 2)), np.arange(120) // 2
    true_N = (logit_NLK[:, 0, 1] + RNG.normal(size=120) > 0.3).astype(float)
    detector = Detector("alarm", "classes", ("no", "yes"), "yes", 0.4, 0.95, 1.3)
    ((channels, row),) = measure_detector(detector, HeldOut({"all": logit_NLK}, true_N, subject_N))
    probability_N = mean_probability(logit_NLK, 1.3)[:, 1]
    said_N = probability_N >= 0.4
    assert channels == "all"
    assert row["brier"] == pytest.approx(brier_score_loss(true_N, probability_N), abs=1e-9)
    assert row["auroc"] == pytest.approx(roc_auc_score(true_N, probability_N), abs=1e-9)
    assert row["sensitivity"] == pytest.approx(recall_score(true_N, said_N), abs=1e-9)
    assert row["specificity"] == pytest.approx(recall_score(1 - true_N, ~said_N), abs=1e-9)
    for name in ("brier", "auroc", "sensitivity", "specificity"):
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    truth = Truth(true_N.astype(int), subject_N, np.full(120, np.nan))
    answer = Answer(np.stack([1 - probability_N, probability_N], axis=1), said_N.astype(int))
    interval = draw(AUROC.compute, truth, [answer], Draws(subject_N)).interval()
    assert (row["auroc_low"], row["auroc_high"]) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_the_brier_score_of_several_classes_is_the_sum_over_them():
    logit_NLK = RNG.normal(size=(60, 1, 3))
    class_N = RNG.integers(0, 3, 60).astype(float)
    detector = Detector("rhythm", "classes", ("a", "b", "c"), temperature=1.0)
    ((_, row),) = measure_detector(detector, HeldOut({"all": logit_NLK}, class_N, np.arange(60)))
    off_NK = softmax(logit_NLK[:, 0], axis=1) - np.eye(3)[class_N.astype(int)]
    assert row["brier"] == pytest.approx((off_NK**2).sum(axis=1).mean(), abs=1e-9)
    assert "sensitivity" not in row


def test_the_error_of_numbers_has_an_interval():
    told = HeldOut({"all": 70 + 5 * RNG.normal(size=(40, 1, 1))}, np.full(40, 70.0), np.arange(40))
    ((_, row),) = measure_detector(Detector("rate", "numbers"), told)
    assert row["mae"] == pytest.approx(np.abs(told.answers["all"][:, 0, 0] - 70).mean())
    assert row["mae_low"] < row["mae"] < row["mae_high"]


@pytest.mark.parametrize(
    ("presets", "answer", "said"), [("superclass", "classes", "5 classes"), ("heart_rate", "numbers", "numbers")]
)
def test_a_sensitivity_is_refused_where_no_threshold_is_chosen(presets, answer, said, repository, tmp_path):
    config = resolve(load_recipe(f"{repository / 'configs/finetune.py'}:{presets},qualityfm_base"))
    meta = SimpleNamespace(config=changes.to_plain(config))
    loaded = SimpleNamespace(encoder=SimpleNamespace(answer=answer), meta=meta)
    with pytest.raises(UserError, match=f"--sensitivity.*answers with {said}"):
        calibrate_run(tmp_path, loaded, sensitivity=0.9)


def test_answers_that_are_no_numbers_calibrate_nothing():
    told = HeldOut({"all": np.zeros((3, 1, 2)), "ppg": np.full((3, 1, 2), np.nan)}, np.zeros(3), np.arange(3))
    with pytest.raises(UserError, match="3 of 3 answers from ppg channels are NaN"):
        check_answers("test", told)
