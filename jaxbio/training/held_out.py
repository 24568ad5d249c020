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
    """The pairs that every evaluation reads: `batches` whole batches, spread evenly over the `pairs` of the split.

    A function of these numbers alone: no seed and no step changes it.
    """

    pairs: int
    batch: int
    batches: int

    def draw(self, step: int) -> np.ndarray:
        """Return the pair numbers (batch,) uint32 of batch `step`."""
        place_B = np.arange(self.batch, dtype=np.uint64) + np.uint64(step * self.batch)
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
        """The compiled `make_eval_step` of that objective."""


def evaluate(program: Evaluating, state: State, batches: Iterable[Mapping[str, jax.Array]]) -> dict[str, float]:
    """Return means over `batches` of the loss and its terms, spread and effective rank of each encoder's features, and
    what the objective measures of all rows together.

    Waits for the device.
    """
    metrics: list[dict[str, np.ndarray]] = []
    features: list[dict[str, np.ndarray]] = []
    outputs: list[dict[str, np.ndarray]] = []
    for batch in batches:
        found, pooled, by_row = jax.device_get(program.eval_step(state, dict(batch)))
        metrics.append(found)
        features.append(pooled)
        outputs.append(by_row)
    values = {
        f"eval/{name}": float(np.mean([found[name] for found in metrics], dtype=np.float64)) for name in metrics[0]
    }
    for term, (constant, floor) in program.objective.judged.items():
        value, constant_value, floor_value = (values[f"eval/{name}"] for name in (term, constant, floor))
        values[f"eval/{term}_explainable"] = constant_value - floor_value
        values[f"eval/{term}_explained"] = explained(value, constant_value, floor_value)
    for name in features[0]:
        feature_BD = np.concatenate([pooled[name] for pooled in features])
        values |= {f"eval/{name}_{key}": value for key, value in collapse_monitors(feature_BD).items()}
    if program.objective.measure is not None:
        gathered = {name: np.concatenate([by_row[name] for by_row in outputs]) for name in outputs[0]}
        values |= {f"eval/{name}": float(value) for name, value in program.objective.measure(gathered).items()}
    return values
