"""What frozen embeddings tell of classes without a network being trained: neighbours, clusters, and how sure that is.

scikit-learn finds neighbours and clusters; nothing here knows a network or a recording. Neighbours and clusters are
Euclidean, of embeddings as they are, or standardised by the caller.

    answer = vote(train_ND, class_N, test_MD, classes=5, neighbours=20)
    SCORES["f1_macro"].compute(truth, answer, weight_DM)
    separate(feature_ND, class_N)["silhouette"]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbio.evaluation.class_measures import MACRO_AUROC, MACRO_F1, PAIRED_AUROC, WEIGHTED_AUROC, WEIGHTED_F1
from jaxbio.evaluation.measure import Answer, Measure
from jaxbio.evaluation.metrics import Interval

GROUPS = 20  # of subjects, left out in turn
_FACTOR = 1.96  # deviations of a normal interval of 95 %


def vote(train_ND: np.ndarray, class_N: np.ndarray, test_MD: np.ndarray, *, classes: int, neighbours: int) -> Answer:
    """Return each class's share of the votes of the nearest training rows, all votes alike, and the class with most.

    Of fewer training rows than `neighbours` all vote.
    """
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(min(neighbours, len(train_ND))).fit(train_ND, class_N)
    votes_MK = np.zeros((len(test_MD), classes))
    votes_MK[:, model.classes_.astype(np.int64)] = model.predict_proba(test_MD)
    return Answer(votes_MK, votes_MK.argmax(axis=1))


SCORES: Mapping[str, Measure] = {
    "f1_weighted": WEIGHTED_F1,
    "f1_macro": MACRO_F1,
    "auroc_ovr_weighted": WEIGHTED_AUROC,
    "auroc_ovr_macro": MACRO_AUROC,
    "auroc_ovo_macro": PAIRED_AUROC,
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

    classes = len(np.unique(class_N))
    if not 2 <= classes < len(class_N):
        return {"nmi": float("nan"), "ari": float("nan")}
    found_N = KMeans(classes, n_init=10, random_state=seed).fit_predict(feature_ND.astype(np.float64))
    return agree(class_N, found_N)


def agree(class_N: np.ndarray, cluster_N: np.ndarray) -> dict[str, float]:
    """Return the normalised mutual information (`nmi`) and the adjusted Rand index (`ari`) of two partitions."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "nmi": float(normalized_mutual_info_score(class_N, cluster_N)),
        "ari": float(adjusted_rand_score(class_N, cluster_N)),
    }


@dataclass(frozen=True)
class LeftOut:
    """A measure's `value`, and its value with every group of subjects left out."""

    value: float
    left_out_G: np.ndarray

    def minus(self, other: "LeftOut") -> "LeftOut":
        """Return the difference, paired: what is hard for both does not widen its interval."""
        return LeftOut(self.value - other.value, self.left_out_G - other.left_out_G)

    def interval(self) -> Interval:
        """Return the value and 1.96 deviations, those of Efron and Stein's delete-a-group estimate; NaN where the value
        is not defined with some group left out, or there is a single one.
        """
        groups = len(self.left_out_G)
        spread = float(np.sqrt((groups - 1) * np.var(self.left_out_G))) if groups > 1 else float("nan")
        return Interval(self.value, self.value - _FACTOR * spread, self.value + _FACTOR * spread)


def jackknife(
    measure: Callable[[np.ndarray], Mapping[str, float]], subject_N: np.ndarray, *, seed: int = 0
) -> dict[str, LeftOut]:
    """Return each value of `measure(rows)` on all rows, and with each of some groups of subjects left out in turn.

    Not a bootstrap: a subject that is drawn twice would be its own nearest neighbour, and pull every cluster together.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    subjects, code_N = np.unique(subject_N, return_inverse=True)
    groups = min(GROUPS, len(subjects))
    group_N = (np.random.default_rng(seed).permutation(len(subjects)) % groups)[code_N]
    with threadpool_limits(1):  # threads would wait for each other over so little
        whole = measure(np.arange(len(subject_N)))
        left_out = [measure(np.flatnonzero(group_N != group)) for group in range(groups)] if groups > 1 else []
    return {name: LeftOut(value, np.array([found[name] for found in left_out])) for name, value in whole.items()}


def mean_of(seeds: Sequence[LeftOut]) -> LeftOut:
    """Return the mean over seeds of a measure, each with the same groups left out."""
    return LeftOut(float(np.mean([one.value for one in seeds])), np.mean([one.left_out_G for one in seeds], axis=0))
