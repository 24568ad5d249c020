"""Metrics of predictions, unweighted, and what an interval of one is. NumPy only.

mae(bpm_N, predicted_N)
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]
DRAWS = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A metric's `value` on all segments, and the ends of its interval over subjects, `low` and `high` (NaN: none)."""

    value: float
    low: float
    high: float


def balanced_accuracy(true_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Return the mean recall of the classes that occur in `true_N`."""
    return float(np.mean([np.mean(predicted_N[true_N == label] == label) for label in np.unique(true_N)]))


def macro_f1(true_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Return the mean over classes, true or predicted, of 2 TP / (2 TP + FP + FN)."""
    scores = []
    for label in np.union1d(true_N, predicted_N):
        hits = np.sum((true_N == label) & (predicted_N == label))
        scores.append(2.0 * hits / (np.sum(true_N == label) + np.sum(predicted_N == label)))
    return float(np.mean(scores))


def mae(true_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Return the mean absolute error, in the unit of the labels."""
    return float(np.mean(np.abs(true_N - predicted_N)))


def r2(true_N: np.ndarray, predicted_N: np.ndarray) -> float:
    """Return 1 - squared error / squared distance from the mean of `true_N`; NaN where all labels are equal."""
    spread = np.sum((true_N - true_N.mean()) ** 2)
    return float(1.0 - np.sum((true_N - predicted_N) ** 2) / spread) if spread > 0 else float("nan")
