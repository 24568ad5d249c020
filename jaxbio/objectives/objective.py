"""What an objective is: a few pure functions, in the manner of an Optax transformation.

The trainer knows nothing of teachers, codebooks or masks; it carries `state` and calls these functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn

Tree = Any  # nested dictionaries of arrays
Batch = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Objective:
    """The pure functions of a pretraining objective.

    init(key, batch) -> params, state: `batch` only for its shapes.
    loss(params, state, batch, keys, progress, train) -> loss, (aux, metrics): `keys` has "augment" (of the step) and
        "dropout" (of the step and microbatch); `progress` is step / steps; aux and metrics are means over the batch.
    update(params, state, aux, progress) -> state: once a step, after the optimiser.
    encoders: name -> (module, variables(params, state)), the first the default; module.apply(variables, x_BCT).
    coupled: the loss of a pair depends on the others of its batch, so that accumulation would change it.
    show(params, state, batch) -> what a report draws, or None: "segment" x_BMCT float32, prepared, not augmented, and
        curves by name, each (target, output), such as "amplitude": two arrays (B, C, S).
    """

    init: Callable[[jax.Array, Batch], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, Batch, Mapping[str, jax.Array], jax.Array, bool], tuple[jax.Array, tuple[Tree, dict]]]
    update: Callable[[Tree, Tree, Tree, jax.Array], Tree]
    encoders: Mapping[str, tuple[nn.Module, Callable[[Tree, Tree], Tree]]]
    coupled: bool = False
    show: Callable[[Tree, Tree, Batch], dict[str, Any]] | None = None
