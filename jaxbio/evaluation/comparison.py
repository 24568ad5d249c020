"""A pretrained encoder beside itself at random initialisation and beside no encoder at all, on one task.

compared = compare(task, {"pretrained": first_BD, "random": second_BD}, label_B, subject_B, splits)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxbio.evaluation import probes
from jaxbio.evaluation.metrics import Interval, bootstrap
from jaxbio.evaluation.probes import Split
from jaxbio.evaluation.tasks import Task
from jaxbio.export import folder as folders
from jaxbio.export.pretrained import Pretrained

PRETRAINED, RANDOM, CONSTANT = "pretrained", "random_initialisation", "constant"
_SEGMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class Comparison:
    """Predictions (N,) by name for the tested rows `row_N`, the intervals of each metric by name, and the intervals of
    the paired differences, the pretrained encoder's metric minus the other's.
    """

    row_N: np.ndarray
    predictions: dict[str, np.ndarray]
    intervals: dict[str, dict[str, Interval]]
    gains: dict[str, dict[str, Interval]]

    def summary(self) -> dict[str, dict]:
        """Return everything but the predictions as plain JSON; a number that is not defined is None."""

        def plain(by_metric: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict]:
            return {
                metric: {name: [_plain(number) for number in interval] for name, interval in found.items()}
                for metric, found in by_metric.items()
            }

        return {"metrics": plain(self.intervals), "pretrained_minus": plain(self.gains)}


def compare(
    task: Task, features: Mapping[str, np.ndarray], label_B: np.ndarray, subject_B: np.ndarray, splits: Sequence[Split]
) -> Comparison:
    """Return what linear probes on each of `features` (B, D) predict, beside the constant of the training part.

    The first of `features` is the one whose gains over the others are given.
    """
    row_N = probes.tested_rows(splits)
    predictions = {
        name: probes.predict_held_out(feature_BD, label_B, subject_B, splits, task.probe)
        for name, feature_BD in features.items()
    }
    predictions[CONSTANT] = probes.predict_constant(label_B, subject_B, splits, task.probe)
    first = next(iter(features))
    true_N, whose_N = label_B[row_N], subject_B[row_N]
    intervals, gains = {}, {}
    for name, metric in task.metrics.items():
        intervals[name] = bootstrap(metric, true_N, predictions, whose_N, classes=bool(task.classes))
        others = bootstrap(metric, true_N, predictions, whose_N, reference=first, classes=bool(task.classes))
        # bootstrap gives other - first
        gains[name] = {other: Interval(-gain.value, -gain.high, -gain.low) for other, gain in others.items()}
    return Comparison(row_N, predictions, intervals, gains)


def initialise_again(model: Pretrained, seed: int) -> Pretrained:
    """Return the same network with weights as they are before any training."""
    module = folders.make_encoder(model.card)
    x_BCT = jnp.zeros((1, *model.card.inputs.shape), jnp.float32)
    return Pretrained(model.card, module, jax.jit(module.init)(jax.random.key(seed), x_BCT))


def embed_segments(model: Pretrained, x_BCT: np.ndarray) -> np.ndarray:
    """Return one vector a segment, float32 (B, width), of segments in physical units at the model's rate, of any
    length that the model takes.
    """
    roles, rate_hz = model.card.channels, model.card.rate_hz
    window_s = x_BCT.shape[-1] / rate_hz
    parts = []
    for first in range(0, len(x_BCT), _SEGMENTS_AT_ONCE):
        part_BCT = x_BCT[first : first + _SEGMENTS_AT_ONCE]
        signals = {role: part_BCT[:, place] for place, role in enumerate(roles)}
        parts.append(model.embed(rate_hz=rate_hz, window_s=window_s, **signals))
    return np.concatenate(parts)


def _plain(number: float) -> float | None:
    return round(number, 4) if math.isfinite(number) else None
