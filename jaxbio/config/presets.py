"""Named sets of changes that several recipes share, chosen as `--config configs/X.py:preset,...`."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxbio.config import fields
from jaxbio.config.faults import Fault, UserError
from jaxbio.config.machines import MACHINES

# The published QualityFM recipe to the letter (fact sheet, sections 2 and 6); everything else is equal to ours.
QUALITYFM_AUTHOR: dict[str, Any] = {
    "data.scaling": "joint",
    "quality.variant": "author",
    "pairs.max_per_segment": None,
    "objective.ema_start": 0.7,
    "objective.teacher_dropout": True,
    "optimizer.name": "adam_l2",
    "optimizer.warmup_frac": 0.0,
    "optimizer.clip_norm": None,
    "precision.dropout_bits": "threefry",
}

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

    Raises UserError for a name that is neither in the recipe's `presets` nor a machine's.
    """
    known = {**MACHINES, **presets}
    for name in filter(None, argument.split(",")):
        if name not in known:
            raise UserError(Fault("--config", f":{name}", f"presets of this recipe: {', '.join(sorted(known))}"))
        fields.change(config, known[name])
    return config
