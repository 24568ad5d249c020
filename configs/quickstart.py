"""The first run of a newcomer: QualityFM base, a few minutes on two cores.

make pretrain                                                              # on synthetic recordings
python launch/run.py --config configs/quickstart.py --config.data.store=STORE    # on your own
"""

from ml_collections import ConfigDict

from jaxbio.config import fields, presets
from jaxbio.config.families import qualityfm

CHANGES = {
    **qualityfm.SHORT,
    "optimizer.learning_rate": 1e-3,  # docs/recipe.md, "Short runs"
    "model.unroll": 2,
    "prepare.split": (0.65, 0.25, 0.10),
    "prepare.shard_bytes": 8 * 2**20,
    "data.streams": 16,
    "train.steps": 200,
    "train.batch": 32,
    "eval.every_steps": 50,
    "eval.batches": 2,
    "log.every_steps": 5,
    "log.report_every_s": 20.0,
    "checkpoint.every_steps": 100,
}


def get_config(argument: str = "") -> ConfigDict:
    """Return the recipe's configuration; `argument` names presets."""
    config = fields.change(fields.defaults("qualityfm", "quality_distillation"), CHANGES)
    return presets.apply(config, argument, {"smoke": presets.SMOKE})
