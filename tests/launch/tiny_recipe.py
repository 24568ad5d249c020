"""A run small enough to be started twenty times: one block, the narrowest there is, over five seconds of signal."""

from ml_collections import ConfigDict

from jaxbio.config import fields

TINY_RECIPE = __file__  # for a launch line
CHANGES = {
    "data.segment_s": 5.0,
    "data.streams": 8,
    "prepare.split": (0.5, 0.25, 0.25),
    "prepare.shard_bytes": 2**20,
    "model.width": 502,
    "model.layers": 1,
    "model.heads": 2,
    "model.feedforward": 32,
    "model.window": None,
    "train.steps": 24,
    "train.batch": 8,
    "eval.every_steps": 12,
    "eval.batches": 2,
    "log.every_steps": 1,
    "log.report_every_s": 60.0,
    "checkpoint.every_steps": 6,
    "checkpoint.every_s": None,
    "checkpoint.keep": 2,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; there are no presets."""
    return fields.change(fields.defaults("qualityfm", "quality_distillation"), CHANGES)
