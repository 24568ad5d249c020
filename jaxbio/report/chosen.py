"""Which segments stand for many: the best and the worst, and never one of them twice."""

import numpy as np


def choose_examples(score_N: np.ndarray, *, middle: bool = False) -> dict[int, str]:
    """Return places of `score_N` with what they are: worst, (middle,) best; of equal scores the first is the worst.

    One alone is neither: "the only one". Empty where there is none.
    """
    ranked = np.argsort(score_N, kind="stable").tolist()
    if len(ranked) < 2:
        return dict.fromkeys(ranked, "the only one")
    chosen = {ranked[0]: "worst", ranked[-1]: "best"}
    if middle and len(ranked) > 2:
        chosen[ranked[len(ranked) // 2]] = "middle"
    return chosen
