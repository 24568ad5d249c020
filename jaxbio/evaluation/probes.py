"""Linear probes: what a linear model reads from frozen embeddings, on subjects it has not seen.

Features are standardised by the training part, the regularisation is chosen by cross-validation over its subjects, and
no subject is on both sides of any split. It knows neither networks nor recordings.

    splits = subject_folds(subject_N, 5)
    predicted_N = predict_held_out(feature_ND, label_N, subject_N, splits, CLASSES)
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.evaluation import metrics

Split = tuple[np.ndarray, np.ndarray]  # rows to fit on, rows to test on

INNER_FOLDS = 4
# strength of the L2 penalty on standardised features, in units of the number of training rows
PENALTIES = tuple(float(penalty) for penalty in 10.0 ** np.arange(-3.0, 2.0))


@dataclass(frozen=True)
class Probe:
    """A kind of label: the linear model for a penalty, what a model that sees no features says, and the score
    (higher is better) by which the penalty is chosen.
    """

    make: Callable[[float, int], Any]
    constant: Callable[[np.ndarray], Any]
    score: metrics.Metric


def _logistic(penalty: float, rows: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0 / (penalty * rows), class_weight="balanced", max_iter=100, tol=1e-3)


def _ridge(penalty: float, rows: int) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=penalty * rows)


def _majority(label_N: np.ndarray) -> Any:
    value_K, count_K = np.unique(label_N, return_counts=True)
    return value_K[np.argmax(count_K)]


def _negative_mae(true_N: np.ndarray, predicted_N: np.ndarray) -> float:
    return -metrics.mae(true_N, predicted_N)


CLASSES = Probe(_logistic, _majority, metrics.balanced_accuracy)
NUMBERS = Probe(_ridge, np.mean, _negative_mae)


def check_installed() -> None:
    """Raise UserError where scikit-learn is not installed."""
    if importlib.util.find_spec("sklearn") is None:
        remedy = "linear probes need scikit-learn: pip install 'jaxbio[evaluate]'"
        raise UserError(Fault("scikit-learn", "not installed", remedy))


def subject_folds(subject_N: np.ndarray, folds: int, *, seed: int = 0) -> list[Split]:
    """Return splits whose test parts are disjoint and cover every row once; each subject is whole in one of them.

    Folds have about equally many rows; there are at most as many as subjects. Raises UserError for fewer than two
    subjects, which cannot be split.
    """
    subjects, code_N, count_S = np.unique(subject_N, return_inverse=True, return_counts=True)
    if len(subjects) < 2:
        found = ", ".join(map(str, subjects)) or "none"
        raise UserError(Fault("subjects", found, "a probe is tested on other subjects than it is fitted on: name two"))
    fold_S, rows_F = np.zeros(len(subjects), int), np.zeros(min(folds, len(subjects)), int)
    shuffled = np.random.default_rng(seed).permutation(len(subjects))
    for subject in sorted(shuffled, key=lambda subject: -count_S[subject]):
        fold_S[subject] = np.argmin(rows_F)
        rows_F[fold_S[subject]] += count_S[subject]
    fold_N = fold_S[code_N]
    return [(np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)) for fold in range(len(rows_F))]


def predict_held_out(
    feature_ND: np.ndarray, label_N: np.ndarray, subject_N: np.ndarray, splits: Sequence[Split], probe: Probe
) -> np.ndarray:
    """Return a prediction for every row that is tested in some split (their rows in rising order).

    Raises ValueError for a split with a subject on both sides.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    # A few hundred unknowns: threads that wait for each other on a busy machine made this forty times slower.
    with threadpool_limits(1):
        return _gather(
            [
                (test, _fit_and_predict(feature_ND[fit], label_N[fit], subject_N[fit], feature_ND[test], probe))
                for fit, test in _checked(splits, subject_N)
            ]
        )


def predict_constant(label_N: np.ndarray, subject_N: np.ndarray, splits: Sequence[Split], probe: Probe) -> np.ndarray:
    """Return, for the same rows, the majority class or the mean of each split's training part."""
    return _gather(
        [(test, np.full(len(test), probe.constant(label_N[fit]))) for fit, test in _checked(splits, subject_N)]
    )


def tested_rows(splits: Sequence[Split]) -> np.ndarray:
    """Return the rows that are tested, rising."""
    return np.sort(np.concatenate([test for _, test in splits]))


def _checked(splits: Sequence[Split], subject_N: np.ndarray) -> Sequence[Split]:
    for fit, test in splits:
        shared = np.intersect1d(subject_N[fit], subject_N[test])
        if shared.size:
            raise ValueError(f"subject {shared[0]} is on both sides of a split")
    return splits


def _gather(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    row_N = np.concatenate([row for row, _ in parts])
    return np.concatenate([predicted for _, predicted in parts])[np.argsort(row_N)]


def _fit_and_predict(
    feature_ND: np.ndarray, label_N: np.ndarray, subject_N: np.ndarray, test_MD: np.ndarray, probe: Probe
) -> np.ndarray:
    """Return predictions for `test_MD` with the penalty that does best on subjects left out of the training part."""
    penalty = PENALTIES[len(PENALTIES) // 2]
    if len(np.unique(subject_N)) > 1:
        inner = subject_folds(subject_N, INNER_FOLDS)
        true_N = label_N[tested_rows(inner)]
        scores = []
        for candidate in PENALTIES:
            parts = [
                (test, _predict(feature_ND[fit], label_N[fit], feature_ND[test], probe, candidate))
                for fit, test in inner
            ]
            scores.append(probe.score(true_N, _gather(parts)))
        # of equal scores the stronger penalty
        penalty = PENALTIES[len(PENALTIES) - 1 - int(np.argmax(scores[::-1]))]
    return _predict(feature_ND, label_N, test_MD, probe, penalty)


def _predict(
    feature_ND: np.ndarray, label_N: np.ndarray, test_MD: np.ndarray, probe: Probe, penalty: float
) -> np.ndarray:
    if len(np.unique(label_N)) == 1:
        return np.full(len(test_MD), label_N[0])
    # The numbers of an embedding are nearly collinear: in float32 a weak penalty leaves the solver ill-conditioned.
    feature_ND, test_MD = feature_ND.astype(np.float64), test_MD.astype(np.float64)
    centre_D, spread_D = feature_ND.mean(axis=0), feature_ND.std(axis=0)
    scale_D = np.where(spread_D > 0, spread_D, 1.0)
    with warnings.catch_warnings():
        # A weak penalty may not converge; the choice between penalties sees what comes of it.
        warnings.simplefilter("ignore", _convergence_warning())
        model = probe.make(penalty, len(label_N)).fit((feature_ND - centre_D) / scale_D, label_N)
    return model.predict((test_MD - centre_D) / scale_D)


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    return ConvergenceWarning
