"""Evaluation inside a run: the loss on held-out pairs, always the same ones, and the collapse monitors.

values = evaluate(program, state, data.held_out(mesh))       # {"eval/loss": ..., "eval/teacher_batch_spread": ...}
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxbio.config.faults import Fault, UserError
from jaxbio.objectives import Objective
from jaxbio.training.collapse import collapse_monitors, explained
from jaxbio.training.state import State


@dataclass(frozen=True)
class HeldOutOrder:
    """The pairs that every evaluation reads: `batches` whole batches, each spread evenly over the `pairs` of the split.

    Pairs lie in the order of recordings: neighbours would make a batch of few patients, and what a loss asks of a
    segment beside the others of its batch would be asked of these alone. A function of these numbers alone: no
    seed and no step changes it.
    """

    pairs: int
    batch: int
    batches: int

    def draw(self, step: int) -> np.ndarray:
        """Return the pair numbers (batch,) uint32 of batch `step`."""
        place_B = np.arange(self.batch, dtype=np.uint64) * np.uint64(self.batches) + np.uint64(step)
        return (place_B * np.uint64(self.pairs) // np.uint64(self.batches * self.batch)).astype(np.uint32)


def make_held_out_order(pairs: int, batch: int, batches: int, *, whole: bool = False) -> HeldOutOrder:
    """Return the order over a validation split of `pairs` pairs; at most `batches` batches, whole ones only.

    The last pairs that fill no batch are passed over; where the `whole` split is wanted, a few come twice instead.

    Raises UserError for an empty split and for one smaller than a batch.
    """
    if pairs == 0:
        remedy = "the validation split has no pairs: prepare with a larger second share, or add subjects"
        raise UserError(Fault("prepare.split", "validation: 0 pairs", remedy))
    if whole:
        return HeldOutOrder(pairs, batch, min(batches, -(-pairs // batch)))
    if pairs < batch:
        remedy = (
            f"the validation split has {pairs} pairs, fewer than a batch: at most {pairs}, or a larger split; "
            "where nearly all segments are of one class, pairs.class_edges_as=quantiles makes more pairs"
        )
        raise UserError(Fault("train.batch", batch, remedy))
    return HeldOutOrder(pairs, batch, min(batches, pairs // batch))


class Evaluating(Protocol):
    """What evaluates: a run's program, or another that has as much of one."""

    @property
    def objective(self) -> Objective:
        """Whose loss it is."""

    @property
    def eval_step(self) -> Any:
        """The compiled `make_eval_step` of that objective, `seeded`."""


def evaluate(program: Evaluating, state: State, batches: Iterable[Mapping[str, jax.Array]]) -> dict[str, float]:
    """Return means over `batches` of the loss and its terms, spread and effective rank of each encoder's features, what
    the objective concludes of means and measures of all rows together, and how much of each judged term is explained.

    Waits for the device.
    """
    objective = program.objective
    metrics: list[dict[str, np.ndarray]] = []
    features: list[dict[str, np.ndarray]] = []
    outputs: list[dict[str, np.ndarray]] = []
    for batch in batches:
        found, pooled, by_row = jax.device_get(program.eval_step(state, dict(batch)))
        metrics.append(found)
        features.append(pooled)
        outputs.append(by_row)
    means = {name: np.stack([found[name] for found in metrics]).mean(axis=0, dtype=np.float64) for name in metrics[0]}
    values = {name: float(mean) for name, mean in means.items() if mean.ndim == 0}
    if objective.conclude is not None:
        values |= objective.conclude({name: mean for name, mean in means.items() if mean.ndim})
    for name in features[0]:
        feature_BD = np.concatenate([pooled[name] for pooled in features])
        values |= {f"{name}_{key}": value for key, value in collapse_monitors(feature_BD).items()}
    if objective.measure is not None:
        gathered = {name: np.concatenate([by_row[name] for by_row in outputs]) for name in outputs[0]}
        values |= objective.measure(gathered)
    for term, (constant, floor) in objective.judged.items():
        if not objective.targets_given:
            values[f"{term}_explainable"] = values[constant] - values[floor]
        values[f"{term}_explained"] = explained(values[term], values[constant], values[floor])
    return {f"eval/{name}": float(value) for name, value in values.items()}
