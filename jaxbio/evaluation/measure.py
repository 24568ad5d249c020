"""What a measure is: a number that says how good answers are, of all draws of subjects at once.

A draw is a weight for every tested segment: ones give the value itself, counts of a bootstrap its draws, ones with
zeros a jackknife. So value, interval and acceleration come from one function. NumPy only.

    mae = Measure("mae", absolute_error, better=-1, in_unit=True)
    value_D = mae.compute(truth, answer, weight_DN)
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """What is true of N tested segments, and whose they are.

    `label_N`: class codes, or numbers in the task's unit. `subject_N`: codes. `scale_N`: the mean absolute distance of
    the labels that each was fitted on from their mean, by which a MASE is scaled; NaN for classes.
    """

    label_N: np.ndarray
    subject_N: np.ndarray
    scale_N: np.ndarray

    @property
    def subjects(self) -> int:
        """How many subjects were tested."""
        return len(np.unique(self.subject_N))


@dataclass(frozen=True)
class Answer:
    """What a model says of N segments: of numbers `score_NK` is (N, 1), of classes the probability of each.

    `decision_N` is the class that it decides for, or the number. Decisions weigh the classes alike, whatever their
    shares, but for a detector's, which has its threshold; probabilities are those at the shares of the training part.
    """

    score_NK: np.ndarray
    decision_N: np.ndarray


Compute = Callable[[Truth, Answer, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measure:
    """A measure of answers: `compute(truth, answer, weight_DN)` gives (D,), NaN where a draw does not define it.

    `better` is 1 where more is better, -1 where less is, 0 where neither (a bias, a spread); `in_unit` says whether it
    is in the unit of the labels.
    """

    name: str
    compute: Compute
    better: int = 1
    in_unit: bool = False
