"""Measures of answers that are courses: a signal (N, T) for each segment, in its unit. NumPy only.

A measure is of each segment first, then a weighted mean over segments. An error is predicted minus true; a course that
is one number stands still.

    error_N = _mae(true_NT, said_NT)
"""

from collections.abc import Callable

import numpy as np

from jaxbio.evaluation.measure import Answer, Measure, Truth
from jaxbio.report.ranking import divide

_Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _mean_of(score: _Score) -> Callable[[Truth, Answer, np.ndarray], np.ndarray]:
    """Return a measure from a score (N,) of true and predicted courses, NaN where one segment's is not defined."""

    def compute(truth: Truth, answer: Answer, weight_DN: np.ndarray) -> np.ndarray:
        said_NT = np.broadcast_to(answer.score_NK, truth.label_N.shape)
        return divide(weight_DN @ score(truth.label_N, said_NT), weight_DN.sum(axis=1))

    return compute


def _mae(true_NT: np.ndarray, said_NT: np.ndarray) -> np.ndarray:
    return np.abs(said_NT - true_NT).mean(axis=1)


def _centred(x_NT: np.ndarray) -> np.ndarray:
    return x_NT - x_NT.mean(axis=1, keepdims=True)


def _shape_mae(true_NT: np.ndarray, said_NT: np.ndarray) -> np.ndarray:
    """Return the mean absolute error once each course has lost its own mean."""
    return _mae(_centred(true_NT), _centred(said_NT))


def _shape_r(true_NT: np.ndarray, said_NT: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation over a segment's samples; NaN where either stands still."""
    true_NT, said_NT = _centred(true_NT), _centred(said_NT)
    spread_N = np.sqrt((true_NT**2).sum(axis=1) * (said_NT**2).sum(axis=1))
    return divide((true_NT * said_NT).sum(axis=1), spread_N)


COURSE_MAE = Measure("mae", _mean_of(_mae), better=-1, in_unit=True)
COURSES: tuple[Measure, ...] = (
    COURSE_MAE,
    Measure("shape_mae", _mean_of(_shape_mae), better=-1, in_unit=True),
    Measure("shape_r", _mean_of(_shape_r)),
)
