"""Collapse monitors: what pooled features say when a loss cannot.

A self-distillation loss falls as well when teacher and student agree on one point; these numbers do not. NumPy only.

    collapse_monitors(np.concatenate(features))
"""

import numpy as np


def collapse_monitors(feature_BD: np.ndarray) -> dict[str, float]:
    """Return `batch_spread` and `effective_rank` of pooled features (B, D) of held-out segments, B at least 2; both 0
    of features that are not finite, which tell nothing apart.
    """
    feature_BD = np.asarray(feature_BD, np.float64)
    if not np.isfinite(feature_BD).all():
        return {"batch_spread": 0.0, "effective_rank": 0.0}
    return {"batch_spread": batch_spread(feature_BD), "effective_rank": effective_rank(feature_BD)}


def explained(value: float, constant: float, floor: float) -> float:
    """Return the share of the way from what the best constant prediction gives to the least possible, at most 1.

    0: no better than a constant, or nothing to explain, because the two are one; below 0, worse than a constant.
    """
    way = constant - floor
    return (constant - value) / way if way > 1e-6 * max(1.0, abs(constant)) else 0.0


def batch_spread(feature_BD: np.ndarray) -> float:
    """Return the deviation over segments, averaged over features; 0 when all segments share one point."""
    return float(feature_BD.std(axis=0).mean())


def effective_rank(feature_BD: np.ndarray) -> float:
    """Return exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli 2007).

    Between 1 (one direction carries everything) and min(B - 1, D); 0 when all segments share one point.
    """
    singular = np.linalg.svd(feature_BD - feature_BD.mean(axis=0), compute_uv=False)
    total = singular.sum()
    if total <= np.finfo(np.float64).eps * np.abs(feature_BD).max(initial=0.0) * feature_BD.size:
        return 0.0
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
