"""Readouts: models that learn answers from frozen features of other subjects: linear, neighbours, boosted trees.

A course is learnt from tokens (N, L, D), everything else from one vector a segment.

Each gives probabilities at the shares that the classes have in the training part, and decisions that weigh the classes
alike. scikit-learn fits; NaN in a feature is its mean, but for the trees, which know what is missing.

    answer = answer_held_out(feature_ND, label_N, subject_N, splits, LINEAR, classes=2)
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.evaluation import probes
from jaxbio.evaluation.measure import Answer
from jaxbio.evaluation.probes import Split

NEIGHBOURS = 10
# Small trees, few of them: data sets are small
_TREES = {"max_iter": 60, "max_depth": 3, "early_stopping": False, "random_state": 0}
_LEAF = 5  # least segments in a leaf

# (features to learn from, labels, groups that stay together, features to answer, number of classes; 0: numbers)
Readout = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], Answer]


def answer_held_out(
    feature_ND: np.ndarray,
    label_N: np.ndarray,
    subject_N: np.ndarray,
    splits: Sequence[Split],
    readout: Readout,
    *,
    classes: int,
    grouped: bool = True,
    name: str = "features",
) -> Answer:
    """Return answers for every row that is tested in some split (their rows in rising order).

    `classes` is 0 for numbers. Raises ValueError for a split with a subject on both sides, unless `grouped` is False;
    UserError that says `name` where an answer is no number.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    if grouped:
        probes.check_grouped(splits, subject_N)
    group_N = subject_N if grouped else np.arange(len(label_N))
    parts = []
    with threadpool_limits(1):  # threads that wait for each other on a busy machine made this forty times slower
        for fit, test in splits:
            parts.append(readout(feature_ND[fit], label_N[fit], group_N[fit], feature_ND[test], classes))
    order = np.argsort(np.concatenate([test for _, test in splits]))
    score_NK = np.concatenate([part.score_NK for part in parts])[order]
    if not np.isfinite(score_NK).all():
        wrong = int((~np.isfinite(score_NK)).any(axis=1).sum())
        remedy = "its features hold numbers too large for float32, or the fit failed: look at the encoder's export"
        raise UserError(Fault(name, f"{wrong} of {len(score_NK)} predictions are NaN", remedy))
    return Answer(score_NK, np.concatenate([part.decision_N for part in parts])[order])


def answer_constant(label_N: np.ndarray, splits: Sequence[Split], *, classes: int) -> Answer:
    """Return what is said without any features: the shares of the classes among all that are learnt from, or the mean
    of each training part.

    Shares are of all splits together: those of each would run against what is tested in it.
    """
    rows = probes.tested_rows(splits)
    if classes:
        count_K = np.bincount(np.concatenate([label_N[fit] for fit, _ in splits]).astype(int), minlength=classes)
        score_NK = np.tile(count_K / count_K.sum(), (len(rows), 1))
        return Answer(score_NK, np.full(len(rows), count_K.argmax()))
    parts = np.concatenate([np.full(len(test), label_N[fit].mean()) for fit, test in splits])
    said_N = parts[np.argsort(np.concatenate([test for _, test in splits]))]
    return Answer(said_N[:, None], said_N)


def AS_SAID(fit_ND, label_N, group_N, test_MD, classes) -> Answer:
    """Learn nothing: features are probabilities of the classes and, last, the code that is decided for; or a number, or
    a course.
    """
    if not classes:
        return Answer(test_MD, test_MD.mean(axis=1))
    return Answer(test_MD[:, :classes], test_MD[:, classes].astype(int))


def LINEAR(fit_ND, label_N, group_N, test_MD, classes) -> Answer:
    """Logistic or ridge regression on standardised features, its penalty chosen on groups left out."""
    probe = probes.CLASSES if classes else probes.NUMBERS
    model, fit_ND, test_MD = probes.fit_best(fit_ND, label_N, group_N, test_MD, probe)
    return _answer(model, test_MD, label_N, classes, weighed=True)


def KNN(fit_ND, label_N, group_N, test_MD, classes) -> Answer:
    """Mean of the ten nearest in standardised features."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    fit_ND, test_MD = probes.standardise(fit_ND, test_MD)
    count = min(NEIGHBOURS, len(fit_ND))
    model = (KNeighborsClassifier if classes else KNeighborsRegressor)(count).fit(fit_ND, label_N)
    return _answer(model, test_MD, label_N, classes, weighed=False)


def BOOSTED(fit_ND, label_N, group_N, test_MD, classes) -> Answer:
    """Gradient boosting of small trees (scikit-learn's, by histograms), which know what is missing."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    if len(np.unique(label_N)) == 1:
        return _single(label_N[0], len(test_MD), classes)
    told_D = np.isfinite(fit_ND).any(axis=0)  # scikit-learn fails on columns that are missing throughout
    if not told_D.any():
        raise UserError(
            Fault("features", "all missing", "no segment has any: name recordings of the encoder's channels")
        )
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    model = kind(**_TREES, min_samples_leaf=min(_LEAF, max(1, len(fit_ND) // 4)))
    # classes are not weighed in fitting: scikit-learn's trees take thirty times as long with weights
    return _answer(model.fit(fit_ND[:, told_D], label_N), test_MD[:, told_D], label_N, classes, weighed=False)


def COURSE(fit_NLD, label_NT, group_N, test_MLD, classes) -> Answer:
    """Ridge regression from each token of a segment, the same for all, to its part of the course: answers (M, T).

    Tokens follow each other in time. A course is stretched to whole samples a token, and what is answered back to it.
    """
    tokens, length = fit_NLD.shape[1], label_NT.shape[1]
    part = -(-length // tokens)
    label_NP = _stretch(label_NT, tokens * part).reshape(-1, part)
    fit_ND, test_MD = (x_NLD.reshape(-1, x_NLD.shape[2]) for x_NLD in (fit_NLD, test_MLD))
    model, _, test_MD = probes.fit_best(fit_ND, label_NP, np.repeat(group_N, tokens), test_MD, probes.NUMBERS)
    if model is None:
        score_MT = np.full((len(test_MLD), length), label_NT.flat[0])
    else:
        score_MT = _stretch(model.predict(test_MD).reshape(len(test_MLD), -1), length)
    return Answer(score_MT, score_MT.mean(axis=1))


READOUTS: dict[str, Readout] = {"linear": LINEAR, "knn": KNN, "boosted": BOOSTED}


def _answer(model: Any, test_MD: np.ndarray, label_N: np.ndarray, classes: int, *, weighed: bool) -> Answer:
    """Return what a model says, which in fitting has `weighed` the classes alike or has not: its probabilities at the
    shares that they have, its decisions as if they had the same.
    """
    if model is None:
        return _single(label_N[0], len(test_MD), classes)
    if not classes:
        said_N = model.predict(test_MD)
        return Answer(said_N[:, None], said_N)
    said_NK = _of_all_classes(model.predict_proba(test_MD), model.classes_, classes)
    share_K = np.bincount(label_N.astype(int), minlength=classes) / len(label_N)
    alike_NK = said_NK if weighed else said_NK / np.where(share_K > 0, share_K, 1.0)
    score_NK = alike_NK * share_K
    return Answer(score_NK / score_NK.sum(axis=1, keepdims=True), alike_NK.argmax(axis=1))


def _stretch(x_NT: np.ndarray, samples: int) -> np.ndarray:
    """Return rows over the same time in so many samples, by straight lines between the middles of samples."""
    length = x_NT.shape[1]
    if samples == length:
        return x_NT
    place_S = np.clip((np.arange(samples) + 0.5) * length / samples - 0.5, 0, length - 1)
    below_S = np.minimum(place_S.astype(int), max(length - 2, 0))
    share_S = place_S - below_S
    return x_NT[:, below_S] * (1 - share_S) + x_NT[:, np.minimum(below_S + 1, length - 1)] * share_S


def _of_all_classes(score_NK: np.ndarray, code_K: np.ndarray, classes: int) -> np.ndarray:
    whole_NK = np.zeros((len(score_NK), classes))
    whole_NK[:, code_K.astype(int)] = score_NK
    return whole_NK


def _single(label: float, rows: int, classes: int) -> Answer:
    """Return the only label that was learnt from."""
    if not classes:
        return Answer(np.full((rows, 1), float(label)), np.full(rows, float(label)))
    return Answer(np.tile(np.eye(classes)[int(label)], (rows, 1)), np.full(rows, int(label)))
