"""Metrics of predictions, with confidence intervals that resample subjects, not segments.

Segments of a subject resemble each other: resampling them singly would give intervals that are too narrow. NumPy only.

    interval = bootstrap(mae, bpm_N, {"trained": first_N, "mean": second_N}, subject_N)["trained"]
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray], float]
DRAWS = 1000
LEVEL = 0.95


class Interval(NamedTuple):
    """A metric's `value` on all segments, and the bootstrap's `low` and `high` (NaN where no draw defines it)."""

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


def bootstrap(
    metric: Metric,
    true_N: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    subject_N: np.ndarray,
    *,
    reference: str | None = None,
    classes: bool = False,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the metric of every prediction (N,) with its percentile interval over draws of whole subjects.

    All predictions see the same draws. With `reference`, a key of `predictions`, the values are differences from it:
    paired, so that what is hard for both does not widen the interval. Where labels are `classes`, draws that lack one
    of them are left out: a mean over fewer classes is another quantity.
    """
    rows = [np.flatnonzero(subject_N == subject) for subject in np.unique(subject_N)]
    rng = np.random.default_rng(seed)
    chosen = [np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))]) for _ in range(draws)]
    if classes:
        known = len(np.unique(true_N))
        chosen = [n for n in chosen if len(np.unique(true_N[n])) == known]
    drawn = {
        name: np.array([metric(true_N[n], predicted_N[n]) for n in chosen]) for name, predicted_N in predictions.items()
    }
    value = {name: metric(true_N, predicted_N) for name, predicted_N in predictions.items()}
    names = list(predictions)
    if reference is not None:
        names.remove(reference)
        drawn = {name: drawn[name] - drawn[reference] for name in names}
        value = {name: value[name] - value[reference] for name in names}
    return {name: Interval(value[name], *_percentiles(drawn[name], level)) for name in names}


def _percentiles(draw_K: np.ndarray, level: float) -> tuple[float, float]:
    defined = draw_K[np.isfinite(draw_K)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
