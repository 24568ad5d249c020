"""A store on the devices: the batch of a step is drawn inside the compiled step (`data.cache = device`).

A row of a batch comes from its own streams, so a part of the mesh (the devices along data and fsdp) holds the segments
of the streams of its rows, and no others; where several parts share a stream each holds it. Index and order are
arguments of the step like the segments, so the program does not depend on the store's contents.

    resident = plan_resident(stores, index, order, by_row, mesh)       # shapes alone
    source = resident.load(stores)                                     # the arrays, filled piece by piece
    batch = resident.fetch(source, step)                               # traced: what a loader would have read
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.batch import DTYPES
from jaxbio.data.loader import Elements
from jaxbio.data.order import Order
from jaxbio.data.several import Stores
from jaxbio.training.sharding import BATCH_AXES, local_parts, replicated, ways

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**26
_ORDER = ("first_step_E", "first_V", "size_EV", "outer_EV", "inner_EV", "key_V", "lanes_V", "lane_V")

Source = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Share:
    """What one part of the mesh draws from: elements of the index from `first`, and the rows they name, rising."""

    first: int
    element_E: np.ndarray
    row_R: np.ndarray


@dataclass(frozen=True)
class Resident:
    """A store as the devices of `mesh` hold it; made by `plan_resident`.

    `segment_CT` is the shape of a segment; `index`, `order` and `by_row` are those that a loader would read.
    """

    mesh: Mesh
    index: Elements
    order: Order
    by_row: Mapping[str, np.ndarray]
    segment_CT: tuple[int, int]
    shares: tuple[Share, ...]

    @cached_property
    def abstract(self) -> Source:
        """The source as shapes with shardings. Parts hold arrays of one size: that of the part that needs most."""
        parts, rows = len(self.shares), max(len(share.row_R) for share in self.shares)
        elements = max(len(share.element_E) for share in self.shares)
        shapes = {
            "segment_BMCT": (rows, *self.segment_CT),
            "row_BM": (rows,),
            **{name: (rows, *array_R.shape[1:]) for name, array_R in self.by_row.items()},
            **{name: (elements, *array_N.shape[1:]) for name, array_N in self.index.by_element.items()},
        }
        held = {name: jax.ShapeDtypeStruct((parts, *shape), DTYPES[name]) for name, shape in shapes.items()}
        held["place_NSM"] = jax.ShapeDtypeStruct((parts, elements, *self.index.rows_NSM.shape[1:]), np.int32)
        held["first"] = jax.ShapeDtypeStruct((parts,), np.uint32)
        order = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in self._order.items()}
        return {
            part: {
                name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=self.shardings[part])
                for name, array in arrays.items()
            }
            for part, arrays in {"share": held, "order": order}.items()
        }

    @property
    def shardings(self) -> dict[str, NamedSharding]:
        """Where the two parts of a source lie: `share` by parts of the mesh, `order` everywhere."""
        return {"share": NamedSharding(self.mesh, PartitionSpec(BATCH_AXES)), "order": replicated(self.mesh)}

    @property
    def bytes_per_device(self) -> int:
        """Bytes of the source that one device holds."""
        sizes = {part: [_nbytes(array) for array in arrays.values()] for part, arrays in self.abstract.items()}
        return sum(sizes["share"]) // len(self.shares) + sum(sizes["order"])

    def check_fits(self, state_bytes: int, memory_bytes: int | None) -> None:
        """Raise UserError where a device does not hold its share beside `state_bytes`; memory None is unknown."""
        needed = self.bytes_per_device + state_bytes
        if memory_bytes is None or needed <= memory_bytes:
            return
        rows = self.abstract["share"]["row_BM"].shape[1]
        remedy = (
            f"each device would hold {rows:,} segments, {self.bytes_per_device / 1e9:.2f} GB, beside "
            f"{state_bytes / 1e9:.2f} GB of state, and has {memory_bytes / 1e9:.2f} GB: data.cache=host, or more "
            "devices along mesh.data, or a smaller store"
        )
        raise UserError(Fault("data.cache", "device", remedy))

    def load(self, stores: Stores) -> Source:
        """Return the source: read each row once for each device of this process that holds it, chunk by chunk.

        Raises StoreError where the store's bytes are damaged.
        """
        log.info("data.cache = device: %.2f GB at each device", self.bytes_per_device / 1e9)
        devices = local_parts(self.mesh)
        held: dict[str, list[jax.Array]] = {name: [] for name in self.abstract["share"]}
        rows = sum(len(self.shares[part].row_R) for part in devices)
        with tqdm(total=rows, unit="segment", unit_scale=True, desc="data.cache", disable=None) as progress:
            for part, own in devices.items():
                arrays = {
                    name: [jax.device_put(array, device) for device in own]
                    for name, array in self._small(self.shares[part]).items()
                }
                arrays["segment_BMCT"] = self._segments(stores, self.shares[part].row_R, own, progress)
                for name, found in arrays.items():
                    held[name] += found
        placed = self.shardings
        share = {
            name: jax.make_array_from_single_device_arrays(array.shape, placed["share"], held[name])
            for name, array in self.abstract["share"].items()
        }
        order = {
            name: jax.make_array_from_callback(array.shape, placed["order"], array.__getitem__)
            for name, array in self._order.items()
        }
        return {"share": share, "order": order}

    def fetch(self, source: Source, step: jax.Array) -> dict[str, jax.Array]:
        """Return the global batch of `step`, each row taken by the device that holds it; traced."""
        own = self.order.batch // len(self.shares)
        by_element = tuple(self.index.by_element)

        def take(share: Mapping[str, jax.Array], order: Mapping[str, jax.Array], step: jax.Array):
            share = {name: array[0] for name, array in share.items()}
            place_N = jax.lax.axis_index(BATCH_AXES) * own + jnp.arange(own)
            tables: dict[str, Any] = {**order, "ranked_N": None}  # elements lie in the order of their ranks
            drawing = dataclasses.replace(self.order, **tables)
            element_N = (drawing.draw(step, jnp, jax.lax.while_loop, place_N) - share["first"]).astype(jnp.int32)
            place_NSM = share["place_NSM"][element_N]
            row_BM = place_NSM.reshape(-1, place_NSM.shape[-1])
            of_rows = ("segment_BMCT", "row_BM", *self.by_row)
            return {name: share[name][row_BM] for name in of_rows} | {
                name: share[name][element_N] for name in by_element
            }

        split, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
        batch = jax.shard_map(take, mesh=self.mesh, in_specs=(split, whole, whole), out_specs=split, check_vma=False)(
            source["share"], source["order"], step
        )
        # what computes with the batch is compiled as if it had come from outside: the same fusions, the same bits
        return jax.lax.optimization_barrier(batch)

    @cached_property
    def _order(self) -> dict[str, np.ndarray]:
        return {name: getattr(self.order, name) for name in _ORDER}

    def _small(self, share: Share) -> dict[str, np.ndarray]:
        """Return the arrays of a share but the segments, (1, ...), filled up with zeros to the size of the largest."""
        element_NSM = self.index.rows_NSM[share.element_E]
        arrays = {
            "row_BM": share.row_R,
            **{name: array_R[share.row_R] for name, array_R in self.by_row.items()},
            **{name: array_N[share.element_E] for name, array_N in self.index.by_element.items()},
            "place_NSM": np.searchsorted(share.row_R, element_NSM),
            "first": np.asarray(share.first),
        }
        return {name: _filled_up(array, self.abstract["share"][name]) for name, array in arrays.items()}

    def _segments(
        self, stores: Stores, row_R: np.ndarray, devices: list[jax.Device], progress: tqdm
    ) -> list[jax.Array]:
        """Return the segments of `row_R` on each of `devices`; the host holds a chunk of them at a time."""
        wanted = self.abstract["share"]["segment_BMCT"]
        shape, nbytes = (1, *wanted.shape[1:]), _nbytes(wanted) // len(self.shares)
        made = [_zeros(shape, wanted.dtype, device) for device in devices]
        chunk = min(max(CHUNK_BYTES * wanted.shape[1] // max(nbytes, 1), 1), len(row_R))
        for start in range(0, len(row_R), chunk):
            first = min(start, len(row_R) - chunk)  # the last chunk is whole too: one program writes all
            segment_NCT = stores.read(row_R[first : first + chunk])
            made = [
                _write(array, jax.device_put(segment_NCT[None], device), jax.device_put(np.int32(first), device))
                for array, device in zip(made, devices, strict=True)
            ]
            progress.update(first + chunk - start)
        return made


def plan_resident(
    stores: Stores, index: Elements, order: Order, by_row: Mapping[str, np.ndarray], mesh: Mesh
) -> Resident:
    """Return how the devices of `mesh` hold what `order` draws from `index`; no signal is read.

    The elements of a step must divide over data and fsdp (`sharding.check_batch`).
    """
    parts = ways(mesh)
    own = order.batch // parts
    shares = []
    for part in range(parts):
        first, stop = order.reach(part * own, (part + 1) * own)
        element_E = np.arange(first, stop) if order.ranked_N is None else order.ranked_N[first:stop]
        shares.append(Share(first, element_E, np.unique(index.rows_NSM[first:stop])))
    segment_CT = stores.record_CT
    return Resident(mesh, index, order, by_row, segment_CT, tuple(shares))


def _filled_up(array: np.ndarray, wanted: jax.ShapeDtypeStruct) -> np.ndarray:
    filled = np.zeros((1, *wanted.shape[1:]), wanted.dtype)
    if array.ndim:
        filled[0, : len(array)] = array
    else:
        filled[0] = array
    return filled


def _zeros(shape: tuple[int, ...], dtype: Any, device: jax.Device) -> jax.Array:
    placed = jax.sharding.SingleDeviceSharding(device)
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=placed)()


@jax.jit(donate_argnums=0)
def _write(array: jax.Array, piece: jax.Array, first: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(array, piece, first, axis=1)


def _nbytes(array: jax.ShapeDtypeStruct) -> int:
    return math.prod(array.shape) * array.dtype.itemsize
