"""The toy family's recipe: single segments of twelve leads with a label each."""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets

LEADS = ("i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6")
CHANGES = {
    "data.rate_hz": 50.0,
    "data.segment_s": 10.0,
    "data.channels": LEADS,
    "data.scaling": "physical",
    "data.crop_s": 9.0,
    "data.crops": 3,
    "data.band_hz": (0.67, 20.0),
    "data.standardise": "z_score",
    "data.labels": ("age",),
    "data.streams": 4,
    "pairs.rule": "all_segments",
    "prepare.split": (0.6, 0.3, 0.1),
    "train.steps": 8,
    "train.batch": 8,
    "optimizer.groups": ((r"^head", {"name": "sgd", "learning_rate": 0.01}),),
    "eval.every_steps": 4,
    "eval.batches": 1,
    "log.every_steps": 1,
    "checkpoint.every_steps": 4,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("toy", "toy_codes"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE})
