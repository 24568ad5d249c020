"""Where every array of the state lies: the mesh, the rules, and the table that says what a device holds.

The mesh has the axes data, fsdp and tensor, always all; the compiler partitions the step (automatic axis types).
Rules are ordered (regex, action) pairs over parameter paths, first match wins; a leaf that no rule matches and a rule
that decides nothing are both errors.

    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    placement = place_state(abstract, mesh, config.mesh.rules, config.mesh.moments)
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxbio.config.faults import Fault, UserError
from jaxbio.training.state import State, leaf_paths
from jaxbio.transforms.per_row import BATCH_AXES

AXES = ("data", "fsdp", "tensor")
PARTS = ("params", "opt_state", "objective_state")  # of a state, beside the number of its step
# Gradients of fewer entries are reduced whole: the parts of small ones would spread into the backward pass, where the
# compiler then permutes activations between devices to save nothing.
LEAST_SCATTERED = 2**15


def make_mesh(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return the mesh of these axis sizes, one of which may be -1: the rest of the devices.

    `devices` fixes their order; by default all, in the order that suits the machine's network. Raises UserError when
    the sizes do not multiply to the number of devices.
    """
    sizes = mesh_sizes(data, fsdp, tensor, jax.device_count() if devices is None else len(devices))
    ordered = network_order(sizes, jax.devices()) if devices is None else devices
    return Mesh(np.asarray(ordered).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_sizes(data: int, fsdp: int, tensor: int, count: int) -> tuple[int, ...]:
    """Return the sizes of the three axes over `count` devices, -1 resolved; raises UserError when they do not fit."""
    known = math.prod(size for size in (data, fsdp, tensor) if size != -1)
    sizes = tuple(count // known if size == -1 else size for size in (data, fsdp, tensor))
    if math.prod(sizes) != count:
        asked = f"{data} x {fsdp} x {tensor}"
        raise UserError(
            Fault("mesh.data x fsdp x tensor", asked, f"make the product {count}, the number of devices (-1: the rest)")
        )
    return sizes


def network_order(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Return `devices` in the order in which a mesh of `sizes` suits their network; slices of TPUs lie along data.

    Raises UserError for sizes that do not go with the network's shape or the number of slices.
    """
    if devices[0].platform != "tpu":  # XLA calls every host of GPUs a slice; any axis may lie over several of them
        return list(mesh_utils.create_device_mesh(sizes, devices).flat)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if sizes[0] % slices:
        raise UserError(
            Fault("mesh.data", sizes[0], f"a multiple of the {slices} slices, whose network is data's alone")
        )
    try:
        if slices > 1:
            within = (sizes[0] // slices, *sizes[1:])
            return list(mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices).flat)
        return list(jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices).devices.flat)
    except NotImplementedError as error:  # JAX's word for an axis that is no product of the torus's sides
        asked = " x ".join(map(str, sizes))
        raise UserError(Fault("mesh.data x fsdp x tensor", asked, str(error).partition(". ")[0])) from error


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return where one batch lies: its leading axis split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def dispatch_sharding(mesh: Mesh) -> NamedSharding:
    """Return where the batches of one dispatch lie: arrays (steps_per_dispatch, B, ...), the second axis split."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def ways(mesh: Mesh) -> int:
    """Return into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def local_parts(mesh: Mesh) -> dict[int, list[jax.Device]]:
    """Return the parts that this process's devices hold, rising, and by whom; on a TPU they are not one block."""
    parts: dict[int, list[jax.Device]] = {}
    for device, index in batch_sharding(mesh).addressable_devices_indices_map((ways(mesh),)).items():
        assert index is not None  # JAX's type for devices that hold nothing
        parts.setdefault(range(ways(mesh))[index[0]].start, []).append(device)
    return dict(sorted(parts.items()))


def without_axis(placed: NamedSharding, axis: str) -> NamedSharding:
    """Return `placed` with nothing split over `axis` any more."""
    kept = [tuple(name for name in _names(names) if name != axis) for names in placed.spec]
    return NamedSharding(placed.mesh, PartitionSpec(*(names or None for names in kept)))


def scattered(placed: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """Return where the gradient of a parameter at `placed` lies under `moments = zero`: large ones as their moments.

    Each device then gets the part whose moments it holds, which a TPU or GPU reduces in half the traffic of the whole.
    """
    if math.prod(shape) < LEAST_SCATTERED:
        return placed
    return NamedSharding(placed.mesh, _split_over_data(placed.spec, shape, placed.mesh.shape) or placed.spec)


def splits(placed: NamedSharding, dimension: int, axis: str) -> bool:
    """Return whether `placed` splits a dimension of its array over `axis`."""
    return axis in (name for names in placed.spec[dimension : dimension + 1] for name in _names(names))


def check_batch(mesh: Mesh, batch: int, microbatches: int, each: int = 1) -> None:
    """Raise UserError when a microbatch of the global `batch`, in pieces of `each`, does not divide over the mesh."""
    parts = microbatches * ways(mesh) * each
    if batch % parts:
        near = f"{max(batch // parts, 1) * parts} or {(batch // parts + 1) * parts}"
        factors = "train.microbatches x mesh.data x mesh.fsdp" + (" x data.neighbourhood[1]" if each > 1 else "")
        raise UserError(Fault("train.batch", batch, f"a multiple of {factors} = {parts}: {near}"))


@dataclass(frozen=True)
class Row:
    """One leaf of the state in the table: path, shape, placement and the bytes one device holds of it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    spec: PartitionSpec
    bytes_per_device: int


@dataclass(frozen=True)
class Placement:
    """The shardings of a state, a row for each leaf, and the moments that `mesh.moments = zero` could not split."""

    shardings: State
    rows: tuple[Row, ...]
    unsplit: tuple[str, ...]

    @property
    def bytes_per_device(self) -> int:
        """Bytes of the state that one device holds."""
        return sum(row.bytes_per_device for row in self.rows)

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes that one device holds of each part of the state."""
        return {part: sum(row.bytes_per_device for row in self.rows if row.path.startswith(part)) for part in PARTS}

    def table(self) -> str:
        """Return the table that a run prints: parameters, the sums of the state's parts, the unsplit moments.

        Parameters of less than a thousandth of all (biases, scales) share a line for each placement.
        """
        width = max(len(row.path) for row in self.rows)
        params = [row for row in self.rows if row.path.startswith("params/")]
        least = sum(row.bytes_per_device for row in params) / 1000
        lines = [
            f"{row.path:{width}}  {row.shape!s:20} {row.dtype:8} {_spec_text(row.spec):24} {row.bytes_per_device:>14,}"
            for row in params
            if row.bytes_per_device >= least
        ]
        small: dict[str, list[int]] = {}
        for row in params:
            if row.bytes_per_device < least:
                small.setdefault(_spec_text(row.spec), []).append(row.bytes_per_device)
        for spec, sizes in small.items():
            name = f"params: {len(sizes)} smaller ones"
            lines.append(f"{name:{width}}  {'':20} {'':8} {spec:24} {sum(sizes):>14,}")
        for part, held in self.bytes_by_part.items():
            lines.append(f"{part:{width}}  {'':20} {'':8} {'bytes a device':24} {held:>14,}")
        if self.unsplit:
            lines.append(f"moments held whole, no dimension divides: {', '.join(self.unsplit)}")
        return "\n".join(lines)


def place_state(abstract: State, mesh: Mesh, rules: Sequence[tuple[str, Any]], moments: str) -> Placement:
    """Return where each leaf of `abstract` lies on `mesh`.

    An optimiser or objective leaf whose path ends like a parameter's and whose shape equals it takes its rule; other
    optimiser leaves are replicated, other objective leaves go by their own path. `moments = zero` splits optimiser
    leaves further over data, along the first dimension that divides. Raises UserError for leaves without a rule,
    rules that decide nothing, and axes that do not divide.
    """
    actions = tuple((re.compile(pattern), action) for pattern, action in rules)
    used: set[int] = set()
    faults: list[Fault] = []
    parameters = leaf_paths(abstract.params)

    def rule_spec(path: str, shape: tuple[int, ...]) -> PartitionSpec:
        index = next((index for index, (pattern, _) in enumerate(actions) if pattern.search(path)), None)
        if index is None:
            faults.append(Fault("mesh.rules", path, 'no rule matches this leaf; end with (".*", "replicate")'))
            return PartitionSpec()
        used.add(index)
        try:
            return _action_spec(path, shape, actions[index][1], mesh)
        except UserError as error:
            faults.extend(error.faults)
            return PartitionSpec()

    specs: dict[str, PartitionSpec] = {"step": PartitionSpec()}
    unsplit: list[str] = []
    for path, leaf in parameters.items():
        specs[f"params/{path}"] = rule_spec(path, leaf.shape)
    for path, leaf in leaf_paths(abstract.objective_state).items():
        mirrored = _mirrored(path, leaf.shape, parameters)
        specs[f"objective_state/{path}"] = specs[f"params/{mirrored}"] if mirrored else rule_spec(path, leaf.shape)
    for path, leaf in leaf_paths(abstract.opt_state).items():
        mirrored = _mirrored(path, leaf.shape, parameters)
        spec = specs[f"params/{mirrored}"] if mirrored else PartitionSpec()
        if mirrored and moments == "zero":
            split = _split_over_data(spec, leaf.shape, mesh.shape)
            if split is None:
                unsplit.append(path)
            spec = split or spec
        specs[f"opt_state/{path}"] = spec
    faults += [
        Fault("mesh.rules", pattern.pattern, "no leaf is left for this rule; remove it or move it up")
        for index, (pattern, _) in enumerate(actions)
        if index not in used
    ]
    if faults:
        raise UserError(*faults)
    return _placement(abstract, mesh, specs, unsplit)


def _placement(abstract: State, mesh: Mesh, specs: dict[str, PartitionSpec], unsplit: list[str]) -> Placement:
    leaves = leaf_paths(abstract)
    shardings = {path: NamedSharding(mesh, specs[path]) for path in leaves}
    rows = tuple(
        Row(
            path,
            leaf.shape,
            str(leaf.dtype),
            specs[path],
            math.prod(shardings[path].shard_shape(leaf.shape)) * leaf.dtype.itemsize,
        )
        for path, leaf in leaves.items()
    )
    tree = jax.tree.unflatten(jax.tree.structure(abstract), list(shardings.values()))
    return Placement(tree, rows, tuple(unsplit))


def _mirrored(path: str, shape: tuple[int, ...], parameters: dict[str, Any]) -> str | None:
    """Return the path of the parameter that this leaf mirrors: the longest suffix of equal shape."""
    parts = path.split("/")
    suffixes = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((suffix for suffix in suffixes if suffix in parameters and parameters[suffix].shape == shape), None)


def _action_spec(path: str, shape: tuple[int, ...], action: Any, mesh: Mesh) -> PartitionSpec:
    """Return what a rule's action means for one leaf: replicate, fsdp (largest dimension that divides), or axes."""
    if action == "replicate":
        return PartitionSpec()
    if action == "fsdp":
        fitting = [axis for axis, size in enumerate(shape) if size % mesh.shape["fsdp"] == 0]
        if not fitting or mesh.shape["fsdp"] == 1:
            return PartitionSpec()
        chosen = max(fitting, key=lambda axis: shape[axis])
        return PartitionSpec(*(None,) * chosen, "fsdp")
    if isinstance(action, str) or len(action) > len(shape):
        raise UserError(
            Fault("mesh.rules", action, f'for {path} {shape}: "replicate", "fsdp", or at most {len(shape)} axes')
        )
    named = [name for names in action for name in _names(names)]
    if len(set(named)) < len(named):
        raise UserError(Fault("mesh.rules", action, f"for {path}: each axis at most once"))
    for size, names in zip(shape, action, strict=False):
        parts = _split_by(names, path, mesh)
        if size % parts:
            raise UserError(Fault("mesh.rules", action, f"{path} {shape}: {size} does not divide by {names} = {parts}"))
    return PartitionSpec(*(tuple(names) if isinstance(names, list) else names for names in action))


def _split_by(names: Any, path: str, mesh: Mesh) -> int:
    """Return over how many devices the axes `names` of one dimension split it."""
    unknown = [name for name in _names(names) if name not in mesh.shape]
    if unknown:
        raise UserError(Fault("mesh.rules", unknown[0], f"for {path}: axes are {', '.join(AXES)} or None"))
    return math.prod(mesh.shape[name] for name in _names(names))


def _names(names: Any) -> tuple[str, ...]:
    """Return the mesh axes of one dimension of a PartitionSpec: None, a name, or several."""
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def _split_over_data(spec: PartitionSpec, shape: tuple[int, ...], axes: Mapping[str, int]) -> PartitionSpec | None:
    """Return `spec` with data added to the first dimension that divides, or None; `axes` are the mesh's sizes."""
    if any("data" in _names(names) for names in spec):
        return spec
    entries = [*spec, *(None,) * (len(shape) - len(spec))]
    for axis, (size, names) in enumerate(zip(shape, entries, strict=True)):
        held = _names(names)
        parts = math.prod(axes[name] for name in held) * axes["data"]
        if size % parts == 0:
            entries[axis] = (*held, "data") if held else "data"
            return PartitionSpec(*entries)
    return None


def _spec_text(spec: PartitionSpec) -> str:
    shown = ["+".join(names) if isinstance(names, tuple) else names or "-" for names in spec]
    return " ".join(shown) if any(names is not None for names in spec) else "replicated"
