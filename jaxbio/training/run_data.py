"""The data of a run: store, indexes and orders, found to fit before a device is touched; then streams of batches.

data = open_run_data(config, Path("store"))
for batch in data.batches(mesh, start_step): ...
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.batch import arrays_by_row
from jaxbio.data.labels import Label, open_labels
from jaxbio.data.loader import Draws, Loader, make_loader
from jaxbio.data.order import Order, make_order
from jaxbio.data.pairs import Index, open_index
from jaxbio.data.store import Store, open_store
from jaxbio.training import feed
from jaxbio.training.held_out import HeldOutOrder, make_held_out_order
from jaxbio.training.sharding import batch_sharding

_DESCRIBED = ("source", "subject", "recording", "start_s")


@dataclass(frozen=True)
class RunData:
    """What a run reads: the store, the pairs of two splits, their orders, and the arrays that batches take by row.

    `label_hashes` say by name which labels are among them. See `loop.Data` for its methods.
    """

    config: ConfigDict
    store: Store
    train: Index
    validation: Index
    order: Order
    held_out_order: HeldOutOrder
    by_row: Mapping[str, np.ndarray]
    label_hashes: Mapping[str, str]

    @property
    def store_hash(self) -> str:
        """Hash of everything in the store, wherever it lies."""
        return self.store.hash

    @property
    def index_hash(self) -> str:
        """Hash of the rule that made the pairs."""
        return self.train.hash

    def summary(self) -> str:
        """Return what a run is trained on, for its start print."""
        pairs, held_out = len(self.train.rows_NM), self.held_out_order
        labels = f"; labels {', '.join(self.label_hashes)}" if self.label_hashes else ""
        return (
            f"store {self.store.path} ({self.store.hash[:12]}): {self.store.rows:,} segments of "
            f"{self.store.segment_s:g} s, {', '.join(self.store.channels)} at {self.store.rate_hz:g} Hz; "
            f"{pairs:,} pairs to train on in {self.order.streams} streams ({pairs / self.order.batch:.1f} steps an "
            f"epoch), {held_out.pairs:,} held out, of which {held_out.batches * held_out.batch:,} are evaluated{labels}"
        )

    def batches(self, mesh: Mesh, start_step: int) -> feed.Feed:
        """Return the batches of the dispatches from `start_step`, placed on `mesh`, read ahead."""
        loader = self._loader(mesh, self.train, self.order, start_step, self.config.train.steps)
        return feed.make_feed(loader, mesh, self.config.train.steps_per_dispatch)

    def held_out(self, mesh: Mesh) -> Iterator[Mapping[str, jax.Array]]:
        """Return the batches of an evaluation, placed on `mesh`: each time the same."""
        loader = self._loader(mesh, self.validation, self.held_out_order, 0, self.held_out_order.batches)
        only_step = jax.jit(_only_step, out_shardings=batch_sharding(mesh))
        with feed.make_feed(loader, mesh, 1) as batches:
            for batch in batches:
                yield only_step(dict(batch.arrays))

    def rows(self, step: int) -> np.ndarray:
        """Return the global row_BM uint32 of `step`, counted from 0."""
        return np.asarray(self.train.rows_NM[self.order.draw(step)])

    def describe(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return where the rows come from: source, subject, recording and start of each."""
        columns = {name: self.store.column(name) for name in _DESCRIBED}
        return [
            {"row": int(row)} | {name: _plain(column[row]) for name, column in columns.items()} for row in rows.ravel()
        ]

    def _loader(self, mesh: Mesh, index: Index, order: Draws, start_step: int, stop_step: int) -> Loader:
        data = self.config.data
        return make_loader(
            self.store,
            index,
            order,
            by_row=self.by_row,
            positions=feed.local_positions(mesh, self.config.train.batch),
            cache=data.cache,
            read_threads=data.read_threads,
            prefetch=data.prefetch,
            start_step=start_step,
            stop_step=stop_step,
        )


def open_run_data(config: ConfigDict, path: Path) -> RunData:
    """Open the store in `path`, its indexes and their orders.

    Raises UserError with every fault: not a store, another rate, length or channels than the recipe's, no such index,
    fewer pairs than a batch, a batch that does not fit the streams, an empty validation split, no such label.
    """
    store = open_store(path)
    store.check(config)
    train, validation = open_index(store, config, "train"), open_index(store, config, "validation")
    pairs, batch = len(train.rows_NM), config.train.batch
    faults: list[Fault] = []
    order = held_out_order = None
    labels: list[Label] = []
    try:
        if pairs < batch:
            remedy = (
                f"the train split has {pairs} pairs, fewer than a batch: at most {pairs}, or prepare more recordings; "
                "where nearly all segments are of one class, pairs.class_edges_as=quantiles makes more pairs"
            )
            raise UserError(Fault("train.batch", batch, remedy))
        stages = tuple((round(share * config.train.steps), level) for share, level in config.data.curriculum)
        order = make_order(
            pairs,
            batch,
            streams=config.data.streams,
            seed=config.train.seed,
            difficulty=train.difficulty_N if stages else None,
            stages=stages,
        )
    except UserError as error:
        faults += error.faults
    try:
        held_out_order = make_held_out_order(len(validation.rows_NM), batch, config.eval.batches)
    except UserError as error:
        faults += error.faults
    try:
        labels = open_labels(store, config.data.labels)
    except UserError as error:
        faults += error.faults
    if faults:
        raise UserError(*faults)
    assert order is not None
    assert held_out_order is not None
    by_row, hashes = arrays_by_row(store, config, labels), {label.name: label.hash for label in labels}
    return RunData(config, store, train, validation, order, held_out_order, by_row, hashes)


def _only_step(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: array[0] for name, array in arrays.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
