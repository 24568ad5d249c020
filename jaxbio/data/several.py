"""Several segment stores as one: rows and pairs are numbered store after store.

Whoever reads a store's rows, columns and scales reads a view of several in the same way. What is drawn how often is the
order's affair; here a weight is only part of what the view is, so that a run resumes on the same ones.

    stores = open_stores((("A", 0.7), ("B", 0.3)))       # or the folder of one
    index, pairs_of = open_indexes(stores, config, "train")
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.labels import Label, list_labels, open_labels
from jaxbio.data.pairs import Index, open_index
from jaxbio.data.store import Store, open_store

_MOST_ROWS = 2**32  # of an index, whose rows are uint32

Reader = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (rows (n,), out (n, C, T) int16) -> out


@dataclass(frozen=True)
class Stores:
    """One store or several of one rate, length and channels, `weights` the share of each in what is drawn."""

    stores: tuple[Store, ...]
    weights: tuple[float, ...] = (1.0,)

    @cached_property
    def hash(self) -> str:
        """Hash of everything in the stores, their order and their weights; of one store its own."""
        if len(self.stores) == 1:
            return self.stores[0].hash
        content = [[store.hash, weight] for store, weight in zip(self.stores, self.weights, strict=True)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @property
    def rate_hz(self) -> float:
        """Sampling rate of the segments, Hz."""
        return self.stores[0].rate_hz

    @property
    def length(self) -> int:
        """Samples in a segment."""
        return self.stores[0].length

    @property
    def segment_s(self) -> float:
        """Duration of a segment, s."""
        return self.stores[0].segment_s

    @property
    def channels(self) -> tuple[str, ...]:
        """Roles of the recorded channels, in the order of a record."""
        return self.stores[0].channels

    @property
    def record_CT(self) -> tuple[int, int]:
        """Shape of a record: recorded and feature channels, samples."""
        return self.stores[0].record_CT

    @cached_property
    def start_S(self) -> np.ndarray:
        """First row of each store and, last, the number of rows: (stores + 1,) int64."""
        return np.cumsum([0, *(store.rows for store in self.stores)])

    @property
    def rows(self) -> int:
        """Number of segments."""
        return int(self.start_S[-1])

    def store_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of the store that each row is of, counted from 0."""
        return np.searchsorted(self.start_S, rows, side="right") - 1

    def join(self, take: Callable[[Store], np.ndarray]) -> np.ndarray:
        """Return what `take` gives of each store's rows as one array over all rows."""
        parts = [take(store) for store in self.stores]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def has_column(self, name: str) -> bool:
        """Whether every store's table has column `name`."""
        return all(store.has_column(name) for store in self.stores)

    def column(self, name: str) -> np.ndarray:
        """Return column `name` as an array (rows,); raises KeyError where a table has no such column."""
        return self.join(lambda store: store.column(name))

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Return a column of texts as (rows,) int32 codes and the list of texts they stand for."""
        code_of: dict[str, int] = {}

        def renumber(store: Store) -> np.ndarray:
            code_R, texts = store.codes(name)
            return np.array([code_of.setdefault(text, len(code_of)) for text in texts], np.int32)[code_R]

        return self.join(renumber), list(code_of)

    @cached_property
    def scale_NC2(self) -> np.ndarray:
        """Offset and gain of every segment and channel, float32: physical = offset + gain * q."""
        return self.join(lambda store: store.scale_NC2)

    @cached_property
    def present_NC(self) -> np.ndarray:
        """Whether every segment has its channels, bool."""
        return self.join(lambda store: store.present_NC)

    def read(self, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return segments (n, C, T) int16 of `rows` (n,), in that order, into `out` where it is given.

        Raises IndexError and StoreError as a store does.
        """
        row_N = np.asarray(rows, np.int64)
        out = np.empty((row_N.size, *self.record_CT), "<i2") if out is None else out
        return self.route([store.read for store in self.stores])(row_N, out)

    def route(self, readers: Sequence[Reader]) -> Reader:
        """Return a reader of all rows, given one of each store's own rows."""
        if len(readers) == 1:
            return readers[0]

        def read(row_N: np.ndarray, out_NCT: np.ndarray) -> np.ndarray:
            if row_N.size and row_N.max() >= self.rows:
                raise IndexError(f"row {row_N.max()} of stores that have {self.rows} together")
            store_N = self.store_of(row_N)
            # Rows of a batch come store after store: each run of one store is read into its place, without a copy.
            edges = [0, *(np.flatnonzero(np.diff(store_N)) + 1).tolist(), row_N.size]
            for first, stop in itertools.pairwise(edges):
                if first < stop:
                    number = int(store_N[first])
                    readers[number](row_N[first:stop] - self.start_S[number], out_NCT[first:stop])
            return out_NCT

        return read

    def check(self, config: ConfigDict) -> None:
        """Refuse stores that were prepared for another model: rate, length and channels must be the recipe's.

        Raises UserError with a fault for each that differs in each store.
        """
        _for_each(self.stores, lambda store: store.check(config))


def as_stores(store: Store | Stores) -> Stores:
    """Return the view of one store; a view as it is."""
    return Stores((store,)) if isinstance(store, Store) else store


def open_stores(named: str | Path | Sequence[tuple[str, float]]) -> Stores:
    """Return the stores of `data.store`: the folder of one, or pairs of folder and weight.

    Raises UserError with every fault of every store, for one store under two names, and for more rows than uint32 can
    number.
    """
    entries = [(named, 1.0)] if isinstance(named, (str, Path)) else list(named)
    stores = Stores(
        tuple(_for_each([folder for folder, _ in entries], open_store)),
        tuple(float(weight) for _, weight in entries),
    )
    hashes = [store.hash for store in stores.stores]
    for store in stores.stores[1:]:
        first = stores.stores[hashes.index(store.hash)]
        if first is not store:
            remedy = f"is the same store as {first.path}: name it once, with the sum of the weights"
            raise UserError(Fault("data.store", str(store.path), remedy))
    if stores.rows >= _MOST_ROWS:
        remedy = f"at most {_MOST_ROWS - 1} segments together, the most that an index of uint32 can number"
        raise UserError(Fault("data.store", f"{stores.rows} segments", remedy))
    return stores


def open_indexes(
    stores: Stores, config: ConfigDict, split: str, left_out_R: np.ndarray | None = None
) -> tuple[Index, tuple[int, ...]]:
    """Return the pairs of `split` of all stores, store after store, and how many are each store's.

    Pairs with a row that `left_out_R` (rows,) marks are not among them. One store's are its memory map where nothing
    is left out. Raises UserError with every fault of every store's index.
    """
    found = _for_each(stores.stores, lambda store: open_index(store, config, split))
    kept = []
    for start, index in zip(stores.start_S[:-1].tolist(), found, strict=True):
        rows_NM = index.rows_NM if start == 0 else index.rows_NM + np.uint32(start)
        difficulty_N = index.difficulty_N
        if left_out_R is not None:
            used_N = ~left_out_R[rows_NM].any(axis=1)
            rows_NM, difficulty_N = rows_NM[used_N], difficulty_N[used_N]
        kept.append(Index(rows_NM, difficulty_N, index.hash))
    pairs_of = tuple(len(index.rows_NM) for index in kept)
    if len(kept) == 1:
        return kept[0], pairs_of
    rows_NM, difficulty_N = (
        np.concatenate([getattr(index, part) for index in kept]) for part in ("rows_NM", "difficulty_N")
    )
    return Index(rows_NM, difficulty_N, kept[0].hash), pairs_of


def list_joined_labels(stores: Stores) -> list[str]:
    """Return the names of the labels that were added to every store, sorted."""
    return sorted(set.intersection(*(set(list_labels(store)) for store in stores.stores)))


def open_joined_labels(stores: Stores, names: Sequence[str]) -> list[Label]:
    """Return the labels of these names over the rows of all stores.

    Raises UserError with every fault of every store, and for a label whose classes are not the same in all of them.
    """
    by_store = _for_each(stores.stores, lambda store: open_labels(store, names))
    joined, faults = [], []
    for name, parts in zip(names, zip(*by_store, strict=True), strict=True):
        first = parts[0]
        if other := next((part for part in parts if part.classes != first.classes), None):
            remedy = f"{', '.join(other.classes)}; add it anew with --classes, to both in one order"
            faults.append(Fault("data.labels", f"{name}: {', '.join(first.classes)}", f"in another store {remedy}"))
        joined.append(Label(name, np.concatenate([part.value_R for part in parts]), first.classes))
    if faults:
        raise UserError(*faults)
    return joined


def _for_each(items: Sequence[Any], action: Callable[[Any], Any]) -> list[Any]:
    """Return what `action` gives of each item; raise the faults of all of them together."""
    found: list[Any] = []
    faults: list[Fault] = []
    for item in items:
        try:
            found.append(action(item))
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(*faults)
    return found
