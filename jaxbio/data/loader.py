"""Host batches by step: the rows of a step that this host holds, read together and joined once.

A Grain pipeline over step numbers: an element is one step, so the state of the data is the step, and threads, hosts
and prefetching change nothing. Knows no device and no JAX array.

    with make_loader(store, index, order, positions=positions, start_step=1000) as loader:
        for host_batch in loader: ...
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grain
import numpy as np

from jaxbio.data.batch import DTYPES
from jaxbio.data.buffers import Buffers
from jaxbio.data.cache import open_cache
from jaxbio.data.several import Reader, Stores, as_stores
from jaxbio.data.store import Store

LAST_STEP = 2**32  # of an order


class Draws(Protocol):
    """An order: the numbers (batch,) uint32 of the elements of an index that a step draws."""

    def draw(self, step: int) -> np.ndarray: ...


class Elements(Protocol):
    """An index as an order draws from it: N elements, each S pairs of rows, and what else a batch holds of an element.

    Of an index of pairs S is 1, and a batch holds nothing else.
    """

    @property
    def rows_NSM(self) -> np.ndarray: ...
    @property
    def by_element(self) -> Mapping[str, np.ndarray]: ...


@dataclass(frozen=True)
class HostBatch:
    """The rows of one step that a host holds.

    `rows_crc32` is of the store's hash (UTF-8) and the global `row_BM` (little-endian uint32): of what the rows are,
    not of their numbers alone. `arrays` are those of `jaxbio.data.batch`, for the host's positions alone; rows are of
    the store, or of several, one after another.
    """

    step: int
    rows_crc32: int
    arrays: Mapping[str, np.ndarray]


class Loader(Iterator[HostBatch]):
    """The batches of consecutive steps, read ahead by threads; `close` (or leaving a `with`) ends the threads."""

    def __init__(self, steps: grain.IterDataset):
        self._steps = iter(steps)

    def __next__(self) -> HostBatch:
        """Return the next step's batch; an error of a reading thread is raised here, at its step."""
        return next(self._steps)

    def close(self) -> None:
        """Drop what was read ahead; a thread in the middle of a batch finishes it and ends."""
        self._steps.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_loader(
    store: Store | Stores,
    index: Elements,
    order: Draws,
    *,
    by_row: Mapping[str, np.ndarray] | None = None,
    positions: np.ndarray | None = None,
    cache: str = "none",
    cache_dir: Path | None = None,
    read_threads: int = 2,
    prefetch: int = 2,
    start_step: int = 0,
    stop_step: int = LAST_STEP,
) -> Loader:
    """Return the batches of steps `start_step` .. `stop_step` - 1 over the pairs of `index`, in `order`.

    `by_row` are the arrays (R, ...) from which a segment takes its scale, labels and mask: `arrays_by_row` of a recipe;
    None: the scale alone. `positions` are the elements of a step that this host holds, rising; None: all. `cache` is
    "none" (read through array_record) or "host" (one memory map a host, built now where there is none, in `cache_dir`:
    by default the host's temporary folder). Of the next `prefetch` batches, `read_threads` are read at a time.
    Iteration raises StoreError, naming shard and records, where the store's bytes are damaged.
    """
    stores = as_stores(store)
    readers: dict[str, Callable[[], list[Reader]]] = {
        "none": lambda: [part.read for part in stores.stores],
        "host": lambda: [_gather_from(open_cache(part, cache_dir)) for part in stores.stores],
    }
    read = stores.route(readers[cache]())
    by_row = {"scale_BMC2": stores.scale_NC2} if by_row is None else by_row
    segment_CT = stores.record_CT
    buffers = Buffers(DTYPES["segment_BMCT"])

    def read_step(step: int) -> HostBatch:
        drawn_N = order.draw(step)
        row_BM = rows_of(index, drawn_N)
        crc32 = checksum(stores, row_BM)
        if positions is not None:
            drawn_N = drawn_N[positions]
            row_BM = rows_of(index, drawn_N)
        segment_NCT = read(row_BM.reshape(-1), buffers.take((row_BM.size, *segment_CT)))
        arrays = {
            "segment_BMCT": segment_NCT.reshape(*row_BM.shape, *segment_CT),
            "row_BM": row_BM,
            **{name: array_R[row_BM].astype(DTYPES[name], copy=False) for name, array_R in by_row.items()},
            **{name: array_N[drawn_N].astype(DTYPES[name], copy=False) for name, array_N in index.by_element.items()},
        }
        return HostBatch(step, crc32, arrays)

    options = grain.ReadOptions(num_threads=read_threads, prefetch_buffer_size=prefetch)
    return Loader(grain.MapDataset.range(start_step, stop_step).map(read_step).to_iter_dataset(options))


def rows_of(index: Elements, drawn_N: np.ndarray) -> np.ndarray:
    """Return row_BM uint32 of the elements `drawn_N`, the pairs of an element one behind another."""
    row_NSM = index.rows_NSM[drawn_N]
    return row_NSM.reshape(-1, row_NSM.shape[-1]).astype(DTYPES["row_BM"], copy=False)


def checksum(stores: Stores, row_BM: np.ndarray) -> int:
    """Return the CRC-32 of the stores' hash and the rows of a step."""
    return zlib.crc32(row_BM.tobytes(), zlib.crc32(stores.hash.encode()))


def _gather_from(segment_RCT: np.ndarray) -> Reader:
    """Return `Store.read` over the memory map."""

    def read(row_N: np.ndarray, out_NCT: np.ndarray) -> np.ndarray:
        if row_N.size and row_N.max() >= len(segment_RCT):
            raise IndexError(f"row {row_N.max()} of a store of {len(segment_RCT)} rows")
        # mode="clip": "raise" would gather into a buffer of its own and copy.
        return np.take(segment_RCT, row_N, axis=0, out=out_NCT, mode="clip")

    return read
