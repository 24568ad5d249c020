"""A finished run's held-out terms on another store: the same loss under the same fixed keys, on other recordings.

terms = evaluate_on(config, objective, params, objective_state, open_stores("runs/ring_store"), seen)

Of an objective that learns from a label only segments that have it are asked, as in a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxbio.config import families
from jaxbio.config.faults import Fault, UserError
from jaxbio.data import pairs
from jaxbio.data.batch import arrays_by_row
from jaxbio.data.labels import Label
from jaxbio.data.seen import Seen
from jaxbio.data.several import Stores, open_joined_labels
from jaxbio.objectives import Objective
from jaxbio.training.held_out import evaluate, make_held_out_order
from jaxbio.training.program import lay_out, lower_eval_step
from jaxbio.training.run_data import held_out_batches, without_answer
from jaxbio.training.state import State
from jaxbio.training.step import seeded


@dataclass(frozen=True)
class _Evaluation:
    """What of a run's program an evaluation needs."""

    objective: Objective
    eval_step: Any


def evaluate_on(
    config: ConfigDict, objective: Objective, params: Any, objective_state: Any, stores: Stores, seen: Seen
) -> dict[str, float]:
    """Return the terms of `held_out.evaluate` over every pair of one store, of whatever split, whose segments the run
    has not learnt from.

    `config` is the run's, with the store's segment length and the wanted batch; the last pairs that fill no batch come
    with some of the others once more. Raises UserError for a store of another rate or other channels, and for one
    without a pair that the run has not seen, or without a label that the run learns.
    """
    stores.check(config)
    labels = open_joined_labels(stores, config.data.labels)
    index = _unseen_pairs(config, stores, seen, labels)
    layout = lay_out(config, objective)
    order = make_held_out_order(len(index.rows_NM), config.train.batch, len(index.rows_NM), whole=True)
    eval_step = seeded(lower_eval_step(config, objective, layout).compile(), config, layout.mesh)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), layout.abstract.opt_state)  # is not read
    state = State(jnp.asarray(config.train.steps, jnp.int32), params, empty, objective_state)
    state = jax.device_put(state, layout.placement.shardings)
    batches = held_out_batches(config, stores, index, order, arrays_by_row(stores, config, labels), layout.mesh)
    return {"pairs": float(len(index.rows_NM)), **evaluate(_Evaluation(objective, eval_step), state, batches)}


def _unseen_pairs(config: ConfigDict, stores: Stores, seen: Seen, labels: Sequence[Label]) -> pairs.Index:
    store = stores.stores[0]  # a weighted mixture is a thing of training
    whose_R = np.char.add(np.char.add(store.column("source").astype(str), "/"), store.column("subject").astype(str))
    left_out_R = seen.find(whose_R, store.column("fingerprint")) | (pairs.split_codes(store) < 0)
    if families.OBJECTIVES[config.objective.name].labelled:
        lacking_R = without_answer(config, stores, labels, left_out_R)
        assert lacking_R is not None, "those that are left out are among them"
        left_out_R = lacking_R
    row_R = np.flatnonzero(~left_out_R)
    quality_R = store.column(f"quality_{config.quality.variant}")
    rows = pairs.read_rows(store, row_R, quality_R, pairs.class_edges(quality_R, config))
    rows_NM, difficulty_N = pairs.select(rows, config, store.segment_s)
    if not rows_NM.size:
        remedy = f"of {store.rows} segments none that the run has not learnt from is in a pair: name another store"
        raise UserError(Fault("--store", str(store.path), remedy))
    return pairs.Index(rows_NM, difficulty_N, "unseen")
