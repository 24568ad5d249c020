"""What held-out answers are worth: metrics of all rows of an evaluation together, in NumPy and SciPy.

An evaluation reads whole batches, so a row may come twice; it counts once.

    auroc(is_true_N, probability_N)
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

from jaxbio.report.ranking import area_under_roc

ALL = "all"  # the channels that an answer was given from, where it is all of them


def auroc(positive_N: np.ndarray, score_N: np.ndarray) -> float:
    """Return the probability that a positive has a higher score than a negative, ties counting half (Mann and Whitney);
    NaN where there is only one kind.
    """
    return float(area_under_roc(np.asarray(positive_N, bool), np.asarray(score_N), np.ones((1, len(score_N))))[0])


def macro_auroc(class_N: np.ndarray, probability_NK: np.ndarray) -> float:
    """Return the AUROC of the second of two classes, or the mean over classes, each against all others."""
    count = probability_NK.shape[1]
    if count == 2:
        return auroc(class_N == 1, probability_NK[:, 1])
    return float(
        np.nanmean([auroc(class_N == code, probability_NK[:, code]) for code in np.unique(class_N).astype(int)])
    )


def measure_classes(label_N: np.ndarray, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return AUROC of probabilities (N, K), by the channels they are from, and of all channels balanced accuracy."""
    values = {_name("auroc", channels): macro_auroc(label_N, answer_NK) for channels, answer_NK in answers.items()}
    said_N = answers[ALL].argmax(axis=1)
    recalls = [np.mean(said_N[label_N == code] == code) for code in np.unique(label_N)]
    return {**values, "balanced_accuracy": float(np.mean(recalls))}


def measure_numbers(label_N: np.ndarray, answers: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean absolute error of answers (N, 1), in the unit of the label, by the channels they are from; and
    that of the labels' own median, which sees no segment.
    """
    errors = {name: float(np.mean(np.abs(answer_N1[:, 0] - label_N))) for name, answer_N1 in answers.items()}
    constant = float(np.mean(np.abs(np.median(label_N) - label_N)))
    return {_name("mae", name): error for name, error in errors.items()} | {"mae_constant": constant}


def measure_waveforms(errors: Mapping[str, np.ndarray], flat_N: np.ndarray) -> dict[str, float]:
    """Return the means of rows' mean absolute errors (N,), by the channels that were seen, and that of a flat line at
    each segment's own median, in the unit of the signal.
    """
    return {_name("mae", name): float(np.mean(error_N)) for name, error_N in errors.items()} | {
        "mae_flat": float(np.mean(flat_N))
    }


def find_least(value_and_gradient: Callable[[np.ndarray], tuple[Any, Any]], start_K: np.ndarray) -> float:
    """Return the least value of a function that has one valley, found by BFGS from `start_K`."""

    def in_float64(point_K: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient_K = value_and_gradient(point_K.astype(np.float32))
        return float(value), np.asarray(gradient_K, np.float64)

    return float(minimize(in_float64, start_K, jac=True, method="BFGS").fun)


def mean_probability(logit_NLK: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probabilities (N, K) of logits of L crops: the mean over crops of the softmax over `temperature`."""
    return softmax(logit_NLK / temperature, axis=-1).mean(axis=1)


def first_of_each(row_N: np.ndarray) -> np.ndarray:
    """Return the places of the first of each row's repeats."""
    return np.unique(row_N, return_index=True)[1]


def _name(metric: str, channels: str) -> str:
    return metric if channels == ALL else f"{metric}_{channels}_only"
