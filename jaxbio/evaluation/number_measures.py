"""Measures of answers that are numbers, weighted and of many draws at once, and the grades of blood pressure.

An error is predicted minus true. NumPy only.

    grade_pressure(error_N, subjects=120).bhs
"""

from typing import NamedTuple

import numpy as np

from jaxbio.evaluation.measure import Answer, Measure, Truth
from jaxbio.report.ranking import divide

LEAST_SUBJECTS = 85  # of both protocols (ANSI/AAMI SP10; O'Brien et al., J Hypertens 11:S43, 1993)
AAMI_ME_MMHG, AAMI_SD_MMHG = 5.0, 8.0  # ANSI/AAMI SP10: mean error and its deviation at most
BHS_WITHIN_MMHG = (5.0, 10.0, 15.0)
BHS_SHARES = {"A": (0.60, 0.85, 0.95), "B": (0.50, 0.75, 0.90), "C": (0.40, 0.65, 0.85)}  # O'Brien et al.; else D
NOT_APPLICABLE = "not applicable"


def _error(truth: Truth, answer: Answer) -> np.ndarray:
    return answer.score_NK[:, 0] - truth.label_N


def _mean(value_N: np.ndarray, weight_DN: np.ndarray) -> np.ndarray:
    return divide(weight_DN @ value_N, weight_DN.sum(axis=1))


def _mae(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    return _mean(np.abs(_error(truth, answer)), weight_DN)


def _me(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    return _mean(_error(truth, answer), weight_DN)


def _spread(value_N: np.ndarray, weight_DN: np.ndarray) -> np.ndarray:
    """Return the sum of weighted squares about the weighted mean; centred first, so that little is lost."""
    value_N = value_N - value_N.mean()
    return np.maximum(weight_DN @ value_N**2 - weight_DN.sum(axis=1) * _mean(value_N, weight_DN) ** 2, 0.0)


def _sd(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the deviation of the errors, with N - 1."""
    return np.sqrt(divide(_spread(_error(truth, answer), weight_DN), np.maximum(weight_DN.sum(axis=1) - 1, 0.0)))


def _r(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation; NaN where either does not vary."""
    true_N = truth.label_N - truth.label_N.mean()
    said_N = answer.score_NK[:, 0] - answer.score_NK[:, 0].mean()
    total_D = weight_DN.sum(axis=1)
    both_D = weight_DN @ (true_N * said_N) - total_D * _mean(true_N, weight_DN) * _mean(said_N, weight_DN)
    spreads_D = np.sqrt(_spread(true_N, weight_DN) * _spread(said_N, weight_DN))
    flat_D = spreads_D <= 1e-12 * np.sqrt((true_N**2).sum() * (said_N**2).sum())
    return divide(both_D, np.where(flat_D, 0.0, spreads_D))


def _r2(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return 1 - squared error / squared distance from the mean of the labels; NaN where all are equal."""
    return 1.0 - divide(weight_DN @ _error(truth, answer) ** 2, _spread(truth.label_N, weight_DN))


def _mase(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
    """Return the mean absolute error over the mean absolute distance of the training labels from their mean.

    Above 1: worse than the mean of the training subjects would be on them (QualityFM's MASE, there in percent).
    """
    return divide(weight_DN @ np.abs(_error(truth, answer)), weight_DN @ truth.scale_N)


MAE = Measure("mae", _mae, better=-1, in_unit=True)
R2 = Measure("r2", _r2)
NUMBERS: tuple[Measure, ...] = (
    MAE,
    Measure("me", _me, better=0, in_unit=True),
    Measure("sd", _sd, better=-1, in_unit=True),
    Measure("r", _r),
    R2,
    Measure("mase", _mase, better=-1),
)


class Grades(NamedTuple):
    """Grades of blood pressure: `bhs` A to D, `aami` "passed" or "failed", or both "not applicable"; the shares of
    errors within 5, 10 and 15 mmHg, from which the former follows.
    """

    bhs: str
    aami: str
    within: tuple[float, ...]


def grade_pressure(error_N: np.ndarray, *, subjects: int) -> Grades:
    """Return the grades of errors in mmHg; of fewer than 85 subjects neither protocol applies."""
    size_N = np.abs(error_N)
    within = tuple(float(np.mean(size_N <= limit)) for limit in BHS_WITHIN_MMHG)
    if subjects < LEAST_SUBJECTS:
        return Grades(NOT_APPLICABLE, NOT_APPLICABLE, within)
    reached = (grade for grade, shares in BHS_SHARES.items() if all(np.greater_equal(within, shares)))
    passed = abs(error_N.mean()) <= AAMI_ME_MMHG and error_N.std(ddof=1) <= AAMI_SD_MMHG
    return Grades(next(reached, "D"), "passed" if passed else "failed", within)
