"""What holds for another batch than the one that a recipe's numbers were found at: learning rates and momenta.

A recipe says its numbers at `train.reference_batch`. With kappa = train.batch / train.reference_batch a step sees kappa
times the pairs, and there are so many fewer steps. So a learning rate is multiplied, by kappa for SGD (Goyal et al.
2017) or by its square root for Adam (Malladi et al. 2022), and a momentum that is applied once a step, of a teacher or
a centre, is raised to the power kappa (Busbridge et al. 2023, "How to Scale Your EMA"): it forgets in as many pairs.
What is said as a share of the run (`objective.ema_horizon_frac`, `optimizer.warmup_frac`) needs no scaling. The moments
of the optimiser itself stay: 0.9 to the power 16 would be hardly any.

    config = at_batch(config)        # numbers that are in effect
"""

from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import families, fields

_RATES = ("learning_rate", "learning_rate_end")


def kappa_of(config: ConfigDict) -> float:
    """Return by how much the batch is larger than the one that learning rates and momenta are stated for."""
    reference = config.train.reference_batch
    return 1.0 if reference is None else config.train.batch / reference


def at_batch(config: ConfigDict) -> ConfigDict:
    """Return `config` with the learning rates and momenta in effect; itself where the batch is the stated one."""
    kappa = kappa_of(config)
    if kappa == 1:
        return config
    factor = kappa if config.optimizer.batch_rule == "linear" else kappa**0.5
    changes: dict[str, Any] = {"train.reference_batch": None}
    for name in _RATES:
        changes[f"optimizer.{name}"] = factor * config.optimizer[name]
    changes["optimizer.groups"] = tuple(
        (pattern, {name: factor * value if name in _RATES else value for name, value in group.items()})
        for pattern, group in config.optimizer.groups
    )
    for name in families.OBJECTIVES[config.objective.name].momenta:
        changes[f"objective.{name}"] = config.objective[name] ** kappa
    return fields.change(config.copy_and_resolve_references(), changes)
