"""How well scores rank positives above negatives: the points of the ROC and the area under it. NumPy only.

What a run says of its held-out segments and what an evaluation says of an export are this one AUROC. Of many draws of
subjects at once, each a weight for every segment; a run has one draw, of ones.

    area_D = area_under_roc(positive_N, score_N, np.ones((1, len(positive_N))))
"""

import numpy as np


def divide(over_D: np.ndarray, under_D: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where the divisor is 0."""
    defined_D = under_D != 0
    return np.where(defined_D, over_D / np.where(defined_D, under_D, 1.0), np.nan)


def roc_points(positive_N: np.ndarray, score_N: np.ndarray, weight_DN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of true and of false positives, each (D, thresholds), from the highest threshold to the lowest.

    A threshold is a score that occurs: what is at least as large counts as positive.
    """
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    last = np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))
    weight_DN, positive_N = weight_DN[:, order_N], positive_N[order_N]
    all_DU = np.cumsum(weight_DN, axis=1)[:, last]
    true_DU = np.cumsum(weight_DN * positive_N, axis=1)[:, last]
    return true_DU, all_DU - true_DU


def area_under_roc(positive_N: np.ndarray, score_N: np.ndarray, weight_DN: np.ndarray) -> np.ndarray:
    """Return the AUROC of each draw, ties counted half; NaN where a draw lacks one of the two, or a score is NaN."""
    if not score_N.size or np.isnan(score_N).any():
        return np.full(len(weight_DN), np.nan)
    true_DU, false_DU = roc_points(positive_N, score_N, weight_DN)
    rise_DU = np.diff(false_DU, axis=1, prepend=0.0)
    below_DU = true_DU - 0.5 * np.diff(true_DU, axis=1, prepend=0.0)
    return divide((rise_DU * below_DU).sum(axis=1), true_DU[:, -1] * false_DU[:, -1])
