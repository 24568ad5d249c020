"""Which segments stand for many: the worst, the middle and the best, and never one of them twice."""

import numpy as np


def choose_examples(score_N: np.ndarray) -> dict[int, str]:
    """Return places of `score_N` with what they are: worst, middle, best; of equal scores the first is the worst.

    One alone is neither: "the only one". Empty where there is none.
    """
    if score_N.size < 2:
        return dict.fromkeys(range(score_N.size), "the only one")
    # As a stable sort would rank them, without one: a store has tens of millions of scores.
    worst = int(np.argmin(np.where(np.isnan(score_N), np.inf, score_N)))
    best = score_N.size - 1 - int(np.argmax(score_N[::-1]))
    between = {_middle(score_N): "middle"} if score_N.size > 2 else {}
    return {worst: "worst", **between, best: "best"}


def _middle(score_N: np.ndarray) -> int:
    """Return the place that half of the scores come before, as a stable sort ranks them; NaN come last."""
    rank = score_N.size // 2
    score = np.partition(score_N, rank)[rank]
    unknown_N = np.isnan(score_N)
    same_N, lower_N = (unknown_N, ~unknown_N) if np.isnan(score) else (score_N == score, score_N < score)
    return int(np.flatnonzero(same_N)[rank - np.count_nonzero(lower_N)])
