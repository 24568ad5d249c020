"""Which segments stand for many: the best and the worst, and never one of them twice."""

import numpy as np


def choose_examples(score_N: np.ndarray, *, middle: bool = False) -> dict[int, str]:
    """Return places of `score_N` with what they are: worst, (middle,) best; of equal scores the first is the worst.

    One alone is neither: "the only one". Empty where there is none.
    """
    if score_N.size < 2:
        return dict.fromkeys(range(score_N.size), "the only one")
    # As a stable sort would rank them, without one: a store has tens of millions of scores.
    worst = int(np.argmin(np.where(np.isnan(score_N), np.inf, score_N)))
    best = score_N.size - 1 - int(np.argmax(score_N[::-1]))
    chosen = {worst: "worst", best: "best"}
    if middle and score_N.size > 2:
        chosen[int(np.argsort(score_N, kind="stable")[score_N.size // 2])] = "middle"
    return chosen
