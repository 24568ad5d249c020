"""The data of a run: stores, indexes and orders, found to fit before a device is touched; then streams of batches.

data = open_run_data(config, "store")
for batch in data.batches(mesh, start_step): ...
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxbio.config import families, fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.batch import PAIRS_PER_WORSE, arrays_by_row, elements, per_element
from jaxbio.data.exclusion import Exclusion, find_left_out, read_exclusion
from jaxbio.data.few_labels import choose_few
from jaxbio.data.labels import Label
from jaxbio.data.loader import Elements, HostBatch, Loader, checksum, make_loader, rows_of
from jaxbio.data.neighbourhoods import Neighbourhoods, make_neighbourhoods
from jaxbio.data.order import Order, make_order
from jaxbio.data.pairs import Index
from jaxbio.data.seen import Seen, seen_of
from jaxbio.data.several import Stores, open_indexes, open_joined_labels, open_stores
from jaxbio.training import feed
from jaxbio.training.held_out import HeldOutOrder, make_held_out_order
from jaxbio.training.resident import Resident, plan_resident
from jaxbio.training.sharding import batch_sharding

log = logging.getLogger(__name__)
_DESCRIBED = ("source", "subject", "recording", "start_s")


@dataclass(frozen=True)
class RunData:
    """What a run reads: the stores, the pairs of two splits, their orders, and the arrays that batches take by row.

    `drawn` is what the order draws: the pairs of `train`, or their neighbourhoods. `label_hashes` say by name which
    labels are among them; `train_of` says how many pairs to train on are each store's; `left_out_R` marks rows that are
    in no pair (None: none), of excluded subjects, of held-out ones from whom another store trains, without the label
    that is learnt, or beyond the share of labels. See `loop.Data` for its methods.
    """

    config: ConfigDict
    store: Stores
    train: Index
    drawn: Elements
    validation: Index
    train_of: tuple[int, ...]
    order: Order
    held_out_order: HeldOutOrder
    by_row: Mapping[str, np.ndarray]
    label_hashes: Mapping[str, str]
    exclusion: Exclusion | None = None
    left_out_R: np.ndarray | None = None

    @property
    def store_hash(self) -> str:
        """Hash of everything in the stores and of their weights, wherever they lie."""
        return self.store.hash

    @property
    def index_hash(self) -> str:
        """Hash of the rule that made the pairs; behind a hyphen that of the excluded subjects, where there are any."""
        return self.train.hash if self.exclusion is None else f"{self.train.hash}-{self.exclusion.hash}"

    @property
    def pairs_per_step(self) -> float:
        """How many pairs a step holds, of neighbourhoods in the mean."""
        if isinstance(self.drawn, Neighbourhoods):
            return self.drawn.pairs_per_step
        return float(self.config.train.batch)

    def seen(self) -> Seen:
        """Return whom and what an encoder of this run learns from."""
        return seen_of(self.store, self.train.rows_NM)

    def check_unseen(self, before: Seen, *, resumed: bool = False) -> None:
        """Warn where validation segments are of subjects that what the run starts from has seen: on these, `eval/` and
        `checkpoint.best_metric` tell of memory.

        Raises UserError where all of them are and the run learns from labels, unless it is `resumed`.
        """
        row_N = np.unique(self.validation.rows_NM)
        seen = int(before.find_rows(self.store, row_N).sum())
        if not seen:
            return
        what = f"{seen:,} of {len(row_N):,} validation segments are of subjects that the start has seen"
        remedy = (
            "evaluations, and the best checkpoint by them, would tell of memory: prepare this store with the source's "
            "name and the prepare.split of the pretraining's, which keeps subjects in their split, or with other "
            "shares, leave these subjects out (data.exclude_subjects), or start from an export that has not seen them"
        )
        if seen == len(row_N) and not resumed and families.OBJECTIVES[self.config.objective.name].labelled:
            raise UserError(Fault("train.init_from", what, remedy))
        log.warning("%s; %s", what, remedy)

    def summary(self) -> str:
        """Return what a run is trained on, for its start print."""
        store, order, held_out = self.store, self.order, self.held_out_order
        parts = []
        for part, streams, pairs in zip(store.stores, order.streams_of, self.train_of, strict=True):
            share = streams / order.streams
            steps = pairs / (self.pairs_per_step * share)
            parts.append(
                f"store {part.path} ({part.hash[:12]}): {part.rows:,} segments, {pairs:,} pairs to train on in "
                f"{streams} streams, {100 * share:.4g} % of what is drawn ({steps:.1f} steps an epoch)"
            )
        parts.append(f"segments of {store.segment_s:g} s, {', '.join(store.channels)} at {store.rate_hz:g} Hz")
        evaluated = held_out.batches * held_out.batch
        parts.append(f"{held_out.pairs:,} pairs held out, of which {evaluated:,} are evaluated")
        if isinstance(self.drawn, Neighbourhoods):
            parts.append(
                f"{len(self.drawn.pairs_N):,} neighbourhoods, {self.pairs_per_step:.1f} pairs a step of {order.batch}"
            )
        if self.label_hashes:
            parts.append(f"labels {', '.join(self.label_hashes)}")
        return "; ".join(parts)

    def resident(self, mesh: Mesh) -> Resident | None:
        """Return how the devices of `mesh` hold what is trained on; None unless data.cache is device."""
        if self.config.data.cache != "device":
            return None
        return plan_resident(self.store, self.drawn, self.order, self.by_row, mesh)

    def batches(self, mesh: Mesh, start_step: int) -> feed.Feed:
        """Return the batches of the dispatches from `start_step`, placed on `mesh`, read ahead; or, where the devices
        hold the data, what they draw them from.
        """
        steps, width = self.config.train.steps, self.config.train.steps_per_dispatch
        resident = self.resident(mesh)
        if resident is not None:
            return feed.make_resident_feed(self._checksums(start_step), resident.load(self.store), width)
        loader = _make_loader(
            self.config,
            self.store,
            self.drawn,
            self.order,
            self.by_row,
            mesh,
            start_step=start_step,
            stop_step=steps,
            cache=self.config.data.cache,
        )
        return feed.make_feed(loader, mesh, width)

    def held_out(self, mesh: Mesh) -> Iterator[Mapping[str, jax.Array]]:
        """Return the batches of an evaluation, placed on `mesh`: each time the same."""
        return held_out_batches(self.config, self.store, self.validation, self.held_out_order, self.by_row, mesh)

    def rows(self, step: int) -> np.ndarray:
        """Return the global row_BM uint32 of `step`, counted from 0."""
        return rows_of(self.drawn, self.order.draw(step))

    def describe(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return where the rows come from: store, source, subject, recording and start of each."""
        columns = {name: self.store.column(name) for name in _DESCRIBED}
        paths = [str(store.path) for store in self.store.stores]
        return [
            {"row": row, "store": paths[number]} | {name: _plain(column[row]) for name, column in columns.items()}
            for row, number in zip(rows.ravel().tolist(), self.store.store_of(rows.ravel()).tolist(), strict=True)
        ]

    def _checksums(self, start_step: int) -> Iterator[HostBatch]:
        for step in range(start_step, self.config.train.steps):
            yield HostBatch(step, checksum(self.store, self.rows(step)), {})


def held_out_batches(
    config: ConfigDict, store: Stores, index: Index, order: HeldOutOrder, by_row: Mapping[str, np.ndarray], mesh: Mesh
) -> Iterator[Mapping[str, jax.Array]]:
    """Return the batches that `order` draws from `index`, placed on `mesh`, once."""
    cache = "none" if config.data.cache == "device" else config.data.cache
    loader = _make_loader(config, store, index, order, by_row, mesh, start_step=0, stop_step=order.batches, cache=cache)
    only_step = jax.jit(_only_step, out_shardings=batch_sharding(mesh))
    with feed.make_feed(loader, mesh, 1) as batches:
        for batch in batches:
            yield only_step(dict(batch.arrays))


def _make_loader(
    config: ConfigDict,
    store: Stores,
    index: Elements,
    order: Order | HeldOutOrder,
    by_row: Mapping[str, np.ndarray],
    mesh: Mesh,
    **how: Any,
) -> Loader:
    return make_loader(
        store,
        index,
        order,
        by_row=by_row,
        positions=feed.local_positions(mesh, order.batch),
        read_threads=config.data.read_threads,
        prefetch=config.data.prefetch,
        **how,
    )


def open_run_data(config: ConfigDict, named: str | Path | Sequence[tuple[str, float]]) -> RunData:
    """Open the stores that `named` (the value of data.store) names, their indexes and their orders.

    Raises UserError with every fault: not a store, another rate, length or channels than the recipe's, no such index,
    an excluded subject that is in none, fewer pairs than a batch, a batch that does not fit the streams, an empty
    validation split, no such label, one that the objective cannot learn. Of an objective that learns from labels, or
    from a channel, only segments that have them are drawn.
    """
    stores = open_stores(named)
    stores.check(config)
    exclusion = read_exclusion(config.data.exclude_subjects) if config.data.exclude_subjects is not None else None
    training = families.OBJECTIVES[config.objective.name]
    faults: list[Fault] = []
    order = held_out_order = None
    labels: list[Label] = []
    try:
        labels = open_joined_labels(stores, config.data.labels)
    except UserError as error:
        faults += error.faults
    left_out_R = find_left_out(stores, exclusion)
    if training.labelled:
        left_out_R = without_answer(config, stores, labels, left_out_R)
    train, train_of = open_indexes(stores, config, "train", left_out_R)
    if training.labelled and not faults and len(train.rows_NM):
        left_out_R = beyond_share(config, stores, labels, train, left_out_R)
        train, train_of = open_indexes(stores, config, "train", left_out_R)
    validation, _ = open_indexes(stores, config, "validation", left_out_R)
    known = [_known_label(label, train, validation) for label in labels]
    if found := list(training.label_faults(fields.flatten(config), known)):
        raise UserError(*faults, *found)  # what follows from labels that are not there would only hide it
    drawn: Elements = train
    try:
        drawn, order = _make_train_order(config, stores, train, train_of)
    except UserError as error:
        faults += error.faults
    try:
        held_out_order = make_held_out_order(
            len(validation.rows_NM), config.train.batch, config.eval.batches, whole=training.labelled
        )
    except UserError as error:
        faults += error.faults
    if faults:
        raise UserError(*faults)
    assert order is not None
    assert held_out_order is not None
    by_row, hashes = arrays_by_row(stores, config, labels), {label.name: label.hash for label in labels}
    return RunData(
        config, stores, train, drawn, validation, train_of, order, held_out_order, by_row, hashes, exclusion, left_out_R
    )


def without_answer(
    config: ConfigDict, stores: Stores, labels: Sequence[Label], left_out_R: np.ndarray | None
) -> np.ndarray | None:
    """Return which rows are in no pair, bool (rows,): those that are left out, and those that lack a label or the
    channel that is learnt; None where that is nobody.
    """
    lacking = [np.isnan(label.value_R) for label in labels]
    if config.data.target is not None:
        lacking.append(~stores.present_NC[:, config.data.channels.index(config.data.target)])
    if left_out_R is not None:
        lacking.append(left_out_R)
    return np.any(lacking, axis=0) if lacking else None


def beyond_share(
    config: ConfigDict, stores: Stores, labels: Sequence[Label], train: Index, left_out_R: np.ndarray | None
) -> np.ndarray | None:
    """Return which rows are in no pair, bool (rows,): those that are left out, and those of `train` whose labels are
    beyond `data.label_share`; None where that is nobody.
    """
    row_N = np.unique(train.rows_NM)
    few_N = choose_few(stores, labels, row_N, share=config.data.label_share, seed=config.train.seed)
    if len(few_N) == len(row_N):
        return left_out_R
    beyond_R = np.zeros(stores.rows, bool) if left_out_R is None else left_out_R.copy()
    beyond_R[np.setdiff1d(row_N, few_N)] = True
    return beyond_R


def _known_label(label: Label, train: Index, validation: Index) -> families.KnownLabel:
    """Return a label by its values in the pairs of two splits."""
    values = [label.value_R[index.rows_NM.ravel()] for index in (train, validation)]
    train_N, validation_N = (value_N[np.isfinite(value_N)] for value_N in values)
    return families.KnownLabel(label.name, label.classes, train_N, validation_N)


def _make_train_order(
    config: ConfigDict, stores: Stores, train: Index, train_of: tuple[int, ...]
) -> tuple[Elements, Order]:
    """Return what is drawn of the pairs to train on, and its order. Raises UserError, also where a store has too few
    pairs.
    """
    pairs, batch = len(train.rows_NM), config.train.batch
    if pairs < batch:
        remedy = (
            f"the train split has {pairs} pairs, fewer than a batch: at most {pairs}, or prepare more recordings; "
            "where nearly all segments are of one class, pairs.class_edges_as=quantiles makes more pairs"
        )
        if config.data.label_share < 1:
            remedy = f"{pairs} pairs are of data.label_share = {config.data.label_share:g} of the subjects to train "
            remedy += f"on, fewer than a batch: at most {pairs}, or a larger share"
        raise UserError(Fault("train.batch", batch, remedy))
    faults = []
    for store, weight, count in zip(stores.stores, stores.weights, train_of, strict=True):
        share = max(math.floor(weight * batch + 1e-6), 1)
        if count < share:
            remedy = f"has {count} pairs to train on, fewer than its {share} of a batch of {batch}: a smaller weight "
            faults.append(Fault("data.store", str(store.path), remedy + "or train.batch, or more recordings"))
    if faults:
        raise UserError(*faults)
    stages = tuple((round(share * config.train.steps), level) for share, level in config.data.curriculum)
    drawn: Elements = train
    if config.data.batching == "neighbourhoods":
        better, worse = config.data.neighbourhood
        drawn = make_neighbourhoods(
            train,
            train_of,
            stores.weights,
            better=better,
            worse=worse,
            most=PAIRS_PER_WORSE * worse,
            drawn=elements(config),
        )
    order = make_order(
        drawn.of if isinstance(drawn, Neighbourhoods) else train_of,
        elements(config),
        streams=config.data.streams,
        seed=config.train.seed,
        weights=stores.weights,
        difficulty=train.difficulty_N if stages else None,
        stages=stages,
        each=per_element(config),
    )
    return drawn, order


def _only_step(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: array[0] for name, array in arrays.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
