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
    "model.dropout_bits": "threefry",
    "augment.noise_bits": "threefry",
}

# SiamQuality (fact sheet, sections 2 and 4): good and bad neighbours of one PPG channel at 40 Hz, no augmentation, and
# a curriculum from little artefact to much. The optimiser is ours: SimSiam's rule, 0.05 x batch / 256, with a cosine.
SIAMQUALITY: dict[str, Any] = {
    "data.rate_hz": 40.0,
    "data.channels": ("ppg",),
    "data.scaling": "unit",
    "data.curriculum": ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (1.0, 1.0)),
    "pairs.rule": "good_bad",
    "pairs.max_per_segment": 5,
    "augment.noise_prob": 0.0,
    "augment.scale_prob": 0.0,
    "augment.offset_prob": 0.0,
    "augment.block_prob": 0.0,
    "train.batch": 256,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.05,
    "optimizer.learning_rate_end": 0.0,
    "optimizer.warmup_frac": 0.05,
    "optimizer.weight_decay": 1e-4,
    "optimizer.weight_decay_end": 1e-4,
    "optimizer.decay_mask": "all",
    "optimizer.clip_norm": None,
}

# The published SiamQuality recipe; ten epochs of 36 M pairs between halvings of the learning rate.
SIAMQUALITY_AUTHOR: dict[str, Any] = {
    "optimizer.schedule": "step",
    "optimizer.step_every": 1_406_250,
    "optimizer.learning_rate": 1e-4,
    "optimizer.warmup_frac": 0.0,
    "optimizer.clip_value": 10.0,
    "optimizer.groups": ((r"projector/fc2/bias$", {"frozen": True}),),
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


def siamquality(objective: str, depth: int, argument: str, **named: Mapping[str, Any]) -> ConfigDict:
    """Return the recipe of `objective` on SiamQuality's pairs, a ResNet of `depth`; `named` are its own presets."""
    config = fields.change(fields.defaults("resnet1d", objective), {**SIAMQUALITY, "model.depth": depth})
    return apply(config, argument, {"smoke": SMOKE, **named})


def apply(config: ConfigDict, argument: str, presets: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """Apply the presets named in `argument` ("smoke,gpu"), in that order, to `config`.

    Raises UserError for a name that is neither in the recipe's `presets` nor a machine's.
    """
    known = {**MACHINES, **presets}
    for name in filter(None, argument.split(",")):
        if name not in known:
            raise UserError(Fault("--config", f":{name}", f"presets of this recipe: {', '.join(sorted(known))}"))
        try:
            fields.change(config, known[name])
        except AttributeError as error:
            raise UserError(Fault("--config", f":{name}", f"not for this recipe: {error}")) from error
    return config
