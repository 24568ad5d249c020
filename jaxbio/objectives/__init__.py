"""Pretraining objectives as pure functions. `OBJECTIVES` is what `objective.name` chooses from.

objective = make_objective(config)
params, state = objective.init(key, batch)
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from jaxbio.models import ENCODERS
from jaxbio.objectives.byol import byol
from jaxbio.objectives.contrastive import contrastive
from jaxbio.objectives.objective import Batch, Objective, Tree
from jaxbio.objectives.quality_distillation import quality_distillation
from jaxbio.objectives.quality_siamese import quality_siamese
from jaxbio.transforms.prepare_input import Input

__all__ = ["OBJECTIVES", "Batch", "Objective", "Tree", "make_objective"]

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "quality_distillation": quality_distillation,
    "quality_siamese": quality_siamese,
    "contrastive": contrastive,
    "byol": byol,
}


def make_objective(config: ConfigDict) -> Objective:
    """Return the objective of `config`: its fields become plain arguments of the same names.

    Reads the sections model, objective, augment, what `Input.of` reads of data, and precision.compute. Raises
    UserError for a model that cannot be built.
    """
    model, settings = dict(config.model), dict(config.objective)
    encoder = ENCODERS[model.pop("name")](**model, dtype=config.precision.compute)
    make = OBJECTIVES[settings.pop("name")]
    return make(encoder, inputs=Input.of(config), augmentation=dict(config.augment), **settings)
