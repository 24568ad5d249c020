"""What frozen embeddings tell of classes without a network being trained: neighbours, clusters, and how sure that is.

scikit-learn computes; nothing here knows a network or a recording. Neighbours and clusters are Euclidean, of embeddings
as they are, or standardised by the caller.

    votes_MK = vote(train_ND, class_N, test_MD, classes=5, neighbours=20)
    SCORES["f1_macro"](true_M, votes_MK)
    separate(feature_ND, class_N)["silhouette"]
"""

from collections.abc import Callable, Mapping

import numpy as np

from jaxbio.evaluation.metrics import Interval

Scores = Mapping[str, Callable[[np.ndarray, np.ndarray], float]]
GROUPS = 20  # of subjects, left out in turn
_FACTOR = 1.96  # deviations of a normal interval of 95 %


def vote(
    train_ND: np.ndarray, class_N: np.ndarray, test_MD: np.ndarray, *, classes: int, neighbours: int
) -> np.ndarray:
    """Return each class's share of the votes of the nearest training rows, (M, classes) float64, all votes alike.

    Of fewer training rows than `neighbours` all vote.
    """
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(neighbours, len(train_ND))).fit(train_ND, class_N)
    votes_MK = np.zeros((len(test_MD), classes))
    votes_MK[:, model.classes_.astype(np.int64)] = model.predict_proba(test_MD)
    return votes_MK


def _f1(average: str) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(true_N: np.ndarray, votes_NK: np.ndarray) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(true_N, votes_NK.argmax(1), average=average, zero_division=0.0))

    return score


def _auroc(scheme: str, average: str) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(true_N: np.ndarray, votes_NK: np.ndarray) -> float:
        """Return the AUROC over the classes that occur; NaN where fewer than two do."""
        from sklearn.metrics import roc_auc_score

        found = np.unique(true_N).astype(np.int64)
        if len(found) < 2:
            return float("nan")
        if len(found) == 2:
            return float(roc_auc_score(true_N == found[1], votes_NK[:, found[1]] - votes_NK[:, found[0]]))
        if scheme == "ovo":
            return float(roc_auc_score(true_N, _shares(votes_NK, found), multi_class="ovo", labels=found))
        return float(roc_auc_score(true_N[:, None] == found[None], votes_NK[:, found], average=average))

    return score


def _shares(votes_NK: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the votes for the classes `found`, which sum to 1; as they are where all are found, ties too."""
    if len(found) == votes_NK.shape[1]:
        return votes_NK
    votes_NK = votes_NK[:, found]
    total_N1 = votes_NK.sum(1, keepdims=True)
    return np.where(total_N1 > 0, votes_NK / np.where(total_N1 > 0, total_N1, 1.0), 1 / len(found))


SCORES: Scores = {
    "f1_weighted": _f1("weighted"),
    "f1_macro": _f1("macro"),
    "auroc_ovr_weighted": _auroc("ovr", "weighted"),
    "auroc_ovr_macro": _auroc("ovr", "macro"),
    "auroc_ovo_macro": _auroc("ovo", "macro"),
}


def separate(feature_ND: np.ndarray, class_N: np.ndarray) -> dict[str, float]:
    """Return how well the true classes lie apart: silhouette (-1 to 1), Davies-Bouldin (lower is better),
    Calinski-Harabasz (higher is better); NaN where there are fewer than two classes or no more rows than classes.
    """
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    kinds = {
        "silhouette": silhouette_score,
        "davies_bouldin": davies_bouldin_score,
        "calinski_harabasz": calinski_harabasz_score,
    }
    if not 2 <= len(np.unique(class_N)) < len(class_N):
        return dict.fromkeys(kinds, float("nan"))
    return {name: float(score(feature_ND, class_N)) for name, score in kinds.items()}


def cluster(feature_ND: np.ndarray, class_N: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return how k-means clusters, as many as there are classes, agree with them: `nmi` (0 to 1) and `ari`.

    The best of ten starts; NaN where there are more classes than rows.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    classes = len(np.unique(class_N))
    if not 2 <= classes < len(class_N):
        return {"nmi": float("nan"), "ari": float("nan")}
    with threadpool_limits(1):
        found_N = KMeans(classes, n_init=10, random_state=seed).fit_predict(feature_ND.astype(np.float64))
    return agree(class_N, found_N)


def agree(class_N: np.ndarray, cluster_N: np.ndarray) -> dict[str, float]:
    """Return the normalised mutual information (`nmi`) and the adjusted Rand index (`ari`) of two partitions."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "nmi": float(normalized_mutual_info_score(class_N, cluster_N)),
        "ari": float(adjusted_rand_score(class_N, cluster_N)),
    }


def jackknife(
    measure: Callable[[np.ndarray], Mapping[str, float]], subject_N: np.ndarray, *, seed: int = 0
) -> dict[str, Interval]:
    """Return each value of `measure(rows)` on all rows, with the 95 % interval of a jackknife over groups of subjects.

    Not a bootstrap: a subject that is drawn twice would be its own nearest neighbour, and pull every cluster together.
    An interval is the value and 1.96 deviations, those of Efron and Stein's delete-a-group estimate; NaN where a
    value is not defined with some group left out.
    """
    subjects, code_N = np.unique(subject_N, return_inverse=True)
    groups = min(GROUPS, len(subjects))
    group_N = (np.random.default_rng(seed).permutation(len(subjects)) % groups)[code_N]
    whole = measure(np.arange(len(subject_N)))
    left_out = [measure(np.flatnonzero(group_N != group)) for group in range(groups)] if groups > 1 else []
    intervals = {}
    for name, value in whole.items():
        values_G = np.array([found[name] for found in left_out])
        spread = np.sqrt((groups - 1) * np.var(values_G)) if left_out else float("nan")
        intervals[name] = Interval(value, value - _FACTOR * spread, value + _FACTOR * spread)
    return intervals
