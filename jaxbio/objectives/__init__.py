"""Pretraining objectives as pure functions. `OBJECTIVES` is what `objective.name` chooses from.

objective = make_objective(config)
params, state = objective.init(key, batch)
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxbio.models import ENCODERS
from jaxbio.objectives.objective import Batch, Objective, Tree
from jaxbio.objectives.quality_distillation import quality_distillation

__all__ = ["OBJECTIVES", "Batch", "Objective", "Tree", "make_objective"]

OBJECTIVES: dict[str, Callable[..., Objective]] = {"quality_distillation": quality_distillation}


def make_objective(config: ConfigDict) -> Objective:
    """Return the objective of `config`: its fields become plain arguments of the same names.

    Reads the sections model, objective, augment, and data.scaling, precision.compute, precision.dropout_bits. Raises
    UserError for a model that cannot be built.
    """
    model, settings = dict(config.model), dict(config.objective)
    encoder = ENCODERS[model.pop("name")](
        **model, dtype=config.precision.compute, dropout_bits=config.precision.dropout_bits
    )
    make = OBJECTIVES[settings.pop("name")]
    return make(encoder, scaling=config.data.scaling, augmentation=dict(config.augment), **settings)
