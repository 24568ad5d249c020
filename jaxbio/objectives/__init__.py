"""Pretraining objectives as pure functions. `OBJECTIVES` is what `objective.name` chooses from.

objective = make_objective(config)
params, state = objective.init(key, batch, {})
encoder = make_encoder(config)
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from jaxbio.config import families
from jaxbio.config.batch_scaling import at_batch
from jaxbio.models import ENCODERS
from jaxbio.objectives.objective import Aux, Batch, Network, Objective, Tree
from jaxbio.transforms.prepare_input import Input

__all__ = ["OBJECTIVES", "Aux", "Batch", "Network", "Objective", "Tree", "make_encoder", "make_objective"]

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    name: families.load(training.make) for name, training in families.OBJECTIVES.items()
}


def make_objective(config: ConfigDict, networks: Mapping[str, Network] = {}) -> Objective:
    """Return the objective of `config`: its fields become plain arguments of the same names, momenta those in effect.

    Reads the sections model, objective, augment, what `Input.of` reads of data, and precision.compute. `networks` are
    those that the objective uses and does not train, by the name of the field that holds their export; the objective's
    function gets each without its weights, which `init` puts into the state. Raises UserError for a model that cannot
    be built and for a network that does not suit the objective.
    """
    settings = dict(at_batch(config).objective)
    name = settings.pop("name")
    settings |= {field: config.model[field] for field in families.OBJECTIVES[name].model_fields}
    settings |= {wanted: networks[wanted].without_weights() for wanted in families.OBJECTIVES[name].frozen}
    objective = OBJECTIVES[name](
        make_encoder(config), inputs=Input.of(config), augmentation=dict(config.augment), **settings
    )
    return dataclasses.replace(objective, frozen={name: _shapes(network) for name, network in networks.items()})


def make_encoder(config: ConfigDict) -> nn.Module:
    """Return the encoder of `config`, from the sections model and precision alone.

    Raises UserError for a model that cannot be built.
    """
    model = dict(config.model)
    for field in families.OBJECTIVES[config.objective.name].model_fields:  # such as adapters: the objective's to apply
        del model[field]
    return ENCODERS[model.pop("name")](**model, dtype=config.precision.compute)


def _shapes(network: Network) -> Tree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), network.variables)
