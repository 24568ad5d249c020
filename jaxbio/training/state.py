"""The state of a run, the random streams it is driven by, and its shape without a single array.

Everything that a run must remember stands in `State`; everything random is a function of `train.seed`, the name of
the stream and the step. This file knows no loss, no mesh and no file.

    abstract = abstract_state(objective, optimizer, batch_spec(config))
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """What a run is at a step: the int32 `step` to be done next, and three trees of arrays.

    `objective_state` is whatever the objective put there: a teacher, a centre, a codebook.
    """

    step: jax.Array
    params: PyTree
    opt_state: PyTree
    objective_state: PyTree


def stream_key(seed: int | jax.Array, name: str) -> jax.Array:
    """Return the key of the random stream `name` (init, augment, dropout, ...), which no mesh and no host changes."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), np.uint32(zlib.crc32(name.encode())))


def new_state(
    objective, optimizer, seed: int | jax.Array, batch: Mapping[str, jax.Array], frozen: Mapping[str, PyTree]
) -> State:
    """Return the state at step 0, traced: see `init_state` and below.

    `seed` is `train.seed`, `batch` the global batch of that step, `frozen` the variables of the networks that the
    objective does not train.
    """
    params, objective_state = objective.init(stream_key(seed, "init"), batch, frozen)
    return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), objective_state)


def abstract_state(objective, optimizer, batch: Mapping[str, Any]) -> State:
    """Return the state as `jax.ShapeDtypeStruct`s; of `batch` only shapes and dtypes are read.

    Raises UserError when a rule of `optimizer.groups` matches no parameter.
    """
    shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in batch.items()}
    return jax.eval_shape(
        lambda arrays, frozen: new_state(objective, optimizer, 0, arrays, frozen),
        shapes,
        dict(objective.frozen),
    )


def leaf_paths(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of `tree` by path, `encoder/blocks/attention/qkv/kernel`, in the tree's order."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
