"""Named sets of changes that several recipes share, chosen as `--config configs/X.py:preset,...`."""

import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import families, fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.machines import MACHINES

# Two steps on a laptop: the model stays as it is, the store is synthetic and made in the workdir.
SMOKE: dict[str, Any] = {
    "data.store": "synthetic:128",
    "data.streams": 8,
    "prepare.split": (0.5, 0.25, 0.25),
    "train.steps": 2,
    "train.batch": 8,
    "eval.every_steps": 2,
    "eval.batches": 1,
    "log.every_steps": 1,
    "checkpoint.every_steps": 2,
    "checkpoint.keep": 1,
}


def apply(config: ConfigDict, argument: str, presets: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """Apply the presets named in `argument` ("smoke,gpu"), in that order, to `config`.

    Raises UserError for a name that is neither in the recipe's `presets` nor its model's nor a machine's.
    """
    known = {**MACHINES, **families.MODELS[config.model.name].presets, **presets}
    for name in filter(None, argument.split(",")):
        if name not in known:
            raise UserError(Fault("--config", f":{name}", f"presets of this recipe: {', '.join(sorted(known))}"))
        try:
            fields.change(config, known[name])
        except AttributeError as error:
            raise UserError(Fault("--config", f":{name}", f"not for this recipe: {error}")) from error
    return config


def variant(model: str, argument: str) -> str:
    """Return the presets of `argument` that make another run, joined by hyphens: all but settings of the machine."""
    machine = {**MACHINES, **families.MODELS[model].presets}
    return "-".join(re.sub(r"[^\w.=+]", "_", name) for name in argument.split(",") if name and name not in machine)
