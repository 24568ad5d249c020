"""Measures against scikit-learn, SciPy and cases by hand, to 1e-6; weights against rows repeated."""

import numpy as np
import pytest
from scipy import stats

from jaxbio.evaluation import class_measures, number_measures
from jaxbio.evaluation.measure import Answer, Truth

TOLERANCE = 1e-6


def ones(truth: Truth) -> np.ndarray:
    return np.ones((1, len(truth.label_N)))


def truth_of(label_N) -> Truth:
    label_N = np.asarray(label_N)
    return Truth(label_N, np.arange(len(label_N)), np.full(len(label_N), 2.0))


def two_classes(seed: int = 0, rows: int = 300) -> tuple[Truth, Answer]:
    """Scores with many ties, more negatives than positives, and decisions that are not scores at a half."""
    rng = np.random.default_rng(seed)
    label_N = (rng.random(rows) < 0.3).astype(int)
    said_N = np.clip(np.round(0.25 * label_N + rng.random(rows) * 0.7, 2), 0, 1)
    return truth_of(label_N), Answer(np.stack([1 - said_N, said_N], axis=1), (said_N > 0.4).astype(int))


def several_classes() -> tuple[Truth, Answer]:
    rng = np.random.default_rng(1)
    label_N = rng.integers(0, 4, 300)
    score_NK = rng.dirichlet(np.ones(4), 300) + 0.5 * np.eye(4)[label_N]
    score_NK /= score_NK.sum(axis=1, keepdims=True)
    return truth_of(label_N), Answer(score_NK, score_NK.argmax(axis=1))


def value(measures, name: str, truth: Truth, answer: Answer) -> float:
    (measure,) = (measure for measure in measures if measure.name == name)
    return float(measure.compute(truth, answer, ones(truth))[0])


def test_measures_of_two_classes_are_those_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    truth, answer = two_classes()
    label_N, said_N, decision_N = truth.label_N, answer.score_NK[:, 1], answer.decision_N
    false, true, _ = sk.roc_curve(label_N, said_N, drop_intermediate=False)
    expected = {
        "auroc": sk.roc_auc_score(label_N, said_N),
        "auprc": sk.average_precision_score(label_N, said_N),
        "sensitivity": sk.recall_score(label_N, decision_N),
        "specificity": sk.recall_score(label_N, decision_N, pos_label=0),
        "f1": sk.f1_score(label_N, decision_N),
        "brier": sk.brier_score_loss(label_N, said_N),
        "sensitivity_at_specificity_90": true[false <= 0.1].max(),
        "specificity_at_sensitivity_95": 1 - false[true >= 0.95].min(),
    }
    for name, number in expected.items():
        assert value(class_measures.TWO_CLASSES, name, truth, answer) == pytest.approx(number, abs=TOLERANCE), name


def test_measures_of_several_classes_are_those_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    truth, answer = several_classes()
    expected = {
        "balanced_accuracy": sk.balanced_accuracy_score(truth.label_N, answer.decision_N),
        "macro_f1": sk.f1_score(truth.label_N, answer.decision_N, average="macro"),
        "macro_auroc": sk.roc_auc_score(truth.label_N, answer.score_NK, multi_class="ovr"),
        "accuracy": sk.accuracy_score(truth.label_N, answer.decision_N),
        "brier": np.mean(np.sum((answer.score_NK - np.eye(4)[truth.label_N]) ** 2, axis=1)),
    }
    for name, number in expected.items():
        assert value(class_measures.SEVERAL_CLASSES, name, truth, answer) == pytest.approx(number, abs=TOLERANCE), name


def test_measures_of_votes_are_those_of_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    truth, answer = several_classes()
    weight_N, scores = np.random.default_rng(2).integers(0, 3, 300), answer.score_NK
    rows = np.repeat(np.arange(300), weight_N)
    label_N, score_NK = truth.label_N[rows], scores[rows]
    expected = {
        class_measures.WEIGHTED_F1: sk.f1_score(label_N, answer.decision_N[rows], average="weighted"),
        class_measures.WEIGHTED_AUROC: sk.roc_auc_score(label_N, score_NK, multi_class="ovr", average="weighted"),
        class_measures.PAIRED_AUROC: sk.roc_auc_score(label_N, score_NK, multi_class="ovo"),
    }
    for measure, number in expected.items():
        (found,) = measure.compute(truth, answer, weight_N[None].astype(float))
        assert found == pytest.approx(number, abs=TOLERANCE), measure.name


def test_calibration_error_is_that_of_the_bins_by_hand():
    said_N = np.array([0.05, 0.05, 0.95, 0.95, 0.55])
    truth = truth_of([0, 1, 1, 1, 0])
    answer = Answer(np.stack([1 - said_N, said_N], axis=1), (said_N > 0.5).astype(int))
    # bins: |0.05 - 0.5| of two, |0.95 - 1| of two, |0.55 - 0| of one
    expected = (2 * 0.45 + 2 * 0.05 + 0.55) / 5
    assert value(class_measures.TWO_CLASSES, "calibration_error", truth, answer) == pytest.approx(expected)


def test_challenge_score_weighs_a_missed_alarm_five_times():
    truth = truth_of([1, 1, 1, 0, 0, 0, 0])
    answer = Answer(np.zeros((7, 2)), np.array([1, 1, 0, 0, 0, 0, 1]))
    assert class_measures.CHALLENGE_SCORE.compute(truth, answer, ones(truth))[0] == pytest.approx(5 / (5 + 1 + 5))


def test_measures_of_numbers_are_those_of_scikit_learn_and_scipy():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    truth = truth_of(120 + 15 * rng.normal(size=200))
    said_N = 0.5 * truth.label_N + 55 + 8 * rng.normal(size=200)
    answer = Answer(said_N[:, None], said_N)
    error_N = said_N - truth.label_N
    expected = {
        "mae": sk.mean_absolute_error(truth.label_N, said_N),
        "me": error_N.mean(),
        "sd": error_N.std(ddof=1),
        "r": stats.pearsonr(truth.label_N, said_N).statistic,
        "r2": sk.r2_score(truth.label_N, said_N),
        "mase": np.abs(error_N).mean() / 2.0,
    }
    for name, number in expected.items():
        assert value(number_measures.NUMBERS, name, truth, answer) == pytest.approx(number, abs=TOLERANCE), name


@pytest.mark.parametrize("kind", ["two", "several", "numbers"])
def test_a_weight_counts_as_so_many_rows(kind):
    """Whole counts, as a bootstrap has them, zeros among them."""
    truth, answer = several_classes() if kind == "several" else two_classes()
    measures = {"two": class_measures.TWO_CLASSES, "several": class_measures.SEVERAL_CLASSES}.get(kind)
    if measures is None:
        rng = np.random.default_rng(3)
        said_N = truth.label_N + rng.normal(size=300)
        answer, measures = Answer(said_N[:, None], said_N), number_measures.NUMBERS
    weight_DN = np.random.default_rng(4).integers(0, 4, (3, 300)).astype(float)
    for measure in measures:
        found_D = measure.compute(truth, answer, weight_DN)
        for found, weight_N in zip(found_D, weight_DN):
            rows = np.repeat(np.arange(300), weight_N.astype(int))
            again = Truth(truth.label_N[rows], truth.subject_N[rows], truth.scale_N[rows])
            repeated = Answer(answer.score_NK[rows], answer.decision_N[rows])
            assert found == pytest.approx(measure.compute(again, repeated, ones(again))[0], abs=1e-9), measure.name


@pytest.mark.parametrize("label", [0, 1])
def test_a_draw_of_one_class_defines_no_area(label):
    truth, answer = truth_of(np.full(5, label)), Answer(np.full((5, 2), 0.5), np.zeros(5, int))
    for name in ("auroc", "sensitivity_at_specificity_90", "specificity_at_sensitivity_95"):
        assert np.isnan(value(class_measures.TWO_CLASSES, name, truth, answer))


@pytest.mark.parametrize(
    ("shares", "bhs"),
    [((0.60, 0.85, 0.95), "A"), ((0.59, 0.85, 0.95), "B"), ((0.45, 0.70, 0.90), "C"), ((0.60, 0.85, 0.84), "D")],
)
def test_grades_of_pressure_follow_the_shares(shares, bhs):
    within = [round(1000 * share) for share in shares]
    edges = np.cumsum([within[0], max(within[1] - within[0], 0), max(within[2] - within[1], 0)])
    error_N = np.full(1000, 30.0)
    for first, last, size in zip([0, *edges], edges, (4.0, 9.0, 14.0)):
        error_N[first:last] = size * np.where(np.arange(last - first) % 2, 1, -1)
    if shares[2] < shares[1]:
        error_N = np.concatenate([np.full(600, 4.0), np.full(240, 9.0), np.full(160, 30.0)])
    assert number_measures.grade_pressure(error_N, subjects=85).bhs == bhs


def test_aami_asks_for_bias_spread_and_85_subjects():
    rng = np.random.default_rng(5)
    good_N = 1 + 7 * stats.zscore(rng.normal(size=400))
    assert number_measures.grade_pressure(good_N, subjects=85).aami == "passed"
    assert number_measures.grade_pressure(good_N + 5, subjects=85).aami == "failed"
    assert number_measures.grade_pressure(1.3 * good_N, subjects=85).aami == "failed"
    few = number_measures.grade_pressure(good_N, subjects=84)
    assert (few.aami, few.bhs) == ("not applicable", "not applicable")
    assert few.within[0] == pytest.approx(np.mean(np.abs(good_N) <= 5))
