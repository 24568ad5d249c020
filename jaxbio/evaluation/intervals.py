"""Intervals of measures over subjects: a bootstrap corrected for bias and skewness (BCa), and paired differences.

Subjects are drawn whole, because segments of one resemble each other. SciPy has the BCa for rows; here it is of
subjects, leaves out draws that do not define a measure, and many measures share one set of draws, so that differences
are paired.

    table = draw(AUROC.compute, truth, [answer], Draws(truth.subject_N))
    interval = table.interval()
    gain = table.minus(other).interval()
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri

from jaxbio.evaluation.measure import Answer, Compute, Truth
from jaxbio.evaluation.metrics import DRAWS, LEVEL, Interval

_GROUPS = 200  # of subjects, left out in turn: more would cost and change nothing
_AT_ONCE = 2_000_000  # weights
_LEAST_DEFINED = 0.5  # of the draws: with fewer there is no interval


@dataclass(frozen=True)
class Draws:
    """Draws of the subjects of N segments, the same whenever they are asked for: `subject_N` codes or names."""

    subject_N: np.ndarray
    draws: int = DRAWS
    seed: int = 0

    @cached_property
    def code_N(self) -> np.ndarray:
        """Each segment's subject, counted from 0."""
        return np.unique(self.subject_N, return_inverse=True)[1]

    def bootstrap(self) -> Iterator[np.ndarray]:
        """Yield weights (some draws, N): how often each segment's subject was drawn."""
        subjects = int(self.code_N.max()) + 1
        rng, share_S = np.random.default_rng(self.seed), np.full(subjects, 1 / subjects)
        count_DS = rng.multinomial(subjects, share_S, size=self.draws)
        step = max(1, _AT_ONCE // len(self.code_N))
        for first in range(0, self.draws, step):
            yield count_DS[first : first + step][:, self.code_N].astype(np.float64)

    def left_out(self) -> Iterator[np.ndarray]:
        """Yield weights (some groups, N): 0 for the subjects that are left out, each group of them once."""
        subjects = int(self.code_N.max()) + 1
        groups = min(_GROUPS, subjects)
        group_N = (np.random.default_rng(self.seed).permutation(subjects) % groups)[self.code_N]
        step = max(1, _AT_ONCE // len(self.code_N))
        for first in range(0, groups, step):
            yield (group_N != np.arange(first, min(first + step, groups))[:, None]).astype(np.float64)


@dataclass(frozen=True)
class Drawn:
    """A measure's `value`, its value in every draw, and with every group of subjects left out."""

    value: float
    draw_D: np.ndarray
    left_out_G: np.ndarray

    def minus(self, other: "Drawn") -> "Drawn":
        """Return the difference on the same draws: what is hard for both does not widen its interval."""
        return Drawn(self.value - other.value, self.draw_D - other.draw_D, self.left_out_G - other.left_out_G)

    def interval(self, level: float = LEVEL) -> Interval:
        """Return value and BCa interval (Efron, J Am Stat Assoc 82:171, 1987); NaN where too few draws define it."""
        defined_D = self.draw_D[np.isfinite(self.draw_D)]
        if len(defined_D) < max(_LEAST_DEFINED * len(self.draw_D), 2) or not np.isfinite(self.value):
            return Interval(self.value, float("nan"), float("nan"))
        if np.ptp(defined_D) <= 1e-12 * max(1.0, abs(self.value)):
            return Interval(self.value, float(defined_D.min()), float(defined_D.max()))
        ends = np.quantile(defined_D, self._places(defined_D, level))
        return Interval(self.value, float(ends[0]), float(ends[1]))

    def _places(self, defined_D: np.ndarray, level: float) -> np.ndarray:
        """Return which quantiles of the draws the interval's ends are."""
        below = np.mean(defined_D < self.value) + 0.5 * np.mean(defined_D == self.value)
        least = 0.5 / len(defined_D)
        bias = ndtri(np.clip(below, least, 1 - least))
        off_G = np.nanmean(self.left_out_G) - self.left_out_G[np.isfinite(self.left_out_G)]
        size = (off_G**2).sum() ** 1.5
        skew = (off_G**3).sum() / (6 * size) if size > 0 else 0.0
        reach = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
        return ndtr(bias + reach / (1 - skew * reach))


def draw(compute: Compute, truth: Truth, answers: Sequence[Answer], draws: Draws) -> Drawn:
    """Return a measure of answers; of several, such as those of other seeds, the mean of their values."""

    def mean(weights: Iterator[np.ndarray]) -> np.ndarray:
        parts = [np.mean([compute(truth, answer, w_DN) for answer in answers], axis=0) for w_DN in weights]
        return np.concatenate(parts)

    with np.errstate(invalid="ignore"):
        value = float(np.mean(single_values(compute, truth, answers)))
        return Drawn(value, mean(draws.bootstrap()), mean(draws.left_out()))


def single_values(compute: Compute, truth: Truth, answers: Sequence[Answer]) -> list[float]:
    """Return a measure of each answer on all segments: seeds lie apart, which no interval over subjects holds."""
    ones = np.ones((1, len(truth.label_N)))
    return [float(compute(truth, answer, ones)[0]) for answer in answers]
