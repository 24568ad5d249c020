"""Weights on disk: one safetensors file whose keys are the paths of a nested dictionary, joined by "/".

It knows nothing of models; what the names must be is told by whoever asks for a match.

    write_weights(folder / "params.safetensors", variables)
    variables = read_weights(folder / "params.safetensors")
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from etils import epath
from safetensors import numpy as safetensors_numpy

from jaxbio.config.faults import Fault, UserError
from jaxbio.data.given_files import open_given

logger = logging.getLogger(__name__)
SHOWN = 5  # mismatches in the message of an error; the log has them all
_MOST_LOGGED = 1000
_LONGEST_SHOWN = 200
# Types of safetensors by name. Its own reader for NumPy knows none of ml_dtypes.
_TYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class WeightsMismatch(UserError):
    """Weights whose names or shapes are not the model's; `mismatches` holds every one, the message the first five."""

    def __init__(self, source: str, mismatches: list[str]):
        self.mismatches = tuple(mismatches)
        more = len(mismatches) - SHOWN
        shown = "; ".join(mismatches[:SHOWN]) + (f"; and {more} more, all in the log" if more > 0 else "")
        super().__init__(Fault(source, f"{len(mismatches)} names or shapes that are not the model's", shown))


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested dictionary as one of "/"-joined paths, sorted; raises ValueError for a key that holds "/"."""
    flat: dict[str, Any] = {}
    for key in sorted(tree):
        if "/" in key:
            raise ValueError(f"key {key!r} holds the separator of paths")
        path = prefix + key
        flat |= flatten_tree(tree[key], path + "/") if isinstance(tree[key], Mapping) else {path: tree[key]}
    return flat


def unflatten_tree(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return "/"-joined paths as a nested dictionary, the inverse of `flatten_tree`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def write_weights(path: epath.PathLike, tree: Mapping[str, Any]) -> None:
    """Write the arrays of a nested dictionary to `path`, each in its own type."""
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_tree(tree).items()}
    epath.Path(path).write_bytes(safetensors_numpy.save(arrays))


def read_weights(path: epath.PathLike) -> dict[str, Any]:
    """Return the nested dictionary that `write_weights` wrote.

    Raises UserError as `read_flat_weights`, and for names of which one is a folder of another.
    """
    flat = read_flat_weights(path)
    folders = {"/".join(name.split("/")[:place]) for name in flat for place in range(1, name.count("/") + 1)}
    for name in sorted(folders & flat.keys()):
        raise UserError(Fault(str(path), shown(name), "the name of an array, and the beginning of other names"))
    return unflatten_tree(flat)


def read_flat_weights(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by their keys, each in its own type (bfloat16 and fp8 as ml_dtypes).

    Raises UserError for a file that is missing, no regular one, cut short or no safetensors file, and for a type that
    is no number of whole bytes.
    """
    path = os.fspath(path)
    with open_given(path, missing="name a file of weights that exists") as file:
        raw = file.read()
    try:
        entries = safetensors.deserialize(raw)
    except safetensors.SafetensorError as error:
        raise UserError(Fault(path, "unreadable", f"no whole safetensors file ({error}); copy it again")) from error
    odd = [(name, entry["dtype"]) for name, entry in entries if entry["dtype"] not in _TYPES]
    if odd:
        name, kind = odd[0]
        raise UserError(Fault(path, f"{shown(name)} of type {kind}", f"types are {', '.join(_TYPES)}; convert it"))
    try:
        return {
            name: np.frombuffer(entry["data"], _TYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries
        }
    except (ValueError, OverflowError) as error:  # more axes, or longer ones of nothing, than NumPy has
        raise UserError(Fault(path, "unreadable", f"a shape that no array has ({error})")) from error


def shown(name: str) -> str:
    """Return a name from a file as a message can hold it: short, and without signs that a terminal would obey."""
    short = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
    return short if short.isprintable() else ascii(short)


def match_weights(found: Mapping[str, Any], expected: Mapping[str, Any], source: str) -> None:
    """Check that `found` has exactly the names and shapes of `expected` (flat dictionaries of what has a shape).

    Raises WeightsMismatch that names `source`, lists all in the log and shows the first five.
    """
    mismatches = [f"missing {name} {_shape(expected[name])}" for name in sorted(expected.keys() - found.keys())]
    mismatches += [f"unknown {shown(name)} {_shape(found[name])}" for name in sorted(found.keys() - expected.keys())]
    mismatches += [
        f"{name} is {_shape(found[name])}, expected {_shape(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != tuple(expected[name].shape)
    ]
    if not mismatches:
        return
    for mismatch in mismatches[:_MOST_LOGGED]:
        logger.error("%s: %s", source, mismatch)
    if len(mismatches) > _MOST_LOGGED:
        logger.error("%s: and %d more", source, len(mismatches) - _MOST_LOGGED)
    raise WeightsMismatch(source, mismatches)


def _shape(array: Any) -> str:
    return "(" + ", ".join(map(str, array.shape)) + ")"
