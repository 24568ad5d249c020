"""Weights on disk: one safetensors file whose keys are the paths of a nested dictionary, joined by "/".

It knows nothing of models; what the names must be is told by whoever asks for a match.

    write_weights(folder / "params.safetensors", variables)
    variables = read_weights(folder / "params.safetensors")
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from jaxbio.config.faults import Fault, UserError

logger = logging.getLogger(__name__)
SHOWN = 5  # mismatches in the message of an error; the log has them all


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

    Raises UserError for a file that is missing, cut short or no safetensors file.
    """
    return unflatten_tree(read_flat_weights(path))


def read_flat_weights(path: epath.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file by their keys; raises as `read_weights`."""
    path = epath.Path(path)
    if not path.is_file():
        raise UserError(Fault(str(path), "missing", "name a file of weights that exists"))
    try:
        return safetensors_numpy.load(path.read_bytes())
    except SafetensorError as error:
        raise UserError(
            Fault(str(path), "unreadable", f"no whole safetensors file ({error}); copy it again")
        ) from error


def match_weights(found: Mapping[str, Any], expected: Mapping[str, Any], source: str) -> None:
    """Check that `found` has exactly the names and shapes of `expected` (flat dictionaries of what has a shape).

    Raises WeightsMismatch that names `source`, lists all in the log and shows the first five.
    """
    mismatches = [f"missing {name} {_shape(expected[name])}" for name in sorted(expected.keys() - found.keys())]
    mismatches += [f"unknown {name} {_shape(found[name])}" for name in sorted(found.keys() - expected.keys())]
    mismatches += [
        f"{name} is {_shape(found[name])}, expected {_shape(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name].shape) != tuple(expected[name].shape)
    ]
    if not mismatches:
        return
    for mismatch in mismatches:
        logger.error("%s: %s", source, mismatch)
    raise WeightsMismatch(source, mismatches)


def _shape(array: Any) -> str:
    return "(" + ", ".join(map(str, array.shape)) + ")"
