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
FARTHEST = 5.0  # deviations of a standardised feature at most
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


def subject_folds(
    subject_N: np.ndarray, folds: int, *, seed: int = 0, label_N: np.ndarray | None = None
) -> list[Split]:
    """Return splits whose test parts are disjoint and cover every row once; each subject is whole in one of them.

    Folds have about equally many rows, and of each class in `label_N`, where given, about as many subjects; there are
    at most as many folds as subjects. Raises UserError for fewer than two subjects, which cannot be split.
    """
    subjects, code_N, count_S = np.unique(subject_N, return_inverse=True, return_counts=True)
    if len(subjects) < 2:
        found = ", ".join(map(str, subjects)) or "none"
        raise UserError(Fault("subjects", found, "a probe is tested on other subjects than it is fitted on: name two"))
    kind_S = np.zeros(len(subjects), int) if label_N is None else _rarest(code_N, label_N)
    fold_S, rows_F = np.zeros(len(subjects), int), np.zeros(min(folds, len(subjects)), int)
    kinds_FK = np.zeros((len(rows_F), kind_S.max() + 1), int)
    shuffled = np.random.default_rng(seed).permutation(len(subjects))
    for subject in sorted(shuffled, key=lambda subject: -count_S[subject]):
        # fewest subjects of its kind, then fewest rows
        fold = np.lexsort((rows_F, kinds_FK[:, kind_S[subject]] if label_N is not None else rows_F))[0]
        fold_S[subject] = fold
        rows_F[fold] += count_S[subject]
        kinds_FK[fold, kind_S[subject]] += 1
    fold_N = fold_S[code_N]
    return [(np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)) for fold in range(len(rows_F))]


def _rarest(code_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Return for each subject the class, among those it has, that fewest subjects have, counted from 0."""
    kinds, kind_N = np.unique(label_N, return_inverse=True)
    has_SK = np.zeros((code_N.max() + 1, len(kinds)), bool)
    has_SK[code_N, kind_N] = True
    return np.where(has_SK, has_SK.sum(axis=0), len(has_SK) + 1).argmin(axis=1)


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
                for fit, test in check_grouped(splits, subject_N)
            ]
        )


def predict_constant(label_N: np.ndarray, subject_N: np.ndarray, splits: Sequence[Split], probe: Probe) -> np.ndarray:
    """Return, for the same rows, the majority class or the mean of each split's training part."""
    return _gather(
        [(test, np.full(len(test), probe.constant(label_N[fit]))) for fit, test in check_grouped(splits, subject_N)]
    )


def tested_rows(splits: Sequence[Split]) -> np.ndarray:
    """Return the rows that are tested, rising."""
    return np.sort(np.concatenate([test for _, test in splits]))


def check_grouped(splits: Sequence[Split], subject_N: np.ndarray) -> Sequence[Split]:
    """Return the splits; raises ValueError for one with a subject on both sides."""
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
    model, _, test_MD = fit_best(feature_ND, label_N, subject_N, test_MD, probe)
    return np.full(len(test_MD), label_N[0]) if model is None else model.predict(test_MD)


def fit_best(
    feature_ND: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, test_MD: np.ndarray, probe: Probe
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return a model with the penalty that does best on groups left out, and both features as it wants them.

    No model where there is one label alone.
    """
    penalty = PENALTIES[len(PENALTIES) // 2]
    if len(np.unique(group_N)) > 1 and len(np.unique(label_N)) > 1:
        inner = subject_folds(group_N, INNER_FOLDS)
        true_N = label_N[tested_rows(inner)]
        rotated = [(fit, test, *_rotate(*standardise(feature_ND[fit], feature_ND[test]))) for fit, test in inner]
        scores = []
        for candidate in PENALTIES:
            parts = [
                (test, _predict(fit_ND, label_N[fit], inner_MD, probe, candidate))
                for fit, test, fit_ND, inner_MD in rotated
            ]
            scores.append(probe.score(true_N, _gather(parts)))
        # of equal scores the stronger penalty
        penalty = PENALTIES[len(PENALTIES) - 1 - int(np.argmax(scores[::-1]))]
    feature_ND, test_MD = _rotate(*standardise(feature_ND, test_MD))
    return _fit(feature_ND, label_N, probe, penalty), feature_ND, test_MD


def standardise(fit_ND: np.ndarray, test_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both with mean 0 and deviation 1 over the first, float64, at most 5; NaN becomes 0, the mean.

    The numbers of an embedding are nearly collinear: in float32 a weak penalty leaves a solver ill-conditioned. What
    hardly varies in a few subjects may lie a thousand deviations away in others, and a line would be drawn out to it.
    """
    fit_ND, test_MD = fit_ND.astype(np.float64), test_MD.astype(np.float64)
    known_ND = np.isfinite(fit_ND)
    count_D = np.maximum(known_ND.sum(axis=0), 1)
    centre_D = np.where(known_ND, fit_ND, 0.0).sum(axis=0) / count_D
    off_ND = np.where(known_ND, fit_ND - centre_D, 0.0)
    spread_D = np.sqrt((off_ND**2).sum(axis=0) / count_D)
    scale_D = np.where(spread_D > 1e-9 * np.abs(centre_D), spread_D, np.inf)
    fit_ND, test_MD = off_ND / scale_D, np.nan_to_num((test_MD - centre_D) / scale_D, nan=0.0)
    return np.clip(fit_ND, -FARTHEST, FARTHEST), np.clip(test_MD, -FARTHEST, FARTHEST)


def _rotate(fit_ND: np.ndarray, test_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in the directions of the first, where those are fewer than the features.

    A linear model with an L2 penalty has no weight in any other, so it is the same model, several times faster.
    """
    if fit_ND.shape[0] >= fit_ND.shape[1]:
        return fit_ND, test_MD
    _, _, direction_ND = np.linalg.svd(fit_ND, full_matrices=False)
    return fit_ND @ direction_ND.T, test_MD @ direction_ND.T


def _fit(fit_ND: np.ndarray, label_N: np.ndarray, probe: Probe, penalty: float) -> Any:
    """Return a fitted model of standardised features; None where there is one label alone."""
    if len(np.unique(label_N)) == 1:
        return None
    with warnings.catch_warnings():
        # A weak penalty may not converge; the choice between penalties sees what comes of it.
        warnings.simplefilter("ignore", _convergence_warning())
        return probe.make(penalty, len(label_N)).fit(fit_ND, label_N)


def _predict(fit_ND: np.ndarray, label_N: np.ndarray, test_MD: np.ndarray, probe: Probe, penalty: float) -> np.ndarray:
    model = _fit(fit_ND, label_N, probe, penalty)
    return np.full(len(test_MD), label_N[0]) if model is None else model.predict(test_MD)


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    return ConvergenceWarning
