"""Two AUROCs on the same subjects compared without drawing (DeLong et al., Biometrics 44:837, 1988).

It applies where every subject has one segment; else segments are no independent observations.

    found = compare_areas(positive_N, score_N, other_N)
    found.difference, found.p
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from jaxbio.evaluation.metrics import LEVEL, Interval

_FACTOR = 1.959963984540054  # deviations of a normal interval of 95 %
assert LEVEL == 0.95


class Areas(NamedTuple):
    """The difference of two AUROCs with its interval, and the two-sided p that it is 0."""

    difference: Interval
    p: float


def covariance(positive_N: np.ndarray, scores_MN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUROCs (M,) of several scores and their covariance, by placements (Sun and Xu, IEEE SPL 21, 2014).

    Both classes need two segments at least: NaN otherwise.
    """
    positive_N = positive_N.astype(bool)
    above_MP, below_MQ = scores_MN[:, positive_N], scores_MN[:, ~positive_N]
    positives, negatives = above_MP.shape[1], below_MQ.shape[1]
    rank_MN = np.apply_along_axis(rankdata, 1, np.concatenate([above_MP, below_MQ], axis=1))
    place_MP = (rank_MN[:, :positives] - np.apply_along_axis(rankdata, 1, above_MP)) / negatives
    place_MQ = 1 - (rank_MN[:, positives:] - np.apply_along_axis(rankdata, 1, below_MQ)) / positives
    if min(positives, negatives) < 2:
        return place_MP.mean(axis=1), np.full((len(scores_MN),) * 2, np.nan)
    spread_MM = np.atleast_2d(np.cov(place_MP)) / positives + np.atleast_2d(np.cov(place_MQ)) / negatives
    return place_MP.mean(axis=1), spread_MM


def compare_areas(positive_N: np.ndarray, score_N: np.ndarray, other_N: np.ndarray) -> Areas:
    """Return the AUROC of `score_N` minus that of `other_N`, with interval and p."""
    area_M, spread_MM = covariance(positive_N, np.stack([score_N, other_N]))
    value = float(area_M[0] - area_M[1])
    deviation = float(np.sqrt(max(spread_MM[0, 0] + spread_MM[1, 1] - 2 * spread_MM[0, 1], 0.0)))
    p = float(2 * ndtr(-abs(value) / deviation)) if deviation > 0 else float(value == 0)
    return Areas(Interval(value, value - _FACTOR * deviation, value + _FACTOR * deviation), p)
