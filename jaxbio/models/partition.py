"""An encoder's parameters in two parts: those from a depth on, which are trained, and those before it, which stay.

trained, kept = split_at(params, layers, first=2)
params = join_parts(trained, kept)
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxbio.models.layers import Layer, depths_of

Tree = Any


def split_at(params: Tree, layers: Sequence[Layer], first: int) -> tuple[Tree, Tree]:
    """Return the arrays of depth `first` and deeper, and the others (see `depths_of`); stacks are cut between layers.

    Each part may be empty. The arrays may be NumPy's, JAX's or traced.
    """
    depth_of, _ = depths_of(layers)
    length_of = {layer.path: max(layer.stacked, 1) for layer in layers}
    trained, kept = {}, {}
    for path, leaf in traverse_util.flatten_dict(params).items():
        length = length_of[path[:-1]]
        cut = min(max(first - depth_of[path[:-1]], 0), length)
        if cut == 0:
            trained[path] = leaf
        elif cut == length:
            kept[path] = leaf
        else:
            trained[path], kept[path] = leaf[cut:], leaf[:cut]
    return traverse_util.unflatten_dict(trained), traverse_util.unflatten_dict(kept)


def join_parts(trained: Tree, kept: Tree) -> Tree:
    """Return the parameters whose parts these are."""
    late, early = traverse_util.flatten_dict(trained), traverse_util.flatten_dict(kept)
    joined = {
        path: jnp.concatenate([early[path], late[path]]) if path in early and path in late else {**early, **late}[path]
        for path in {**early, **late}
    }
    return traverse_util.unflatten_dict(joined)


def scale_by_depth(params: Tree, layers: Sequence[Layer], decay: float) -> Tree:
    """Return for each array by how much slower it learns the farther it lies from the end: `decay` to the power of its
    distance, 1 for the last depth (Clark et al. 2020); of a stack one factor a layer, (N, 1, ...) float32.

    `params` are an encoder's, a trained part of them, or adapters at the paths of its layers.
    """
    depth_of, depths = depths_of(layers)
    stacked = {layer.path: layer.stacked for layer in layers}

    def scale(path: Any, leaf: Any) -> np.ndarray:
        first, stack = depth_of[path[:-1]], stacked[path[:-1]]
        if not stack:
            return np.asarray(decay ** (depths - first), np.float32)
        last_N = first + stack - leaf.shape[0] + np.arange(leaf.shape[0])  # of a stack whose first layers stay
        return np.asarray(decay ** (depths - last_N), np.float32).reshape(-1, *(1,) * (leaf.ndim - 1))

    return traverse_util.path_aware_map(scale, params)
