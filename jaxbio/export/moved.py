"""How far training has moved an encoder from where it started: near 0, it is still the network that was drawn.

share = moved_from_start(config, objective, "teacher", variables)
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxbio.data.batch import batch_spec
from jaxbio.export.initial import start_from
from jaxbio.objectives import Objective
from jaxbio.training.state import stream_key


def moved_from_start(config: ConfigDict, objective: Objective, which: str, variables: Any) -> float:
    """Return the distance of encoder `which` from its start as a share of the start's length, over all parameters.

    The start is drawn again from `train.seed`, or read from the exports that `train.init_from` names. Raises UserError
    where these are not there any more.
    """
    first = starting_variables(config, objective, which)
    return float(_distance(variables["params"], first["params"]))


def starting_variables(config: ConfigDict, objective: Objective, which: str) -> Any:
    """Return the variables that encoder `which` had before the run's first step; errors as `moved_from_start`."""
    _, take = objective.encoders[which]
    spec, frozen = batch_spec(config), dict(objective.frozen)

    def start(key: jax.Array) -> Any:
        # what a batch or a frozen network holds does not reach an encoder's first weights
        batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in spec.items()}
        networks = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), frozen)
        return objective.init(key, batch, networks)

    key = stream_key(config.train.seed, "init")
    if config.train.init_from is None:
        return jax.jit(lambda key: take(*start(key)))(key)
    return take(*start_from(config.train.init_from, objective, *jax.jit(start)(key)))


@jax.jit
def _distance(now: Any, first: Any) -> jax.Array:
    def length(tree: Any) -> jax.Array:
        return jnp.sqrt(sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)))

    return length(jax.tree.map(jnp.subtract, now, first)) / length(first)
