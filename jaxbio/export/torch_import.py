"""Weights of the PyTorch reference implementations, read and written by the tables of `torch_names`.

arrays = read_reference("weights.pth")                        # or .npz, .safetensors; no PyTorch needed
variables = from_reference("qualityfm", arrays, {"width": 512, ...})    # of the encoder, for module.apply
trees = trees_from_reference("qualityfm", arrays, {...})                # decoder and heads too
arrays = to_reference("qualityfm", trees)

A family with several encoders has a table for each, chosen by the encoder's registry name.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxbio.config import families
from jaxbio.config.faults import Fault, UserError
from jaxbio.data.given_arrays import read_arrays
from jaxbio.export.torch_names import Arrays, Name, Reference
from jaxbio.export.torch_pickle import read_tensors
from jaxbio.export.torch_turns import to_ours, to_theirs
from jaxbio.export.weights import SHOWN, flatten_tree, match_weights, read_flat_weights, shown, unflatten_tree

# What torch.compile, data-parallel and sharded wrappers put into the names of what they wrap, wherever that stands.
_WRAPPERS = re.compile(r"(?:(?<=[./])|^)(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
_COUNTERS = ".num_batches_tracked"  # PyTorch's batch norms count their calls; nothing reads it


def read_reference(path: epath.PathLike, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of `path` whose names begin with `prefix`, by the rest of their names; floats as float32.

    `.npz` by array name; `.safetensors` by key; `.pth` and `.pt` as `torch.save` writes them, nested names joined by a
    dot. What PyTorch's wrappers add to names (`module.`, `_orig_mod.`) is taken out of names and prefix. Raises
    UserError for another or unreadable file, one that holds more than tensors, an unused prefix, and names that are
    one without the wrappers.
    """
    path = epath.Path(path)
    readers = {".npz": _read_npz, ".safetensors": read_flat_weights, ".pth": read_tensors, ".pt": read_tensors}
    if path.suffix not in readers:
        raise UserError(Fault(str(path), path.suffix, f"a file of {', '.join(sorted(readers))}"))
    arrays = readers[path.suffix](path)
    chosen = _unwrap(_beginning(arrays, prefix), path) or _beginning(_unwrap(arrays, path), _WRAPPERS.sub("", prefix))
    if not chosen:
        first = ", ".join(shown(name) for name in sorted(arrays)[:5])
        raise UserError(Fault("--prefix", prefix, f"a prefix of the names in {path}, which begin {first}"))
    return {name: _widen(array) for name, array in chosen.items()}


def from_reference(
    family: str, arrays: Arrays, fields: Mapping[str, Any], encoder: str | None = None
) -> dict[str, Any]:
    """Return the encoder's variables, for `module.apply`; arguments and errors as `trees_from_reference`."""
    return {kind: tree["encoder"] for kind, tree in trees_from_reference(family, arrays, fields, encoder).items()}


def trees_from_reference(
    family: str, arrays: Arrays, fields: Mapping[str, Any], encoder: str | None = None
) -> dict[str, Any]:
    """Return {"params": parts} (and "batch_stats" where there are any), float32 NumPy, from the reference's `arrays`.

    `fields` construct the encoder, the one registered as `encoder` (None: the family's first). A part (encoder,
    decoder, a head) of which `arrays` have no name is left out, the encoder never. Raises UserError for a family or an
    encoder without a table, and WeightsMismatch, which names every missing, unknown and misshapen array.
    """
    return trees_from_table(_table(family, encoder), arrays, fields, f"{family} weights")


def trees_from_table(known: Reference, arrays: Arrays, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return what `trees_from_reference` does, by the table `known`; errors say `where`."""
    read = {name for name in arrays if not name.endswith(_COUNTERS) and not name.startswith(known.unread)}
    arrays = {name: _widen(arrays[name]) for name in arrays if name in read}
    arrays = _without_tables(known, arrays)
    shapes = flatten_tree(known.shapes(arrays, fields))
    table = list(known.names(shapes))
    present = {_part(name) for name in table if name.reference in arrays} | {"encoder"}
    wanted = [name for name in table if _part(name) in present]
    match_weights(arrays, {name.reference: _turned_shape(name, shapes) for name in wanted}, where)
    _check_numbers({name.reference: arrays[name.reference] for name in wanted}, where)
    in_layers = {name.path for name in wanted if name.layer is not None}
    stacked: dict[str, list[np.ndarray]] = {}
    for name in wanted:
        shape = shapes[name.path].shape[name.layer is not None :]
        reversed_array = np.asarray(arrays[name.reference], np.float32).T
        stacked.setdefault(name.path, []).append(to_ours(reversed_array, shape, name.joined, name.rows))
    flat = {
        path: np.stack(layers) if path in in_layers else np.ascontiguousarray(layers[0])
        for path, layers in stacked.items()
    }
    return unflatten_tree(flat)


def to_reference(
    family: str, trees: Mapping[str, Any], encoder: str | None = None, input_shape: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Return `trees` ({"params": some parts, ...}) under the reference's names and in its layout.

    Rows of a table of theirs that nothing reads, and we do not have, are zeros. With `input_shape`, (channels, samples)
    of what the encoder sees, also the tables that the reference keeps among its weights and we compute.
    """
    known = _table(family, encoder)
    tables = {} if input_shape is None else known.tables(flatten_tree(trees), input_shape)
    return arrays_from_table(known, trees) | tables


def arrays_from_table(known: Reference, trees: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return what `to_reference` does, by the table `known`."""
    flat = flatten_tree(trees)
    return {
        name.reference: np.ascontiguousarray(_turn(name, np.asarray(flat[name.path])))
        for name in known.names(flat)
        if name.path in flat
    }


def family_of(encoder: str) -> str:
    """Return the reference family whose encoder is registered as `encoder`; UserError where there is none."""
    for family in families.REFERENCES:
        if any(table.encoder == encoder for table in _tables(family)):
            return family
    remedy = "no reference implementation's names are known for this encoder; of a network with a head, --which encoder"
    raise UserError(Fault("--layout", encoder, remedy))


def _tables(family: str) -> list[Reference]:
    if family not in families.REFERENCES:
        raise UserError(Fault("--family", family, f"one of {', '.join(sorted(families.REFERENCES))}"))
    return [families.load(text) for text in families.REFERENCES[family]]


def _table(family: str, encoder: str | None) -> Reference:
    for table in _tables(family):
        if encoder in (None, table.encoder):
            return table
    raise UserError(Fault("--family", family, f"it has no reference implementation's names for the encoder {encoder}"))


def _without_tables(known: Reference, arrays: Arrays) -> Arrays:
    """Return `arrays` without the tables that we compute; raises UserError for one that holds anything else."""
    tables = {name: table for name, array in arrays.items() if (table := known.table(name, array)) is not None}
    for name, table in tables.items():
        if table.shape != arrays[name].shape or not np.allclose(arrays[name], table, atol=1e-4):
            remedy = "positions are fixed here; these were trained, as fine-tuning does: import pretrained weights"
            raise UserError(Fault(name, "not the fixed table", remedy))
    return {name: array for name, array in arrays.items() if name not in tables}


def _part(name: Name) -> str:
    return name.path.split("/")[1]


def _turn(name: Name, array: Any) -> Any:
    layer = array if name.layer is None else array[name.layer]
    return to_theirs(layer, name.joined, name.rows).T


def _turned_shape(name: Name, shapes: Mapping[str, Any]) -> Any:
    return jax.eval_shape(lambda array: _turn(name, array), shapes[name.path])


def _read_npz(path: epath.Path) -> dict[str, np.ndarray]:
    return read_arrays(path, missing="name a file of weights that exists")


def _beginning(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _unwrap(arrays: Arrays, path: epath.Path) -> dict[str, np.ndarray]:
    """Return the arrays by their names without what PyTorch's wrappers add."""
    unwrapped: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        plain = _WRAPPERS.sub("", name)
        if plain in unwrapped:
            remedy = "two arrays have this name without module. and _orig_mod.; choose one with --prefix"
            raise UserError(Fault(str(path), shown(plain), remedy))
        unwrapped[plain] = array
    return unwrapped


def _widen(array: np.ndarray) -> np.ndarray:
    """Return floats of any type (those of ml_dtypes are of kind V) as float32; what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False) if array.dtype.kind in "fV" else array


def _check_numbers(arrays: Arrays, source: str) -> None:
    """Raise UserError for weights that are no floats, or not finite in float32: no network computes with them."""
    faults = []
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            faults.append(Fault(source, name, f"holds {array.dtype}, no floats: give the weights before quantisation"))
        elif not np.isfinite(array).all():
            faults.append(Fault(source, name, "holds numbers that are not finite in float32; save the weights again"))
    if faults:
        raise UserError(*faults[:SHOWN])
