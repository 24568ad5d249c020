"""From host batches to device batches: each device gets its rows, while the step before is computed.

Arrays stay as they are stored (int16 and float32); scaling is the compiled step's. Knows the mesh, not the data.

    positions = local_positions(mesh, batch)
    with make_feed(make_loader(store, index, order, positions=positions), mesh, steps_per_dispatch=4) as feed:
        for batches in feed: state, metrics = program.train_step(state, batches.arrays)
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh

from jaxbio.data.loader import HostBatch
from jaxbio.training.sharding import dispatch_sharding, local_parts, ways


@dataclass(frozen=True)
class DeviceBatch:
    """The batches of one dispatch: the first step, the checksum of each step's rows, and the arrays that the compiled
    step takes: batches (steps, B, ...), or a resident store, from which it draws them itself.
    """

    step: int
    rows_crc32: tuple[int, ...]
    arrays: Mapping[str, Any]


def local_positions(mesh: Mesh, batch: int) -> np.ndarray | None:
    """Return the rows of the global `batch` that this process's devices hold, rising; None where that is all.

    The batch must divide over data and fsdp (`sharding.check_batch`).
    """
    held, rows = list(local_parts(mesh)), batch // ways(mesh)
    if len(held) == ways(mesh):
        return None
    return (np.asarray(held)[:, None] * rows + np.arange(rows)[None, :]).reshape(-1)


def make_feed(host_batches: Iterator[HostBatch], mesh: Mesh, steps_per_dispatch: int, *, ahead: int = 1) -> "Feed":
    """Return the batches of consecutive dispatches on the devices of `mesh`, `ahead` of them placed in advance."""
    return Feed(host_batches, functools.partial(place_batches, mesh=mesh), steps_per_dispatch, ahead)


def make_resident_feed(
    checksums: Iterator[HostBatch], source: Mapping[str, Any], steps_per_dispatch: int, *, ahead: int = 1
) -> "Feed":
    """Return the dispatches of a store that lies on the devices; `checksums` hold no array, and nothing is sent."""

    def place(batches: list[HostBatch]) -> DeviceBatch:
        return DeviceBatch(batches[0].step, tuple(batch.rows_crc32 for batch in batches), source)

    return Feed(checksums, place, steps_per_dispatch, ahead)


class Feed(Iterator[DeviceBatch]):
    """Device batches, made by `place` in a thread of their own from the host batches of a dispatch."""

    def __init__(
        self,
        host_batches: Iterator[HostBatch],
        place: Callable[[list[HostBatch]], DeviceBatch],
        steps_per_dispatch: int,
        ahead: int,
    ):
        self._host_batches, self._place, self._steps = host_batches, place, steps_per_dispatch
        # One worker, so that dispatches come in order; finite pieces of work, so that nothing hangs at exit.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._placed: deque[Future[DeviceBatch | None]] = deque(self._submit() for _ in range(ahead))

    def __next__(self) -> DeviceBatch:
        """Return the next dispatch's batches; what a reading or placing thread raised is raised here."""
        self._placed.append(self._submit())
        batch = self._placed.popleft().result()
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        """End the worker and the loader behind it."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        close = getattr(self._host_batches, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self) -> "Future[DeviceBatch | None]":
        return self._worker.submit(self._place_next)

    def _place_next(self) -> DeviceBatch | None:
        """Return the next dispatch on the devices; None when fewer steps are left than it takes."""
        batches = []
        for host_batch in self._host_batches:
            batches.append(host_batch)
            if len(batches) == self._steps:
                return self._place(batches)
        return None


def place_batches(batches: list[HostBatch], mesh: Mesh) -> DeviceBatch:
    """Return the host batches of consecutive steps as global arrays (steps, B, ...), B split over data and fsdp.

    Each device's rows are stacked once and sent to it alone; they must be among the batches' local rows.
    """
    arrays = {name: _place([batch.arrays[name] for batch in batches], mesh) for name in batches[0].arrays}
    return DeviceBatch(batches[0].step, tuple(batch.rows_crc32 for batch in batches), arrays)


def _place(arrays: Sequence[np.ndarray], mesh: Mesh) -> jax.Array:
    held = list(local_parts(mesh))
    rows = len(arrays[0]) // len(held)

    @functools.cache  # devices along the tensor axis hold the same rows
    def stack(part: int) -> np.ndarray:
        local = slice(held.index(part) * rows, (held.index(part) + 1) * rows)
        if len(arrays) == 1:
            return arrays[0][None, local]  # a view: one step is not copied on the host
        return np.stack([array[local] for array in arrays])

    def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None  # JAX's type for devices that hold nothing
        return stack((index[1].start or 0) // rows)

    shape = (len(arrays), rows * ways(mesh), *arrays[0].shape[1:])
    return jax.make_array_from_callback(shape, dispatch_sharding(mesh), of_device)
