"""Measures of answers about classes, weighted, of many draws at once, defined as in scikit-learn where it has them.

Of two classes the second is the positive one. NumPy only.

    hit_D, false_D, quiet_D, missed_D = counts(truth, answer, np.ones((1, len(truth.label_N))))
"""

from collections.abc import Callable
from functools import partial
from itertools import permutations

import numpy as np

from jaxbio.evaluation.measure import Answer, Measure, Truth
from jaxbio.report.ranking import area_under_roc, divide, roc_points

BINS = 10  # of equal width, for calibration (Naeini et al., AAAI 2015, use as many)
MISSED = 5  # false negatives weigh so much in the score of the PhysioNet/CinC Challenge 2015


def average_precision(positive_N: np.ndarray, score_N: np.ndarray, weight_DN: np.ndarray) -> np.ndarray:
    """Return the AUPRC of each draw as average precision: precision at each threshold times the recall it adds."""
    true_DU, false_DU = roc_points(positive_N, score_N, weight_DN)
    precision_DU = np.nan_to_num(divide(true_DU, true_DU + false_DU))
    return divide((np.diff(true_DU, axis=1, prepend=0.0) * precision_DU).sum(axis=1), true_DU[:, -1])


def _binary(curve: Callable[..., np.ndarray]) -> Callable[[Truth, Answer, np.ndarray], np.ndarray]:
    return lambda truth, answer, weight_DN: curve(truth.label_N == 1, answer.score_NK[:, 1], weight_DN)


def _sensitivity_at(specificity: float, positive_N, score_N, weight_DN) -> np.ndarray:
    """Return the largest sensitivity of a threshold whose specificity is at least so much."""
    true_DU, false_DU = roc_points(positive_N, score_N, weight_DN)
    allowed_DU = false_DU <= (1 - specificity) * false_DU[:, -1:] + 1e-9
    return divide(np.where(allowed_DU, true_DU, 0.0).max(axis=1), np.where(false_DU[:, -1] > 0, true_DU[:, -1], 0.0))


def _specificity_at(sensitivity: float, positive_N, score_N, weight_DN) -> np.ndarray:
    """Return the largest specificity of a threshold whose sensitivity is at least so much."""
    true_DU, false_DU = roc_points(positive_N, score_N, weight_DN)
    total_D = np.where(true_DU[:, -1] > 0, false_DU[:, -1], 0.0)
    enough_DU = true_DU >= sensitivity * true_DU[:, -1:] - 1e-9
    left_DU = np.where(enough_DU, false_DU[:, -1:] - false_DU, 0.0)
    return divide(left_DU.max(axis=1), total_D)


def _over_classes(curve: Callable[..., np.ndarray]) -> Callable[[Truth, Answer, np.ndarray], np.ndarray]:
    """Return the mean of a curve's measure over the classes that occur, each against the others."""

    def compute(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
        codes = np.unique(truth.label_N).astype(int)
        parts = [curve(truth.label_N == code, answer.score_NK[:, code], weight_DN) for code in codes]
        return np.mean(parts, axis=0)

    return compute


def counts(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the weight (D,) of true positives, false positives, true negatives and false negatives, as decided."""
    positive_N, said_N = truth.label_N == 1, answer.decision_N == 1
    kinds = (positive_N & said_N, ~positive_N & said_N, ~positive_N & ~said_N, positive_N & ~said_N)
    return tuple(weight_DN @ kind_N.astype(np.float64) for kind_N in kinds)


def _sensitivity(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    hit, _, _, missed = counts(truth, answer, weight_DN)
    return divide(hit, hit + missed)


def _specificity(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    _, false, quiet, _ = counts(truth, answer, weight_DN)
    return divide(quiet, quiet + false)


def _f1(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    hit, false, _, missed = counts(truth, answer, weight_DN)
    return divide(2 * hit, 2 * hit + false + missed)


def _challenge_score(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return (TP + TN) / (TP + TN + FP + 5 FN) (Clifford et al., Computing in Cardiology 42, 2015)."""
    hit, false, quiet, missed = counts(truth, answer, weight_DN)
    return divide(hit + quiet, hit + quiet + false + MISSED * missed)


def _accuracy(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    return divide(weight_DN @ (answer.decision_N == truth.label_N).astype(np.float64), weight_DN.sum(axis=1))


def _of_each_class(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weight (D, classes) of hits, of truths and of decisions, of every class true or decided for."""
    code_K = np.union1d(truth.label_N, answer.decision_N)
    true_NK, said_NK = truth.label_N[:, None] == code_K, answer.decision_N[:, None] == code_K
    kinds = (true_NK & said_NK, true_NK, said_NK)
    return tuple(weight_DN @ kind_NK.astype(np.float64) for kind_NK in kinds)


def _balanced_accuracy(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean recall of the classes that occur; NaN for a draw that lacks one of them."""
    hit_DK, true_DK, _ = _of_each_class(truth, answer, weight_DN)
    occurs_K = np.isin(np.union1d(truth.label_N, answer.decision_N), truth.label_N)
    return np.mean(divide(hit_DK[:, occurs_K], true_DK[:, occurs_K]), axis=1)


def _f1_of_each_class(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 2 TP / (2 TP + FP + FN) and the weight of truths, (D, classes), of every class true or decided for; NaN
    for a draw that lacks a class that occurs: a mean over fewer is another quantity.
    """
    hit_DK, true_DK, said_DK = _of_each_class(truth, answer, weight_DN)
    occurs_K = np.isin(np.union1d(truth.label_N, answer.decision_N), truth.label_N)
    lacks_D1 = (true_DK[:, occurs_K] == 0).any(axis=1, keepdims=True)
    return np.where(lacks_D1, np.nan, np.nan_to_num(divide(2 * hit_DK, true_DK + said_DK))), true_DK


def _macro_f1(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean F1 over classes, true or decided for."""
    return np.mean(_f1_of_each_class(truth, answer, weight_DN)[0], axis=1)


def _brier(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of probabilities from what is true; of two classes the second's, else summed."""
    off_NK = answer.score_NK - (truth.label_N[:, None] == np.arange(answer.score_NK.shape[1]))
    off_N = off_NK[:, 1] ** 2 if off_NK.shape[1] == 2 else (off_NK**2).sum(axis=1)
    return divide(weight_DN @ off_N, weight_DN.sum(axis=1))


def bins_of(truth: Truth, answer: Answer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bin, probability and truth of what calibration asks: the second of two classes, else the likeliest one."""
    if answer.score_NK.shape[1] == 2:
        said_N, true_N = answer.score_NK[:, 1], truth.label_N == 1
    else:
        likeliest_N = answer.score_NK.argmax(axis=1)
        said_N, true_N = answer.score_NK.max(axis=1), truth.label_N == likeliest_N
    return np.minimum((said_N * BINS).astype(int), BINS - 1), said_N, true_N.astype(np.float64)


def _weighted_f1(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean F1 over classes, weighted by their size."""
    f1_DK, true_DK = _f1_of_each_class(truth, answer, weight_DN)
    return _weigh(f1_DK, true_DK)


def _weighted_auroc(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the AUROC of each class that occurs against the others, weighted by the classes' size."""
    kinds = [(truth.label_N == code, answer.score_NK[:, code]) for code in np.unique(truth.label_N).astype(int)]
    area_DK = np.stack([area_under_roc(own_N, said_N, weight_DN) for own_N, said_N in kinds], axis=1)
    return _weigh(area_DK, np.stack([weight_DN @ own_N.astype(np.float64) for own_N, _ in kinds], axis=1))


def _weigh(value_DK: np.ndarray, weight_DK: np.ndarray) -> np.ndarray:
    return divide((value_DK * weight_DK).sum(axis=1), weight_DK.sum(axis=1))


def _paired_auroc(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean over pairs of classes that occur of the AUROC of one against the other, by the score of each
    (Hand and Till, Mach Learn 45:171, 2001); NaN for fewer than two classes.
    """
    areas = []
    for own, other in permutations(np.unique(truth.label_N).astype(int), 2):
        rows = np.isin(truth.label_N, (own, other))
        areas.append(area_under_roc(truth.label_N[rows] == own, answer.score_NK[rows, own], weight_DN[:, rows]))
    return np.mean(areas, axis=0) if areas else np.full(len(weight_DN), np.nan)


def _calibration_error(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean over ten bins of |mean probability - share that is true|, by their weight."""
    bin_N, said_N, true_N = bins_of(truth, answer)
    inside_NU = (bin_N[:, None] == np.arange(BINS)).astype(np.float64)
    off_DU = weight_DN @ (inside_NU * (said_N - true_N)[:, None])
    return divide(np.abs(off_DU).sum(axis=1), weight_DN.sum(axis=1))


AUROC = Measure("auroc", _binary(area_under_roc))
BALANCED_ACCURACY = Measure("balanced_accuracy", _balanced_accuracy)
MACRO_F1 = Measure("macro_f1", _macro_f1)
MACRO_AUROC = Measure("macro_auroc", _over_classes(area_under_roc))
WEIGHTED_F1, WEIGHTED_AUROC = Measure("weighted_f1", _weighted_f1), Measure("weighted_auroc", _weighted_auroc)
PAIRED_AUROC = Measure("paired_auroc", _paired_auroc)
ACCURACY = Measure("accuracy", _accuracy)
SENSITIVITY, SPECIFICITY = Measure("sensitivity", _sensitivity), Measure("specificity", _specificity)
BRIER = Measure("brier", _brier, better=-1)
CALIBRATION_ERROR = Measure("calibration_error", _calibration_error, better=-1)
CHALLENGE_SCORE = Measure("challenge_score", _challenge_score)
TWO_CLASSES: tuple[Measure, ...] = (
    AUROC,
    Measure("auprc", _binary(average_precision)),
    SENSITIVITY,
    SPECIFICITY,
    Measure("sensitivity_at_specificity_90", _binary(partial(_sensitivity_at, 0.90))),
    Measure("specificity_at_sensitivity_95", _binary(partial(_specificity_at, 0.95))),
    Measure("f1", _f1),
    BRIER,
    CALIBRATION_ERROR,
)
SEVERAL_CLASSES: tuple[Measure, ...] = (BALANCED_ACCURACY, MACRO_F1, MACRO_AUROC, ACCURACY, BRIER, CALIBRATION_ERROR)
